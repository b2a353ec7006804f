"""Draw the two curves and the commonest types of events as they were at the moment of the document (script/charts.js)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from discorder.http.page.looks import Document
from discorder.http.page.markup import Attributes, Child, Html, bar, element, span, table, unit
from discorder.http.page.words import count, fixed, millis, no_latency, rate, seconds_between
from discorder.http.page.words import span as span_text

WIDE, HIGH, ABOVE = 600, 110, 12  # units of the drawing's view box
FEWEST_POINTS = 60  # a curve that has just begun is not stretched over the whole width
_NICE_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """What one chart shows. ``series``: values with None where there is none; the second one is dashed."""

    chart: str
    name: str
    series: tuple[Values, ...]
    least: float
    now: Child
    summary: str
    unit_text: Callable[[float], str]
    keys: tuple[str, ...] = ()


def flows_caption(doc: Document) -> str:
    """Return which time the charts cover."""
    return f"the last {_covered(doc)}"


def rate_chart(doc: Document) -> Html:
    """Draw the events per second."""
    events = doc["flows"]["events_per_s"]
    known = _known(events)
    summary = (
        f"Events per second over {_covered(doc)}: now {rate(events[-1])}, on average "
        f"{rate(sum(known) / (len(known) or 1))}, at most {rate(max([0.0, *known]))}."
    )
    curve = Curve(
        "c-rate",
        "Events",
        (events,),
        1,
        [rate(events[-1]), unit(" per s")],
        summary,
        lambda v: rate(v).removesuffix(".0"),
    )
    return _chart(doc, curve)


def latency_chart(doc: Document) -> Html:
    """Draw the latency of heartbeats; with several shards the median and the slowest."""
    median, worst = doc["flows"]["latency_s"]["median"], doc["flows"]["latency_s"]["worst"]
    many = len(doc["shards"]) > 1
    note = f" median, {millis(worst[-1])} slowest" if many else ""
    now = [millis(median[-1]), unit(f" {no_latency(doc)}" if median[-1] is None else note)]
    most = millis(max([0.0, *_known(worst)]))
    summary = f"Heartbeat latency over {_covered(doc)}: now {millis(median[-1])}, at most {most}."
    series = (median, worst) if many else (median,)
    keys = ("median of the shards", "slowest shard")
    return _chart(doc, Curve("c-latency", "Heartbeat latency", series, 0.05, now, summary, millis, keys))


def types(doc: Document) -> Html:
    """Return the commonest types of events."""
    most = max([1, *(one["total"] for one in doc["event_types"])])
    heads = (("Type", None), ("Share", None), ("since start", "num"), ("per s", "num"))
    rows = (
        [
            (one["type"], None),
            (bar(one["total"] / most), None),
            (count(one["total"]), "num"),
            (rate(one["per_s"]), "num muted"),
        ]
        for one in doc["event_types"]
    )
    return table("type-rows", "types-t", heads, rows, "types")


def _known(values: Values) -> list[float]:
    return [value for value in values if value is not None]


def _first_point(doc: Document) -> int:
    values = doc["flows"]["events_per_s"]
    known = next((index for index, value in enumerate(values) if value is not None), len(values))
    return max(0, min(known, len(values) - FEWEST_POINTS))


def _covered(doc: Document) -> str:
    return span_text((len(doc["flows"]["events_per_s"]) - _first_point(doc)) * doc["flows"]["step_s"])


# -------------------------------------------------------------------------------------------------- one chart


def _chart(doc: Document, curve: Curve) -> Html:
    top = _nice_top(max([curve.least, *(v for values in curve.series for v in _known(values))]) * 1.04)
    labels = [
        element("span", {"class": f"ylab {kind}", "aria-hidden": "true"}, text)
        for kind, text in (
            ("top-value", curve.unit_text(top)),
            ("half-value", curve.unit_text(top / 2)),
            ("no-value", "0"),
        )
    ]
    hidden = "" if len(curve.series) > 1 else "hidden"
    keys = element("p", {"id": f"{curve.chart[2:]}-key", "class": "keys", "hidden": hidden or None}, *_keys(curve.keys))
    return element(
        "figure",
        {"class": "chart", "id": curve.chart},
        element("figcaption", None, element("h3", None, curve.name)),
        element("p", {"class": "val"}, curve.now),
        element("div", {"class": "box", "role": "img", "aria-label": curve.summary}, _plot(doc, curve, top), *labels),
        element(
            "div",
            {"class": "x", "aria-hidden": "true"},
            span("began", f"{_covered(doc)} ago"),
            element("span", None, "now"),
        ),
        keys if curve.keys else None,
    )


def _keys(names: Iterable[str]) -> Iterable[Html]:
    for index, name in enumerate(names):
        line = element("path", {"class": "line second" if index else "line", "d": "M0 4H22"})
        yield span("key", element("svg", {"viewBox": "0 0 22 8", "aria-hidden": "true"}, line), name)


def _plot(doc: Document, curve: Curve, top: float) -> Html:
    first = _first_point(doc)
    shown = [values[first:] for values in curve.series]
    grid = [
        element("line", {"class": "grid", "x1": 0, "x2": WIDE, "y1": _y(share), "y2": _y(share)}) for share in (0.5, 1)
    ]
    lines = [
        element("path", {"class": "line second" if index else "line", "d": _path(values, top)})
        for index, values in enumerate(shown)
    ]
    area = element("path", {"class": "area", "d": _path(shown[0], top, area=True)})
    attributes = {"class": "plot", "viewBox": "0 0 600 122", "preserveAspectRatio": "none", "aria-hidden": "true"}
    return element("svg", attributes, *grid, *_outages(doc, first), area, *reversed(lines))


def _outages(doc: Document, first: int) -> Iterable[Html]:
    """Hatch the times in which no shard served."""
    flows = doc["flows"]
    step, points = flows["step_s"], len(flows["events_per_s"]) - first
    for outage in flows["not_serving"]:
        places = [
            (seconds_between(flows["from"], moment) / step - first) / max(1, points - 1) * WIDE if moment else WIDE
            for moment in (outage["from"], outage["to"])
        ]
        begin, end = (max(0.0, min(WIDE, place)) for place in places)
        size: Attributes = {"x": fixed(begin, 1), "y": ABOVE, "width": fixed(max(1.5, end - begin), 1), "height": HIGH}
        yield element("rect", {"class": "out", **size})


def _path(values: Values, top: float, *, area: bool = False) -> str:
    """Return a path with a gap where a value is missing; closed at the bottom for an area."""
    runs: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{fixed(index / max(1, len(values) - 1) * WIDE, 1)} {_y(value / top)}")
    bottom = HIGH + ABOVE
    paths = []
    for run in runs:
        if len(run) > 1:
            end = f"L{run[-1].split()[0]} {bottom}L{run[0].split()[0]} {bottom}Z" if area else ""
            paths.append(f"M{'L'.join(run)}{end}")
    return "".join(paths)


def _y(share: float) -> str:
    return fixed(HIGH + ABOVE - share * HIGH, 1)


def _nice_top(value: float) -> float:
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in _NICE_STEPS if step * power >= value)
