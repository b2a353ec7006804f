"""Keep the last minutes of events, latency and outages: 180 points of one second, and of five once the plane is up for longer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from discorder.status.document import FlowsPart, LatencyPart, Moment, OutagePart
from discorder.status.times import WallTimes

POINTS = 180
FIRST_STEP, STEP = 1, 5  # seconds per point, during the first 180 seconds and later


@dataclass(slots=True)
class Point:
    """One point: the events of ``seconds``, the last known median latency, the longest latency; None = not known."""

    events: float = 0.0
    seconds: float = 0.0
    median: float | None = None
    worst: float | None = None

    @property
    def per_s(self) -> float | None:
        """Return the events per second, None for a point without a sample."""
        return round(self.events / self.seconds, 1) if self.seconds else None

    def add(self, other: Point) -> None:
        """Count the samples of ``other``, a later one."""
        self.events += other.events
        self.seconds += other.seconds
        self.median = self.median if other.median is None else other.median
        self.worst = max((one for one in (self.worst, other.worst) if one is not None), default=None)


@dataclass(slots=True)
class _Interval:
    begin: float  # monotonic seconds
    end: float | None


class FlowRing:
    """The points since monotonic second ``began``, and the intervals in which no shard was Ready. The last point still grows."""

    def __init__(self, began: float) -> None:
        self.step = FIRST_STEP
        self._began = began
        self._last = 0  # the number of the last point, counted from ``began``
        self._points: deque[Point] = deque((Point() for _ in range(POINTS)), maxlen=POINTS)
        self._outages: deque[_Interval] = deque([_Interval(began, None)], maxlen=POINTS)

    @property
    def last(self) -> Point:
        """Return the point that still grows."""
        return self._points[-1]

    @property
    def _first_at(self) -> float:
        return self._began + (self._last - POINTS + 1) * self.step

    def add(self, now: float, sample: Point) -> int:
        """Add a sample that ended at ``now``. Return how many points are new: all of them once they get wider.

        More than one is new after a pause of the process; those in between have no value.
        """
        widened = self.step == FIRST_STEP and now - self._began > POINTS * FIRST_STEP
        if widened:
            self._widen()
        number = int((now - self._began - sample.seconds / 2) // self.step)
        begun = max(0, number - self._last)
        self._points.extend(Point() for _ in range(min(begun, POINTS)))
        self._last += begun
        self.last.add(sample)
        return POINTS if widened else begun

    def _widen(self) -> None:
        """Join five points of one second to one each."""
        fine = list(self._points)[max(0, POINTS - 1 - self._last) :]
        wide = [_joined(fine[begin : begin + STEP]) for begin in range(0, len(fine), STEP)]
        self.step, self._last = STEP, len(wide) - 1
        self._points.extend(Point() for _ in range(POINTS - len(wide)))
        self._points.extend(wide)

    def serving(self, now: float, *, any_shard: bool) -> None:
        """Note whether any shard is Ready at ``now``."""
        last = self._outages[-1] if self._outages else None
        if any_shard and last is not None and last.end is None:
            last.end = now
        elif not any_shard and (last is None or last.end is not None):
            self._outages.append(_Interval(now, None))

    # ---------------------------------------------------------------- for the document

    def first_at(self, times: WallTimes) -> Moment:
        """Return the time of day at which the first point begins."""
        return times.at(self._first_at)

    def outages(self, times: WallTimes) -> list[OutagePart]:
        """Return the intervals in which no shard was Ready, as far as the points reach back."""
        while self._outages and (end := self._outages[0].end) is not None and end < self._first_at:
            self._outages.popleft()
        return [
            OutagePart(from_=times.at(one.begin), to=None if one.end is None else times.at(one.end))
            for one in self._outages
        ]

    def as_part(self, times: WallTimes) -> FlowsPart:
        """Return the flows for the document."""
        points = self._points
        return FlowsPart(
            step_s=self.step,
            from_=self.first_at(times),
            events_per_s=[point.per_s for point in points],
            latency_s=LatencyPart(median=[point.median for point in points], worst=[point.worst for point in points]),
            not_serving=self.outages(times),
        )


def _joined(points: Sequence[Point]) -> Point:
    whole = Point()
    for point in points:
        whole.add(point)
    return whole
