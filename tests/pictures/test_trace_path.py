"""The path of a shard over the state diagram: its steps are numbered, the rest is faded, and its last state is marked."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from discorder.errors import PictureError
from discorder.pictures import PictureFormat, Subject
from discorder.pictures.graph_model import Arrow, build_graph
from discorder.pictures.palette import RULE
from discorder.pictures.render import render
from discorder.pictures.trace_path import PathStep, TracePath
from discorder.statemachine import State
from discorder.statemachine.table import Name

SVG = "{http://www.w3.org/2000/svg}"
TO_READY = [
    PathStep(State.DISCONNECTED, Name.START, State.CONNECTING),
    PathStep(State.CONNECTING, Name.HELLO, State.IDENTIFYING),
    PathStep(State.IDENTIFYING, Name.IDENTIFY_SLOT, State.IDENTIFYING),
    PathStep(State.IDENTIFYING, Name.READY, State.READY),
]


def arrow(source: State, target: State) -> Arrow:
    """The only arrow between two states."""
    (found,) = [one for one in build_graph().arrows if one.sources == (source,) and one.target is target]
    return found


def groups(path: TracePath) -> dict[str, ET.Element]:
    """Return the groups of the drawing by id."""
    drawing = ET.fromstring(render(Subject.LIFE_CYCLE, PictureFormat.SVG, trace=path))  # noqa: S314  # our own output
    return {group.get("id", ""): group for group in drawing.iter(f"{SVG}g")}


def texts(group: ET.Element) -> list[str]:
    return [text.text or "" for text in group.iter(f"{SVG}text")]


def test_steps_are_numbered() -> None:
    """On the arrow; inside the box if the state did not change."""
    path = TracePath("a run", TO_READY)
    assert path.along(arrow(State.DISCONNECTED, State.CONNECTING)) == "1"
    assert path.within(State.IDENTIFYING, [Name.IDENTIFY_SLOT]) == "3"
    assert path.triggers_along(arrow(State.IDENTIFYING, State.READY)) == {Name.READY}
    assert path.end is State.READY
    drawn = groups(path)
    assert "4" in texts(drawn["edge-Identifying-Ready-happy"])
    assert "3" in texts(drawn["state-Identifying"])


def test_what_was_not_touched_is_faded() -> None:
    """States and arrows that are not on the path have the colour of rules."""
    drawn = groups(TracePath("a run", TO_READY))
    faded = {key for key, group in drawn.items() if any(RULE.light == (e.get("stroke") or "") for e in group)}
    assert {
        "state-Unhealthy",
        "state-Resuming",
        "edge-Connecting-Resuming-happy",
        "edge-live-Unhealthy-failure",
    } <= faded
    assert not {"state-Ready", "state-Connecting", "edge-Connecting-Identifying-happy"} & faded


def test_the_end_is_marked_as_the_current_state() -> None:
    """By the class that the status page uses."""
    drawn = groups(TracePath("a run", TO_READY))
    assert [key for key, group in drawn.items() if "current" in (group.get("class") or "").split()] == ["state-Ready"]


def test_many_steps_on_one_arrow_are_counted() -> None:
    """Fifty numbers would not be legible."""
    step = PathStep(State.CONNECTING, Name.HELLO, State.RESUMING)
    assert TracePath("a run", [step] * 50).along(arrow(State.CONNECTING, State.RESUMING)) == "50 times, last 50"


def test_a_path_without_a_step_is_all_faded() -> None:
    """And has no last state."""
    path = TracePath("nothing", [])
    assert path.end is None
    assert not re.search(r"class=\"[^\"]*current", render(Subject.LIFE_CYCLE, PictureFormat.SVG, trace=path).decode())


@pytest.mark.parametrize("picture_format", [PictureFormat.MERMAID, PictureFormat.MARKDOWN])
def test_texts_cannot_show_a_path(picture_format: PictureFormat) -> None:
    """They raise an error instead of leaving it out."""
    with pytest.raises(PictureError, match="with a trace; allowed: svg, png, dot"):
        render(Subject.LIFE_CYCLE, picture_format, trace=TracePath("a run", TO_READY))
