"""Describe the shards for the document."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from discorder.statemachine import Session
from discorder.statemachine.heartbeat import Pulse
from discorder.status.document import AgesPart, CountsPart, HeartbeatPart, ShardPart
from discorder.status.next_step import NextSteps
from discorder.status.rates import Rates
from discorder.status.times import WallTimes
from discorder.status.verdict import cause_of
from discorder.tracking.shard_tracker import ShardTracker


class _ReadyGuilds(msgspec.Struct, gc=False):
    guilds: list[msgspec.Raw]


_READY = msgspec.json.Decoder(_ReadyGuilds)


class Guilds:
    """The number of guilds in the READY of each shard. Each READY is read once."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[Session, int | None]] = {}

    def of(self, shard: ShardTracker) -> int | None:
        """Return the number of guilds, None without a session, or if READY is not known or has no list of them."""
        session = shard.session
        if session is None:
            return None
        known = self._counted.get(shard.shard_id)
        if known is None or known[0] is not session:
            ready = shard.ready
            if ready is None:
                return None
            known = self._counted[shard.shard_id] = (session, _count_guilds(ready.data))
        return known[1]


def _count_guilds(ready: bytes) -> int | None:
    try:
        return len(_READY.decode(ready).guilds)
    except msgspec.MsgspecError:
        return None


class ShardDescriber:
    """Describes shards: all of them, or those that changed."""

    def __init__(self, times: WallTimes, rates: Rates) -> None:
        self._times = times
        self._rates = rates
        self._guilds = Guilds()

    def describe(self, shards: Sequence[ShardTracker], steps: NextSteps) -> list[ShardPart]:
        """Return the description of each of ``shards``."""
        return [self._describe(shard, steps) for shard in shards]

    def _describe(self, shard: ShardTracker, steps: NextSteps) -> ShardPart:
        pulse, stats, serves = shard.pulse, shard.stats, shard.serves
        return ShardPart(
            id=shard.shard_id,
            state=shard.state,
            healthy=serves,
            parked=shard.parked,
            paused=shard.paused_since is not None,
            reasons=[] if serves else list(shard.diagnose().reasons),
            since=self._times.at(shard.entered_at),
            cause=cause_of(shard),
            attempt=shard.attempts,
            generation=shard.generation,
            session=shard.session_label,
            seq=shard.seq,
            guilds=self._guilds.of(shard),
            events_per_s=self._rates.per_s(shard.shard_id),
            owner=None,
            ages_s=_ages(pulse, shard.read_last_dispatch_at(), steps.now),
            heartbeat=_NO_HEARTBEAT if pulse is None else _heartbeat(pulse),
            counts=CountsPart(
                restarts=stats.restart_count, resumes=stats.resume_count, identifies=stats.identify_count
            ),
            next=steps.of(shard),
        )


_NO_HEARTBEAT = HeartbeatPart(interval_s=None, latency_s=None)


def _heartbeat(pulse: Pulse) -> HeartbeatPart:
    latency = pulse.round_trip
    return HeartbeatPart(
        interval_s=round(pulse.interval, 3), latency_s=None if latency is None else round(max(0.0, latency), 4)
    )


def _ages(pulse: Pulse | None, dispatch_at: float | None, now: float) -> AgesPart:
    """Return the ages at ``now``, as `ShardTracker.ages` does, in the form of the document."""
    return AgesPart(
        frame=None if pulse is None else _age(pulse.last_frame_at, now),
        ack=None if pulse is None else _age(pulse.last_ack_at, now),
        dispatch=_age(dispatch_at, now),
        unanswered_beat=None
        if pulse is None or (since := pulse.unanswered_for(now)) is None
        else _age(now - since, now),
    )


def _age(at: float | None, now: float) -> float | None:
    if at is None:
        return None
    age = now - at
    return round(age, 2) if age > 0.0 else 0.0
