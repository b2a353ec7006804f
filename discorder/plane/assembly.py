"""How a shard is put together: from its tracker and what is stored of it to a driver that can run.

Must not: run or supervise anything, or decide when a shard starts; that is the plane's affair.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from discorder.clock import Clock, SystemClock
from discorder.config import Config, ShardSet
from discorder.plane.keeping import Layout, LookUp, Sessions, untold_before
from discorder.publishers.fanout import FanOut
from discorder.rest import GatewayInfo, Token
from discorder.sessions import SessionStore, StoredSession
from discorder.shard.driver import ShardDriver
from discorder.shard.outside import Outside
from discorder.shard.reception import Reception
from discorder.statemachine import Session, ShardMachine
from discorder.tracking.shard_tracker import ShardTracker
from discorder.transport import AiohttpTransport, Compression, decompressing, gateway_url
from discorder.transport.protocol import Transport

Wrap = Callable[[Transport, tuple[int, int]], Transport]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a plane stands on; all of it is replaced in a replay or a test.

    ``dial`` makes the transport of a new generation (None: aiohttp, decompressing); ``wrap`` goes around it, to record.
    ``look_up`` asks for the gateway's URL, the shard count and the identify budget (None: REST); ``store`` takes the place of
    the one that the configuration names. ``watchdog``: a thread watches the loop; not where time is no real time.
    """

    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.Random)
    dial: Callable[[tuple[int, int]], Transport] | None = None
    wrap: Wrap | None = None
    look_up: LookUp | None = None
    store: SessionStore | None = None
    watchdog: bool = True


def configured_layout(config: Config) -> Layout | None:
    """Shard ids and count as configured; None when Discord is to be asked."""
    match config.gateway.shards:
        case int(count):
            return range(count), count
        case ShardSet(ids, of):
            return sorted(ids), of
        case _:
            return None


def make_trackers(ids: Sequence[int], count: int, clock: Clock) -> list[ShardTracker]:
    """One for each shard of ``ids``, out of ``count``."""
    return [ShardTracker(shard_id, count, clock) for shard_id in ids]


class Assembly:
    """Makes the drivers of one plane. ``gateway`` gives the look-up's answer, once it is there."""

    def __init__(
        self,
        config: Config,
        token: Token,
        around: Surroundings,
        *,
        compression: Compression,
        fan_out: FanOut,
        sessions: Sessions,
        gateway: Callable[[], Awaitable[GatewayInfo]],
        changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._token = token
        self._around = around
        self._compression = compression
        self._fan_out = fan_out
        self._sessions = sessions
        self._gateway = gateway
        self._changed = changed

    def driver(self, shard: ShardTracker, stored: StoredSession | None) -> ShardDriver:
        """For ``shard``, which begins with the session that is ``stored``, or without one."""
        config, around = self._config, self._around
        identity = (shard.shard_id, shard.shard_count)
        session = None if stored is None else Session(stored.session_id, stored.resume_url)
        machine = ShardMachine(
            fail_on_error=config.gateway.fail_on_error,
            max_attempts=config.gateway.max_attempts,
            session=session,
        )
        delivery = self._fan_out.shard(shard.shard_id)
        reception = Reception(identity, around.clock, shard.stats, delivery)
        if stored is not None and session is not None:
            for lost in untold_before(stored):
                delivery.session_lost(lost)
            reception.adopt(session, stored.seq, stored.last_ready, stored.updated_at)
        for lost in self._sessions.lost_to(identity):
            delivery.session_lost(lost)
        keeper = self._sessions.keeper(shard, reception, delivery, stored)
        outside = Outside(
            clock=around.clock,
            rng=around.rng,
            token=self._token,
            intents=config.gateway.intents_value,
            payload_compression=self._compression is Compression.PAYLOAD,
            log_heartbeats=config.log.heartbeat,
            transport=lambda: self._transport(identity),
            url=self._url,
            admit=self._sessions.admit,
            keeper=keeper,
            delivery=delivery,
            changed=self._changed,
        )
        return ShardDriver(shard, machine, reception, outside)

    def _transport(self, shard: tuple[int, int]) -> Transport:
        if self._around.dial is not None:
            transport = self._around.dial(shard)
        else:
            transport = decompressing(AiohttpTransport(), self._compression)
        return transport if self._around.wrap is None else self._around.wrap(transport, shard)

    async def _url(self, host: str) -> str:
        """``host`` ("" = the main one, as soon as it is known) with the query that every connection needs."""
        return gateway_url(host or (await self._gateway()).url, self._compression)
