"""The life cycle of the status page: the page finds the edge of every transition, and the texts to fill in."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from discorder.errors import PictureError
from discorder.pictures import PictureFormat, Subject
from discorder.pictures.render import render, write_all
from discorder.statemachine.table import ROWS, State

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def picture() -> ET.Element:
    return ET.fromstring(render(Subject.LIFE_CYCLE, PictureFormat.PAGE))  # noqa: S314  # our own output


def groups(picture: ET.Element, kind: str) -> list[ET.Element]:
    return [group for group in picture.iter(f"{SVG}g") if kind in group.get("class", "").split()]


def test_every_row_of_the_table_has_exactly_one_edge_or_stays_in_its_state(picture: ET.Element) -> None:
    edges = [(edge.get("data-to"), edge.get("data-on", "").split()) for edge in groups(picture, "edge")]
    for row in ROWS:
        for source in row.sources:
            step = f"{source.value}:{row.trigger.value}"
            found = [to for to, on in edges if to == row.target and step in on]
            assert found == ([] if row.target is None else [row.target]), step


def test_no_edge_names_a_transition_that_the_table_does_not_have(picture: ET.Element) -> None:
    steps = {
        (f"{source.value}:{row.trigger.value}", row.target)
        for row in ROWS
        for source in row.sources
        if row.target is not None
    }
    drawn = {
        (step, edge.get("data-to")) for edge in groups(picture, "edge") for step in edge.get("data-on", "").split()
    }
    assert drawn == steps


def test_every_state_has_its_texts_and_the_empty_places(picture: ET.Element) -> None:
    boxes = {group.get("data-state"): group for group in groups(picture, "state")}
    assert set(boxes) == {state.value for state in State}
    for state, box in boxes.items():
        texts = {text.get("class"): text.text for text in box.iter(f"{SVG}text")}
        assert texts["name"] == texts["big"] == state
        assert texts["clock"] is None
        assert "meaning" in texts
        assert box.find(f"{SVG}g[@class='count']") is not None


def test_every_edge_with_a_trigger_has_a_place_to_say_it(picture: ET.Element) -> None:
    edges = [edge for edge in groups(picture, "edge") if edge.get("data-on")]
    assert all(len(edge.findall(f"{SVG}text[@class='said']")) == 1 for edge in edges)
    assert all(edge.find(f"{SVG}path") is not None for edge in edges)


def test_it_is_named_for_screen_readers_and_brings_no_style(picture: ET.Element) -> None:
    assert picture.get("role") == "img"
    assert picture.get("aria-labelledby") == "lc-title lc-desc"
    assert picture.findtext(f"{SVG}title") == "The life cycle of a shard"
    for element in picture.iter():
        assert element.tag != f"{SVG}style"
        assert not {"style", "fill", "stroke", "font-family"} & set(element.keys())


def test_ids_have_the_prefix_of_the_picture_and_are_unique(picture: ET.Element) -> None:
    names = [element.get("id", "") for element in picture.iter() if element.get("id")]
    assert len(names) == len(set(names))
    assert all(name == "lc" or name.startswith("lc-") for name in names)


def test_the_dots_move_above_the_edges_and_below_the_boxes(picture: ET.Element) -> None:
    body = picture.find(f"{SVG}g")
    assert body is not None
    order = [group.get("class", "").split()[0] for group in body]
    assert order.index("dots") == len(order) - len(State) - 1
    assert set(order[order.index("dots") + 1 :]) == {"state"}


def test_only_the_life_cycle_has_this_form() -> None:
    with pytest.raises(PictureError, match="no page of grid"):
        render(Subject.GRID, PictureFormat.PAGE)


def test_in_a_checkout_the_picture_of_the_page_is_written_beside_the_set(tmp_path: Path) -> None:
    page = tmp_path / "discorder" / "http" / "page"
    page.mkdir(parents=True)
    assert write_all(tmp_path / "diagrams")[-1] == page / "life-cycle.svg"
    assert (page / "life-cycle.svg").read_bytes() == render(Subject.LIFE_CYCLE, PictureFormat.PAGE)
