"""Merge the flows of several processes: rates added, latencies of the slowest, point by point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

from discorder.status.document import FlowsPart, LatencyPart, Moment, OutagePart, moment
from discorder.status.flows import FIRST_STEP, POINTS

Points = Sequence[float | None]


def merge_flows(flows: Sequence[FlowsPart], at: Moment) -> FlowsPart:
    """Return flows on the points of the one that has the widest, and of them the newest. Without any: none until ``at``."""
    if not flows:
        begin = datetime.fromisoformat(at) - timedelta(seconds=POINTS * FIRST_STEP)
        empty: list[float | None] = [None] * POINTS
        latency = LatencyPart(median=list(empty), worst=list(empty))
        since = moment(begin.astimezone(UTC))
        return FlowsPart(step_s=FIRST_STEP, from_=since, events_per_s=empty, latency_s=latency, not_serving=[])
    grid = max(flows, key=lambda one: (one.step_s, one.from_))
    places = [_places(one, grid) for one in flows]
    rates = [_mean_points(one.events_per_s, place) for one, place in zip(flows, places, strict=True)]
    medians = [_mean_points(one.latency_s.median, place) for one, place in zip(flows, places, strict=True)]
    worst = [_points(one.latency_s.worst, place) for one, place in zip(flows, places, strict=True)]
    return FlowsPart(
        step_s=grid.step_s,
        from_=grid.from_,
        events_per_s=[_rounded(sum(known) if known else None, 1) for known in map(_known, zip(*rates, strict=True))],
        latency_s=LatencyPart(
            median=[_rounded(median(known) if known else None, 4) for known in map(_known, zip(*medians, strict=True))],
            worst=[
                max(_known(value for values in point for value in values), default=None)
                for point in zip(*worst, strict=True)
            ],
        ),
        not_serving=_common_outages([one.not_serving for one in flows]),
    )


def _places(flows: FlowsPart, grid: FlowsPart) -> list[range]:
    """Return the points of ``flows`` that fall into each point of ``grid``."""
    ratio = grid.step_s / flows.step_s
    offset = (_seconds(grid.from_) - _seconds(flows.from_)) / flows.step_s
    bounds = [min(max(round(offset + place * ratio), 0), POINTS) for place in range(POINTS + 1)]
    bounds[-1] = max(bounds[-1], POINTS) if bounds[-2] < POINTS else bounds[-1]  # a newer point belongs to the last one
    return [range(begin, end) for begin, end in pairwise(bounds)]


def _points(values: Points, places: Iterable[range]) -> list[list[float | None]]:
    return [[values[place] for place in places_of_one] for places_of_one in places]


def _mean_points(values: Points, places: Iterable[range]) -> list[float | None]:
    means = []
    for points in _points(values, places):
        known = _known(points)
        means.append(sum(known) / len(known) if known else None)
    return means


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _common_outages(outages: Sequence[Sequence[OutagePart]]) -> list[OutagePart]:
    """Return the intervals in which no process had a shard that was Ready."""
    common = list(outages[0])
    for other in outages[1:]:
        common = [
            OutagePart(from_=begin, to=end)
            for one in common
            for two in other
            if (begin := max(one.from_, two.from_)) < ((end := _earlier(one.to, two.to)) or "9")
        ]
    return common


def _earlier(one: Moment | None, two: Moment | None) -> Moment | None:
    return two if one is None else one if two is None else min(one, two)


def _seconds(at: Moment) -> float:
    return datetime.fromisoformat(at).timestamp()
