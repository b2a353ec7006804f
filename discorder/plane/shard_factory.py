"""Build the driver of a shard from its tracker and its stored session; read the shard layout from the configuration."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from discorder.clock import Clock, SystemClock
from discorder.config import Config, ShardSet
from discorder.errors import ConfigError
from discorder.logs import logger
from discorder.plane.guild_recovery import GuildRecovery
from discorder.plane.main_host import MOST_SHARDS, MainHost
from discorder.plane.session_persistence import GatewayLookUp, Layout, Sessions, unreported_before
from discorder.publishers.delivery.fanout import FanOut
from discorder.rest import Token
from discorder.sessions import SessionStore, StoredSession
from discorder.shard.dependencies import ShardDependencies
from discorder.shard.driver import ShardDriver
from discorder.shard.receiver import Receiver
from discorder.statemachine import Session, ShardMachine
from discorder.tracking.shard_tracker import ShardTracker, Transition
from discorder.transport import AiohttpTransport, Compression, inflater
from discorder.transport.protocol import Transport

Wrap = Callable[[Transport, tuple[int, int]], Transport]


@dataclass(frozen=True, slots=True)
class PlaneDependencies:
    """What a plane uses of its environment. A replay or a test replaces it.

    ``dial`` makes the transport of a new generation (None: to the real gateway); ``wrap`` wraps it, to record. ``look_up``
    requests the gateway's URL, the shard count and the identify budget (None: REST); ``store`` replaces the configured one.
    ``watchdog``: a thread watches the loop; False on virtual time.
    """

    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.Random)
    dial: Callable[[tuple[int, int]], Transport] | None = None
    wrap: Wrap | None = None
    look_up: GatewayLookUp | None = None
    store: SessionStore | None = None
    watchdog: bool = True


def configured_layout(config: Config) -> Layout | None:
    """Return the configured shard ids and count; None for "auto". Raise ConfigError for more than one process can run."""
    match config.gateway.shards:
        case int(count):
            _check_number(count)
            return range(count), count
        case ShardSet(ids, of):
            _check_number(len(ids))
            return sorted(ids), of
        case _:
            return None


def _check_number(shards: int) -> None:
    if shards > MOST_SHARDS:
        msg = (
            f"gateway.shards names {shards} shards, and one process runs {MOST_SHARDS} at most; "
            "share them among processes with gateway.shards = { ids = […], of = … }"
        )
        raise ConfigError(msg)


def make_trackers(ids: Sequence[int], count: int, clock: Clock) -> list[ShardTracker]:
    """Return a tracker for each shard of ``ids``, out of ``count``."""
    return [ShardTracker(shard_id, count, clock) for shard_id in ids]


class ShardFactory:
    """Makes the drivers of one plane. ``main_host`` chooses the host to dial."""

    def __init__(
        self,
        config: Config,
        token: Token,
        around: PlaneDependencies,
        *,
        compression: Compression,
        fan_out: FanOut,
        sessions: Sessions,
        main_host: MainHost,
        recovery: GuildRecovery,
        changed: Callable[[ShardTracker, Transition], None],
        log_heartbeats: Callable[[], bool],
    ) -> None:
        self._config = config
        self._token = token
        self._around = around
        self._compression = compression
        self._fan_out = fan_out
        self._sessions = sessions
        self._main_host = main_host
        self._recovery = recovery
        self._changed = changed
        self._log_heartbeats = log_heartbeats
        self._plain_text_noted = False

    def driver(self, shard: ShardTracker, stored: StoredSession | None) -> ShardDriver:
        """Return the driver of ``shard``, which begins with the session that is ``stored``, or without one."""
        config, around = self._config, self._around
        identity = (shard.shard_id, shard.shard_count)
        session = None
        if stored is not None:
            stored = replace(stored, resume_url=self._main_host.stored_url(stored.resume_url))
            session = Session(stored.session_id, stored.resume_url, stored.ordinal)
        machine = ShardMachine(
            fail_on_error=config.gateway.fail_on_error,
            max_attempts=config.gateway.max_attempts,
            session=session,
            paused=shard.paused_since is not None,
        )
        delivery = self._fan_out.shard(shard.shard_id)
        receiver = Receiver(identity, around.clock, shard.stats, delivery, ordinal=self._sessions.ordinal)
        if stored is not None and session is not None:
            for lost in unreported_before(stored):
                delivery.session_lost(lost)
            seq = self._recovery.resume_seq(stored)
            receiver.adopt(session, seq, stored.last_ready, stored.updated_at, stored.ready_seq)
        for lost in self._sessions.lost_to(identity):
            delivery.session_lost(lost)
        dependencies = ShardDependencies(
            clock=around.clock,
            rng=around.rng,
            token=self._token,
            intents=config.gateway.intents_value,
            payload_compression=self._compression is Compression.PAYLOAD,
            log_heartbeats=self._log_heartbeats,
            transport=lambda: self._transport(identity),
            target=lambda resume_url, known: self._main_host.target(resume_url, known, self._compression),
            resume_url=self._main_host.resume_url,
            hold_dials=self._main_host.hold_dials,
            admit=self._sessions.admit,
            saver=self._sessions.writer(shard, receiver, delivery, stored),
            delivery=delivery,
            why_end=lambda label: self._recovery.why_end(shard.shard_id, label),
            changed=self._changed,
        )
        return ShardDriver(shard, machine, receiver, dependencies)

    def _transport(self, shard: tuple[int, int]) -> Transport:
        if self._around.dial is not None:
            transport = self._around.dial(shard)
        else:
            transport = AiohttpTransport(
                inflater=inflater(self._compression),
                plain_text=self._note_plain_text,
                proxies=self._config.gateway.proxies,
            )
        return transport if self._around.wrap is None else self._around.wrap(transport, shard)

    def _note_plain_text(self) -> None:
        """Log once that the gateway does not compress its stream. With payload compression a text is nothing special."""
        if not self._plain_text_noted and self._compression is not Compression.PAYLOAD:
            self._plain_text_noted = True
            logger.warning(
                "The gateway does not compress its messages, although it was asked to", asked=self._compression.value
            )
