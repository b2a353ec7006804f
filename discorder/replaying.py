"""Replay a recorded session through a whole control plane, with a fake clock and a mock gateway."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from discorder.clock import FakeClock
from discorder.config import Compress, Config, Facade, ShardSet
from discorder.config.schema import MAX_INTENTS
from discorder.control_plane import serve_config, shutdown
from discorder.errors import DiscorderError, RecordingError
from discorder.plane import PlaneDependencies
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.publishers.protocol import Publisher
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.sessions import MemorySessionStore, StoredSession
from discorder.tracking.tracker import GatewayTracker
from discorder.tracking.tracker_ref import TrackerRef
from discorder.transport.mock import MockGateway
from discorder.transport.recorded import (
    GATEWAY_URL,
    REMEDY,
    EntryKind,
    RecordedConnection,
    Recording,
    decoded,
    is_int,
    shown,
)
from discorder.wire import GOODBYE_CLOSE, MAX_SEQ, Op

# The recording has a placeholder instead. Unlike any word of a message, because the log replaces the token wherever it occurs.
TOKEN = "MA.replay.no-token-at-all"  # noqa: S105
REAL_STEP = 0.002  # seconds
CATCH_UP_STEPS = 500  # one second; after that the clock does not wait for the publisher until it has caught up
BUDGET = SessionStartLimit(total=1000, remaining=1000, reset_after_ms=0, max_concurrency=1)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay: the tracker, and the error that ended the control plane (None: it was shut down at the end)."""

    tracker: GatewayTracker
    error: DiscorderError | None


async def replay(
    recording: Recording,
    config: Config,
    *,
    speed: float | None = None,
    publishers: Sequence[Publisher] = (),
) -> Replayed:
    """Play ``recording`` with the publishers of ``config``; intents, shards and stored sessions are the recording's.

    ``speed`` in real time (1 = as recorded), None: as fast as possible. ``publishers``: more publishers than those of ``config``.
    A replay of the same file has the same result each time. Raises `RecordingError` at the first difference between the control
    plane's frames and the recorded ones, and `ConfigError` for publishers that cannot be opened.
    """
    clock = FakeClock(recording.created)
    ref = _Ref(publishers)
    gateway = MockGateway(recording, clock, settle=ref.publishers_caught_up, command=ref.command)
    adapted = _adapted(config, recording)
    around = PlaneDependencies(
        clock=clock,
        rng=random.Random(0),
        dial=gateway.dial,
        look_up=lambda: _look_up(recording),
        store=_store(recording, clock, adapted.gateway.intents_value),
        watchdog=False,
    )
    serving = serve_config(lambda: adapted, client=BotClient(TOKEN), tracker_ref=ref, dependencies=around)
    plane = asyncio.create_task(serving, name="replayed-plane")
    try:
        tracker = await _tracker_or_error(ref, plane)
        await gateway.play(speed)
        ending = asyncio.create_task(shutdown(tracker, goodbye=_said_goodbye(recording)))
        while not (ending.done() and plane.done()):
            await clock.advance(REAL_STEP)  # the shutdown has deadlines on the fake clock
            await asyncio.sleep(REAL_STEP)  # threads of publishers run in real time
        await ending
        gateway.check()
        error = plane.exception()
        if error is None or isinstance(error, DiscorderError):
            return Replayed(tracker, error)
        gateway.report_difference(f"the control plane ended with {type(error).__name__}: {error}", gateway.line)
        gateway.check()
        raise error
    finally:
        plane.cancel()
        await asyncio.gather(plane, return_exceptions=True)


class _Ref(TrackerRef):
    """Adds the caller's publishers before the first dial, and waits until all publishers have caught up."""

    def __init__(self, publishers: Sequence[Publisher]) -> None:
        super().__init__()
        self._publishers = publishers
        self._patience = CATCH_UP_STEPS

    def fill(self, tracker: GatewayTracker) -> None:
        for publisher in self._publishers:
            tracker.add_publisher(publisher)
        super().fill(tracker)

    async def publishers_caught_up(self) -> None:
        """Wait in real time, so that the fake clock does not run ahead of a publisher that works in a thread."""
        while any(health.queued_events + health.in_flight for health in self._working()):
            if not self._patience:
                return  # a stuck publisher must not delay every step of the clock
            self._patience -= 1
            await asyncio.sleep(REAL_STEP)
        self._patience = CATCH_UP_STEPS

    async def command(self, shard: tuple[int, int], op: int, d: Any) -> None:
        """Send a command that the bot sent during the recording."""
        await self.value.send(op, d, shard=shard[0])

    def _working(self) -> list[PublisherHealth]:
        return [health for health in self.value.publisher_health if health.state is PublisherState.HEALTHY]


async def _tracker_or_error(ref: TrackerRef, plane: asyncio.Task[None]) -> GatewayTracker:
    filled = asyncio.create_task(asyncio.to_thread(ref.wait))
    await asyncio.wait([filled, plane], return_when=asyncio.FIRST_COMPLETED)
    if plane.done() and (error := plane.exception()) is not None:
        await asyncio.gather(filled, return_exceptions=True)
        raise error
    return await filled


async def _look_up(recording: Recording) -> GatewayInfo:
    return GatewayInfo(url=GATEWAY_URL, shards=max(1, recording.shards), session_start_limit=BUDGET)


def _adapted(config: Config, recording: Recording) -> Config:
    """Return ``config`` with the recorded layout and intents, with recovery from failures and without a status page."""
    ids = sorted({connection.shard[0] for connection in recording.connections})
    count = max((connection.shard[1] for connection in recording.connections), default=1)
    intents = next((d["intents"] for _, d in _sent(recording, Op.IDENTIFY)), config.gateway.intents_value)
    layout = ShardSet(ids=tuple(ids or [0]), of=count)
    gateway = msgspec.structs.replace(
        config.gateway,
        shards=layout,
        intents=intents,
        compress=Compress.NONE,  # recorded texts are decompressed
        fail_on_error=False,
    )
    http = msgspec.structs.replace(config.http, bind="")  # its time is not that of a reader
    return msgspec.structs.replace(config, gateway=gateway, http=http, facade=Facade())


def _said_goodbye(recording: Recording) -> bool:
    """Return whether the recorded process ended its sessions when it stopped, instead of keeping them for the next start."""
    ends = [connection.entries[-1] for connection in recording.connections]
    return any(end.kind is EntryKind.CLOSE and end.by == "us" and end.code == GOODBYE_CLOSE for end in ends)


def _store(recording: Recording, clock: FakeClock, intents: int) -> MemorySessionStore:
    """Return a store with the sessions that the recorded process resumed before its first READY."""
    store = MemorySessionStore()
    begun: set[tuple[int, int]] = set()
    for connection, d in _sent(recording, Op.RESUME, Op.IDENTIFY):
        if connection.shard not in begun and "session_id" in d:
            store.save(
                StoredSession(
                    shard_id=connection.shard[0],
                    shard_count=connection.shard[1],
                    session_id=d["session_id"],
                    resume_url=connection.entries[0].url.partition("?")[0],
                    seq=d["seq"],
                    last_ready=None,
                    updated_at=clock.now(),
                    intents=intents,
                )
            )
        begun.add(connection.shard)
    return store


def _sent(recording: Recording, *ops: Op) -> Iterator[tuple[RecordedConnection, dict[str, Any]]]:
    """Yield the ``d`` of each sent IDENTIFY or RESUME in ``ops``, in order. Raises `RecordingError` if one is incomplete."""
    for connection in recording.connections:
        for entry in connection.entries:
            if entry.kind is EntryKind.OUT and entry.op in ops:
                d = decoded(entry.text).get("d")
                if not isinstance(d, dict) or not _is_whole(Op(entry.op), d):
                    msg = f"{recording.path}:{entry.line}: op {entry.op} is incomplete: {shown(d)}; {REMEDY}"
                    raise RecordingError(msg)
                yield connection, d


def _is_whole(op: Op, d: dict[str, Any]) -> bool:
    """Return whether IDENTIFY has its intents, or RESUME its session and sequence."""
    if op is Op.IDENTIFY:
        return is_int(d.get("intents")) and 0 <= d["intents"] <= MAX_INTENTS
    session, seq = d.get("session_id"), d.get("seq")
    return isinstance(session, str) and bool(session) and is_int(seq) and 0 <= seq <= MAX_SEQ
