"""Read a control plane once per scrape, for all metrics together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from discorder.metrics.event_types import EventTypes
from discorder.publishers.delivery.health import PublisherHealth
from discorder.sessions import Budget
from discorder.statemachine.health import judge_loop
from discorder.stats import GatewayStats
from discorder.tracking.facade_status import FacadeStatus
from discorder.tracking.shard_tracker import ShardTracker
from discorder.tracking.tracker import GatewayTracker


@dataclass(frozen=True, slots=True)
class OldestAges:
    """The highest ages of all shards, in seconds; None where no shard has one."""

    frame: float | None
    ack: float | None
    dispatch: float | None
    unanswered_heartbeat: float | None


class Scrape:
    """A control plane at the moment of a scrape. Made on the loop of the plane; what several metrics need is computed once."""

    def __init__(self, tracker: GatewayTracker, event_types: EventTypes) -> None:
        self.tracker = tracker
        self.shards: tuple[ShardTracker, ...] = tracker.shards
        self.stats: GatewayStats = tracker.stats
        self.publishers: tuple[PublisherHealth, ...] = tracker.publisher_health
        self.budget: Budget | None = tracker.budget
        self.facade: FacadeStatus = tracker.facade
        self.oldest = _oldest(self.shards)
        self._event_types = event_types

    @property
    def is_ready(self) -> bool:
        """Return whether `diagnose` finds the control plane healthy, without the cost of its sentences."""
        return all(shard.serves for shard in self.shards) and not judge_loop(self.tracker.loop_lag.now)

    @property
    def events_by_type(self) -> list[tuple[str, int]]:
        """Return (label, count) of each event type, a bounded number of them."""
        return self._event_types.labelled(self.stats.events_by_type)


def _oldest(shards: Sequence[ShardTracker]) -> OldestAges:
    if not shards:
        return OldestAges(None, None, None, None)
    pulses = [shard.pulse for shard in shards if shard.pulse is not None]
    any_shard = shards[0]  # they share one clock
    now = any_shard.age_of(0.0) or 0.0
    return OldestAges(
        frame=any_shard.age_of(min((pulse.last_frame_at for pulse in pulses), default=None)),
        ack=any_shard.age_of(_earliest(pulse.last_ack_at for pulse in pulses)),
        dispatch=any_shard.age_of(_earliest(shard.read_last_dispatch_at() for shard in shards)),
        unanswered_heartbeat=max(
            (age for pulse in pulses if (age := pulse.unanswered_for(now)) is not None), default=None
        ),
    )


def _earliest(moments: Iterable[float | None]) -> float | None:
    return min((at for at in moments if at is not None), default=None)
