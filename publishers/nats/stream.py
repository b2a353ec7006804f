"""Make the JetStream stream of the events, or check that an existing one keeps them as configured."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext, JetStreamManager
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from discorder.errors import ConfigError, PublisherUnreachable
from discorder.nats_access import event_subjects, exact, record_subjects
from discorder.publishers.nats.messages import ID_HEADER, position_in
from discorder.wire import StreamPosition

OVERLAP = 10_065  # JetStream's error codes: another stream has one of the subjects
NO_ROOM = 10_047  # max_bytes is more than the server may keep
NAME_WITHIN = 1.0  # seconds for the name of the stream that has our subjects
LEADER_WITHIN, LOOK_EVERY = 3.0, 0.2  # seconds
ATOMIC_SINCE = (2, 12)  # version of the server
NOT_CLUSTERED = 10_074  # more than one replica on a server without a cluster

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Describe the stream. ``key``: of the publisher's table, for messages. ``max_age`` and ``duplicate_window`` in seconds."""

    key: str
    name: str
    prefix: str
    max_bytes: int
    max_age: float
    duplicate_window: float
    replicas: int
    atomic: bool  # batches are stored as a whole and synced

    @property
    def config(self) -> StreamConfig:
        """Return the configuration of a new stream. It lists its subjects: a stream of everything would keep requests, too."""
        return StreamConfig(
            name=self.name,
            subjects=[event_subjects(self.prefix), record_subjects(self.prefix)],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            storage=StorageType.FILE,
            max_bytes=self.max_bytes,
            max_age=self.max_age,
            duplicate_window=self.duplicate_window,
            num_replicas=self.replicas,
            allow_atomic=self.atomic or None,
        )


async def make_or_check(client: Client, settings: StreamSettings, *, first: bool, make: bool = True) -> int | None:
    """Make the stream if there is none, otherwise check its settings. Return the number of its last message, None if it is new.

    ``make`` False: make none.

    Raises ConfigError, which names key and remedy, or PublisherUnreachable if JetStream does not answer. Unless ``first``, a
    limit that was changed while the control plane runs is only logged: events matter more.
    """
    version = client.connected_server_version
    if settings.atomic and (version.major, version.minor) < ATOMIC_SINCE:
        msg = (
            f'{settings.key}.durability: "sync" needs nats-server {ATOMIC_SINCE[0]}.{ATOMIC_SINCE[1]} or later, and this server '
            f'is {version.major}.{version.minor}.{version.patch}; upgrade it, or set {settings.key}.durability = "acks"'
        )
        raise ConfigError(msg)
    manager = client.jsm()
    try:
        info = await _found_or_made(manager, settings, make=make)
    except NatsTimeoutError as error:
        msg = (
            f"{settings.key}: JetStream does not answer in time; it is tried again. If this goes on, look at the log of the NATS "
            "server, and whether the login may use the JetStream API"
        )
        raise PublisherUnreachable(msg) from error
    except ServiceUnavailableError as error:
        why = error.description or "it is off on this server or in this account"
        msg = (
            f"{settings.key}: JetStream is not available ({why}); start nats-server with JetStream (-js), or set "
            f'{settings.key}.mode = "core"'
        )
        raise PublisherUnreachable(msg) from error
    if info is None:
        return None
    unfit = list(_unfit(info.config, settings))
    limits = list(_other_limits(info.config, settings))
    if unfit or (limits and first):
        raise ConfigError((unfit or limits)[0])
    for complaint in limits:
        logger.warning("%s", complaint)
    return info.state.last_seq


async def last_event(
    stream: JetStreamContext, name: str, prefix: str, shard: tuple[int, int]
) -> tuple[StreamPosition, datetime] | None:
    """Return the last event of ``shard`` (id, count) in the stream, and when it was stored; None if it has none."""
    try:
        message = await stream.get_last_msg(name, event_subjects(prefix, shard))
    except NotFoundError:
        return None
    position = position_in((message.headers or {}).get(ID_HEADER, ""))
    return None if position is None or message.time is None else (position, message.time)


async def end_of(client: Client, settings: StreamSettings, at_least: int) -> int:
    """Return the number of the last message in the stream, at the latest after `LEADER_WITHIN` if it is below ``at_least``.

    A replica that has just become the leader may still be applying what it has.
    """
    manager = client.jsm()
    end = 0
    for _ in range(int(LEADER_WITHIN / LOOK_EVERY)):
        end = (await manager.stream_info(settings.name)).state.last_seq
        if end >= at_least or settings.replicas == 1:
            break
        await asyncio.sleep(LOOK_EVERY)
    return end


async def _found_or_made(manager: JetStreamManager, settings: StreamSettings, *, make: bool) -> StreamInfo | None:
    """Return configuration and state of the existing stream; None if there was none, and it was made if ``make`` says so."""
    try:
        return await manager.stream_info(settings.name)
    except NotFoundError:
        if not make:
            return None
    try:
        await manager.add_stream(settings.config)
    except (ServiceUnavailableError, NotFoundError):
        raise
    except APIError as error:
        other = await _stream_with_our_subjects(manager, settings) if error.err_code == OVERLAP else ""
        raise _not_made(error, settings, other) from error
    logger.info("NATS: made the stream %s", settings.name)
    return None


async def _stream_with_our_subjects(manager: JetStreamManager, settings: StreamSettings) -> str:
    """Return the name of a stream that keeps our subjects, "" if the server does not tell: a login need not be allowed to ask."""
    try:
        async with asyncio.timeout(NAME_WITHIN):
            for subject in settings.config.subjects or ():
                with contextlib.suppress(NotFoundError):
                    return await manager.find_stream_name_by_subject(subject)
    except (TimeoutError, NatsTimeoutError, APIError) as error:
        logger.info("NATS: the server does not say which stream has the subjects of %s: %s", settings.prefix, error)
    return ""


def _not_made(error: APIError, settings: StreamSettings, other: str) -> ConfigError:
    key, remedy = {
        OVERLAP: (
            "prefix",
            (f"the stream {other}" if other else "another stream")
            + f" has these subjects; set another prefix, or {settings.key}.stream to that stream",
        ),
        NO_ROOM: (
            "stream_bytes",
            f"the server has no room for {settings.max_bytes:,} bytes; set less, or raise its max_file_store",
        ),
        NOT_CLUSTERED: ("replicas", "more than one needs a cluster of NATS servers; set replicas = 1"),
    }.get(
        error.err_code or 0,
        ("stream", "correct the keys stream, stream_bytes, stream_seconds, duplicate_window and replicas"),
    )
    return ConfigError(
        f"{settings.key}.{key}: NATS refused to make the stream {settings.name} ({error.description}): {remedy}"
    )


def _unfit(found: StreamConfig, settings: StreamSettings) -> Iterator[str]:
    """Yield what keeps the stream ``found`` from keeping every event."""
    wanted = settings.config
    missing = [subject for subject in wanted.subjects or () if subject not in (found.subjects or ())]
    for one, is_wrong, needed in (
        ("subjects", bool(missing), f"must contain {' and '.join(missing)}"),
        ("retention", found.retention != wanted.retention, 'must be "limits", or events vanish when they are read'),
        ("storage", found.storage != wanted.storage, 'must be "file", or events vanish with the server'),
        ("discard", found.discard != wanted.discard, 'must be "old", or a full stream holds up the gateway connection'),
        ("max_msg_size", (found.max_msg_size or -1) > 0, "must be -1, or large events are refused"),
        ("max_msgs_per_subject", found.max_msgs_per_subject > 0, "must be -1, or events vanish early"),
        ("no_ack", found.no_ack, "must be false, or nothing tells which events are stored"),
        ("sealed", found.sealed, "must be false, or nothing can be stored"),
    ):
        if is_wrong:
            yield (
                f"{settings.key}.stream: {one} of the stream {settings.name} {needed}; change it (nats stream edit "
                f"{settings.name}), or name another stream in {settings.key}.stream"
            )
    if settings.atomic and not found.allow_atomic:
        yield (
            f'{settings.key}.durability: "sync" needs allow_atomic, which the stream {settings.name} does not have; set it (nats '
            f'stream edit {settings.name} --allow-batch), or set {settings.key}.durability = "acks"'
        )


def _other_limits(found: StreamConfig, settings: StreamSettings) -> Iterator[str]:
    for key, name, is_now, wanted in (
        ("stream_bytes", "max_bytes", found.max_bytes, settings.max_bytes),
        ("stream_seconds", "max_age", found.max_age, settings.max_age),
        ("duplicate_window", "duplicate_window", found.duplicate_window, settings.duplicate_window),
        ("replicas", "num_replicas", found.num_replicas, settings.replicas),
    ):
        if is_now != wanted:
            has_limit = (is_now or 0) > 0
            remedy = f"set {settings.key}.{key} to the first, or change" if has_limit else "change"
            yield (
                f"{settings.key}.{key}: {name} of the stream {settings.name} is "
                f"{exact(is_now or 0) if has_limit else 'not limited'}, and the configuration says {exact(wanted)}; {remedy} the "
                f"stream (nats stream edit {settings.name})"
            )
