"""The path of a shard over the state diagram: its steps are numbered, all else is faded, and its end is marked."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from discorder.errors import PictureError
from discorder.pictures import PictureFormat, Subject, Trail, Visit, render
from discorder.pictures.palette import RULE
from discorder.pictures.scene import Arrow, build_scene
from discorder.statemachine import State
from discorder.statemachine.table import Name

SVG = "{http://www.w3.org/2000/svg}"
TO_READY = [
    Visit(State.DISCONNECTED, Name.START, State.CONNECTING),
    Visit(State.CONNECTING, Name.HELLO, State.IDENTIFYING),
    Visit(State.IDENTIFYING, Name.IDENTIFY_SLOT, State.IDENTIFYING),
    Visit(State.IDENTIFYING, Name.READY, State.READY),
]


def arrow(source: State, target: State) -> Arrow:
    """The only arrow between two states."""
    (found,) = [one for one in build_scene().arrows if one.sources == (source,) and one.target is target]
    return found


def groups(trail: Trail) -> dict[str, ET.Element]:
    """The parts of the drawing by id."""
    drawing = ET.fromstring(render(Subject.LIFE_CYCLE, PictureFormat.SVG, trail=trail))  # noqa: S314  # our own output
    return {group.get("id", ""): group for group in drawing.iter(f"{SVG}g")}


def texts(group: ET.Element) -> list[str]:
    return [text.text or "" for text in group.iter(f"{SVG}text")]


def test_steps_are_numbered_where_they_went() -> None:
    """On the arrow, and inside the box for a step that stays."""
    trail = Trail("a run", TO_READY)
    assert trail.along(arrow(State.DISCONNECTED, State.CONNECTING)) == "1"
    assert trail.within(State.IDENTIFYING, [Name.IDENTIFY_SLOT]) == "3"
    assert trail.triggers_along(arrow(State.IDENTIFYING, State.READY)) == {Name.READY}
    assert trail.end is State.READY
    drawn = groups(trail)
    assert "4" in texts(drawn["edge-Identifying-Ready-happy"])
    assert "3" in texts(drawn["state-Identifying"])


def test_what_was_not_touched_is_faded() -> None:
    """States and arrows in the colour of rules, so that the path stands out."""
    drawn = groups(Trail("a run", TO_READY))
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
    drawn = groups(Trail("a run", TO_READY))
    assert [key for key, group in drawn.items() if "current" in (group.get("class") or "").split()] == ["state-Ready"]


def test_many_steps_on_one_arrow_are_counted() -> None:
    """Fifty numbers would be a smear."""
    step = Visit(State.CONNECTING, Name.HELLO, State.RESUMING)
    assert Trail("a run", [step] * 50).along(arrow(State.CONNECTING, State.RESUMING)) == "50 times, last 50"


def test_a_trail_without_a_step_is_all_faded() -> None:
    """And has no end."""
    trail = Trail("nothing", [])
    assert trail.end is None
    assert not re.search(r"class=\"[^\"]*current", render(Subject.LIFE_CYCLE, PictureFormat.SVG, trail=trail).decode())


@pytest.mark.parametrize("picture_format", [PictureFormat.MERMAID, PictureFormat.MARKDOWN])
def test_texts_cannot_show_a_trail(picture_format: PictureFormat) -> None:
    """They say so rather than leave it out."""
    with pytest.raises(PictureError, match="with a trace; allowed: svg, png, dot"):
        render(Subject.LIFE_CYCLE, picture_format, trail=Trail("a run", TO_READY))
