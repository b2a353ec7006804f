"""Draw the life cycle for the status page: classes instead of colours, and texts that the page's script fills in.

The status page colours the classes, finds the edge of a transition by ``data-to`` and ``data-on``, and writes into ``clock``,
``count``, ``said`` and ``<desc>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree as ET

from discorder.pictures.dot import ACTIONS_SIZE, NAME_SIZE, SMALL_SIZE, dot
from discorder.pictures.graph_model import Arrow, Box, build_graph
from discorder.pictures.renderer import draw_plain_svg
from discorder.statemachine.table import Name, State

PREFIX = "lc-"
_SVG = "{http://www.w3.org/2000/svg}"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BADGE = {"x": "-34", "y": "-19", "width": "68", "height": "38", "rx": "19"}  # overhangs the corner of its box


def page_svg(title: str) -> str:
    """Return the SVG as text. Raises `PictureError` if the renderer is missing or fails."""
    drawn = ET.fromstring(draw_plain_svg(dot(legend=False)))  # noqa: S314  # the renderer's own output
    groups = {group.get("id", ""): group for group in drawn.iter(f"{_SVG}g")}
    canvas = next(group for group in groups.values() if group.get("class") == "graph")
    _, _, width, height = (float(number) for number in drawn.get("viewBox", "").split())
    graph = build_graph()
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "lc",
            "id": "lc",
            "role": "img",
            "aria-labelledby": f"{PREFIX}title {PREFIX}desc",
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
        },
    )
    ET.SubElement(svg, "title", id=f"{PREFIX}title").text = title
    ET.SubElement(svg, "desc", id=f"{PREFIX}desc").text = "No shard is shown yet."
    shift = re.search(r"translate\((\S+) (\S+)\)", canvas.get("transform", ""))
    body = ET.SubElement(svg, "g", transform=f"translate({shift[1]} {shift[2]})" if shift else "")
    body.append(_live_box(groups["live"]))
    body.extend(_initial(groups))
    body.extend(_edges(groups, graph.arrows))
    ET.SubElement(body, "g", {"class": "dots", "id": f"{PREFIX}dots"})
    body.extend(_state(groups[f"state-{box.state}"], box) for box in graph.boxes)
    ET.indent(svg, "")
    return f"{ET.tostring(svg, encoding='unicode')}\n"


# -------------------------------------------------------------------------------------------------- boxes


@dataclass(frozen=True, slots=True)
class _Area:
    """The bounding box of a shape."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> tuple[str, str]:
        return f"{(self.left + self.right) / 2:.0f}", f"{(self.top + self.bottom) / 2:.0f}"

    def rectangle(self) -> ET.Element:
        size = {"width": f"{self.right - self.left:.0f}", "height": f"{self.bottom - self.top:.0f}", "rx": "12"}
        return ET.Element("rect", {"x": f"{self.left:.0f}", "y": f"{self.top:.0f}", **size})


def _area(path: ET.Element) -> _Area:
    numbers = [float(number) for number in _NUMBER.findall(path.get("d", ""))]
    across, down = numbers[::2], numbers[1::2]
    return _Area(min(across), min(down), max(across), max(down))


def _live_box(drawn: ET.Element) -> ET.Element:
    group = ET.Element("g", {"id": f"{PREFIX}live", "class": "cluster"})
    group.append(_area(_paths(drawn)[0]).rectangle())
    for text in drawn.iter(f"{_SVG}text"):
        ET.SubElement(group, "text", {"class": "meaning", **_at(text)}).text = text.text
    return group


def _state(drawn: ET.Element, box: Box) -> ET.Element:
    """Return the box of a state: its shape, its texts, the empty clock and the badge."""
    name = box.state.value
    group = ET.Element("g", {"id": f"{PREFIX}state-{name}", "class": "state", "data-state": name})
    ET.SubElement(group, "title").text = f"{name}: {box.meaning}"
    areas = [_area(path) for path in _paths(drawn)]  # the final state has two, one around the other
    group.extend(area.rectangle() for area in areas)
    x, y = areas[0].middle
    for text in drawn.iter(f"{_SVG}text"):
        kind = {NAME_SIZE: "name", SMALL_SIZE: "meaning", ACTIONS_SIZE: "actions"}[_size(text)]
        ET.SubElement(group, "text", {"class": kind, "x": x, "y": _at(text)["y"]}).text = text.text
    ET.SubElement(group, "text", {"class": "big", "x": x, "y": y}).text = name
    ET.SubElement(group, "text", {"class": "clock", "x": x, "y": y})
    corner = f"translate({areas[-1].right + 8:.0f} {areas[-1].top - 6:.0f})"
    badge = ET.SubElement(group, "g", {"class": "count", "transform": corner})
    ET.SubElement(badge, "rect", _BADGE)
    ET.SubElement(badge, "text", y="8")
    return group


# -------------------------------------------------------------------------------------------------- edges


def _initial(groups: dict[str, ET.Element]) -> Iterator[ET.Element]:
    """Return the dot at which a life begins, and its arrow."""
    start = next(group for group in groups.values() if group.findtext(f"{_SVG}title") == "initial")
    for drawn in (start, groups["edge-initial"]):
        group = ET.Element("g", {"class": "edge initial"})
        group.extend(_shapes(drawn))
        yield group


def _edges(groups: dict[str, ET.Element], arrows: tuple[Arrow, ...]) -> Iterator[ET.Element]:
    """Return the edges. Of two edges that cover the same transition, the first one in the table's order has it."""
    taken: set[tuple[State, Name, State]] = set()
    for arrow in arrows:
        drawn = groups[f"edge-{arrow.key}"]
        steps = [
            (source, trigger)
            for source in State
            for trigger in Name
            if (source, trigger) in arrow.covers and (source, trigger, arrow.target) not in taken
        ]
        taken.update((source, trigger, arrow.target) for source, trigger in steps)
        attributes = {
            "id": f"{PREFIX}edge-{arrow.key}",
            "class": f"edge {arrow.tone.value}",
            "data-to": arrow.target.value,
            "data-on": " ".join(f"{source.value}:{trigger.value}" for source, trigger in steps),
        }
        group = ET.Element("g", attributes)
        group.extend(_shapes(drawn))
        group.extend(_labels(drawn))
        yield group


def _shapes(drawn: ET.Element) -> Iterator[ET.Element]:
    for shape in drawn:
        kept = {key: shape.get(key, "") for key in ("d", "points", "cx", "cy", "rx", "ry") if shape.get(key)}
        if kept:
            rounded = {key: _NUMBER.sub(lambda number: f"{float(number[0]):.1f}", text) for key, text in kept.items()}
            yield ET.Element(shape.tag.removeprefix(_SVG), rounded)


def _labels(drawn: ET.Element) -> Iterator[ET.Element]:
    """Return one text for each line of an edge's label, and the empty text that names the last trigger."""
    runs = [text for text in drawn.iter(f"{_SVG}text") if (text.text or "").strip()]
    lines = [list(line) for _, line in groupby(runs, key=lambda run: run.get("y"))]
    for line in lines:
        text = ET.Element("text", _at(line[0]))
        for run in line:
            kind = "trigger" if run.get("font-weight") == "bold" else "guard"
            said = (run.text or "").strip()
            ET.SubElement(text, "tspan", {"class": kind}).text = said if run is line[0] else f" {said}"
        yield text
    if lines:
        middle = lines[len(lines) // 2][0]
        yield ET.Element("text", {"class": "said", **_at(middle)})


# -------------------------------------------------------------------------------------------------- the renderer's SVG


def _paths(drawn: ET.Element) -> list[ET.Element]:
    return list(drawn.iter(f"{_SVG}path"))


def _at(text: ET.Element) -> dict[str, str]:
    return {key: f"{float(text.get(key, '0')):.0f}" for key in ("x", "y")}


def _size(text: ET.Element) -> int:
    return round(float(text.get("font-size", "0")))
