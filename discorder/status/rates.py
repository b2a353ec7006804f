"""Sample the counters of all shards once a second: events per second, of each shard and of each type, and heartbeat latencies.

The counters exist anyway. A shard that received nothing costs two comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from discorder.status.document import EventTypePart
from discorder.status.flows import Point
from discorder.tracking.shard_tracker import ShardTracker

COMMONEST = 7  # types in the document
FEW = 16  # shards whose types are summed at every sample
TYPES_EVERY = 5  # samples between two sums of the types of more shards


class ShardRate:
    """The counters of one shard at the last sample."""

    __slots__ = ("counted", "per_s", "shard", "types", "types_counted")

    def __init__(self, shard: ShardTracker) -> None:
        self.shard = shard
        self.counted = 0
        self.per_s = 0.0
        self.types: dict[str, int] = {}  # at the last sum
        self.types_counted = 0

    def add_types(self, added: Counter[str]) -> None:
        """Add the events of each type since the last call to ``added``."""
        if self.types_counted == self.counted:
            return
        self.types_counted = self.counted
        known = self.types
        for name, count in self.shard.stats.events_by_type.items():
            before = known.get(name, 0)
            if count != before:
                added[name] += count - before
                known[name] = count


class Rates:
    """The rates of the shards of one plane."""

    def __init__(self) -> None:
        self._shards: Sequence[ShardTracker] = ()
        self._rates: dict[int, ShardRate] = {}
        self._of_left = 0  # events of the shards that have left
        self._totals: Counter[str] = Counter()
        self._added: Counter[str] = Counter()  # of shards that have left since the last sum of the types
        self._per_s: dict[str, float] = {}
        self._type_seconds = 0.0
        self._samples = 0

    def per_s(self, shard_id: int) -> float:
        """Return the events per second of one shard."""
        rate = self._rates.get(shard_id)
        return 0.0 if rate is None else round(rate.per_s, 1)

    @property
    def total(self) -> int:
        """Return the events since the start, at the last sample."""
        return self._of_left + sum(rate.counted for rate in self._rates.values())

    def types(self) -> list[EventTypePart]:
        """Return the commonest types since the start, the commonest first."""
        return [
            EventTypePart(type=name, per_s=round(self._per_s.get(name, 0.0), 1), total=total)
            for name, total in self._totals.most_common(COMMONEST)
        ]

    def sample(self, shards: Sequence[ShardTracker], seconds: float) -> Point:
        """Read all counters, ``seconds`` after the last sample."""
        events, latencies = 0, []
        if shards is not self._shards:
            events = self._follow(shards)
        for rate in self._rates.values():
            shard = rate.shard
            count = shard.stats.published_event_count
            if count != rate.counted:
                events += count - rate.counted
                rate.per_s = (count - rate.counted) / seconds
                rate.counted = count
            elif rate.per_s:
                rate.per_s = 0.0
            pulse = shard.pulse
            if pulse is not None and pulse.round_trip is not None:
                latencies.append(pulse.round_trip)
        self._type_seconds += seconds
        if len(self._rates) <= FEW or self._samples % TYPES_EVERY == 0:
            self._sum_types()
        self._samples += 1
        if not latencies:
            return Point(events, seconds)
        return Point(events, seconds, round(median(latencies), 4), round(max(latencies), 4))

    def _follow(self, shards: Sequence[ShardTracker]) -> int:
        """Follow ``shards``. Return the events since the last sample of those that have left."""
        left = [rate for rate in self._rates.values() if rate.shard not in shards]
        known = {rate.shard: rate for rate in self._rates.values()}
        self._shards = shards
        self._rates = {shard.shard_id: known.get(shard) or ShardRate(shard) for shard in shards}
        events = 0
        for rate in left:
            count = rate.shard.stats.published_event_count
            events += count - rate.counted
            rate.counted = count
            self._of_left += count
            rate.add_types(self._added)
        return events

    def _sum_types(self) -> None:
        added, self._added = self._added, Counter()
        for rate in self._rates.values():
            rate.add_types(added)
        self._totals.update(added)
        self._per_s = {name: count / self._type_seconds for name, count in added.items()}
        self._type_seconds = 0.0
