"""The pictures show the table: all of it, nothing else, and the same bytes each time."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from discorder.pictures import PictureFormat, Subject
from discorder.pictures.graph_model import Tone, build_graph, guard_words, tone_of
from discorder.pictures.render import render
from discorder.statemachine import State
from discorder.statemachine.check import enabled, valuations
from discorder.statemachine.life_cycle import LIFE_CYCLE
from discorder.statemachine.table import CELLS, LIVE, ROWS, Name, Row, rows_for
from discorder.statemachine.terms import GUARD_MEANINGS, Guard

ROOT = Path(__file__).resolve().parents[2]
GRAPH = build_graph()
SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
PICTURES = [PictureFormat.SVG, PictureFormat.PNG, PictureFormat.DOT, PictureFormat.MERMAID]

Edge = tuple[State, Name, State]


def table_edges() -> set[Edge]:
    """Every transition that leaves its state or enters another."""
    return {(source, row.trigger, row.target) for row in ROWS for source in row.sources if row.target is not None}


def drawn_edges() -> set[Edge]:
    """Return the same from the labels: the text beside a trigger names the states to which it applies."""
    edges: set[Edge] = set()
    for arrow in GRAPH.arrows:
        for line in arrow.labels:
            edges |= {(source, line.trigger, arrow.target) for source in _states(arrow.sources, line.where)}
    return edges


def _states(sources: tuple[State, ...], where: str) -> set[State]:
    if where.startswith("not in "):
        return set(sources) - {State(where.removeprefix("not in "))}
    return {State(name) for name in where.removeprefix("in ").split(", ")} if where else set(sources)


def svg(subject: Subject = Subject.LIFE_CYCLE) -> ET.Element:
    """The SVG, parsed: it is well-formed."""
    return ET.fromstring(render(subject, PictureFormat.SVG))  # noqa: S314  # our own output


def svg_texts() -> str:
    """What can be read in the SVG."""
    return " ".join(text.text or "" for text in svg().iter(f"{SVG_NAMESPACE}text"))


# -------------------------------------------------------------------------------------------------- the whole table


def test_every_transition_of_the_table_is_drawn_and_no_other() -> None:
    """Each (source, trigger, target) is on an edge of its state or of the box around the live ones."""
    assert drawn_edges() == table_edges()


def test_an_arrow_covers_the_pairs_of_its_labels() -> None:
    """Two arrows never cover one trigger of a state with the same target."""
    for arrow in GRAPH.arrows:
        labelled = {(source, line.trigger) for line in arrow.labels for source in _states(arrow.sources, line.where)}
        assert arrow.covers == labelled
    covered = [(pair, arrow.target) for arrow in GRAPH.arrows for pair in arrow.covers]
    assert len(covered) == len(set(covered))


def test_the_edges_of_the_running_machine_are_those_of_the_picture() -> None:
    """The `transitions` machine has the same edges, and the same rows inside the boxes."""
    real = {
        (State[transition.source], Name(name), None if transition.dest is None else State[transition.dest])
        for name in LIFE_CYCLE.events
        for transition in LIFE_CYCLE.get_transitions(name)
    }
    inner = {
        (box.state, trigger, None)
        for box in GRAPH.boxes
        for transition in box.internal
        for trigger in transition.triggers
    }
    assert real == drawn_edges() | inner


def test_every_row_that_stays_is_in_the_box_of_its_state() -> None:
    """With its guards and actions. A row without effect is left out, like a cell."""
    written = {
        (source, row.trigger, guard_words(source, row), row.actions)
        for row in ROWS
        for source in row.sources
        if row.target is None and not row.idle
    }
    shown = {
        (box.state, trigger, transition.guards, transition.actions)
        for box in GRAPH.boxes
        for transition in box.internal
        for trigger in transition.triggers
    }
    assert shown == written


def test_each_line_carries_the_guards_of_its_row() -> None:
    """In brackets: the guards of its rows."""
    for arrow, line in [(drawn, line) for drawn in GRAPH.arrows for line in drawn.labels]:
        for source in _states(arrow.sources, line.where):
            words = {guard_words(source, row) for row in rows_for(source, line.trigger) if row.target is arrow.target}
            assert line.guards in words
    numbered = [line.guards for arrow in GRAPH.arrows for line in arrow.labels if line.trigger is Name.DIAGNOSED]
    assert sorted(numbered) == [
        *("1. planned", "2. fatal", "3. fail on error", "4. parked", "5. not attempts left", "6. otherwise")
    ]


def test_numbered_guards_mean_the_table_when_the_first_that_holds_decides() -> None:
    """Read as the legend says, the short words select the same row for every valuation."""
    rows = rows_for(State.UNHEALTHY, Name.DIAGNOSED)
    short = [read_back(guard_words(State.UNHEALTHY, row).split(". ", 1)[1], row) for row in rows]
    guards = sorted({guard for row in rows for guard in (*row.when, *row.unless)})
    for valuation in valuations(guards):
        chosen = next(place for place, row in enumerate(short) if enabled(row, valuation))
        assert enabled(rows[chosen], valuation)


def read_back(said: str, row: Row) -> Row:
    """A row with the guards that the words name."""
    atoms = [] if said == "otherwise" else said.split(", ")
    when = tuple(Guard(atom.replace(" ", "_")) for atom in atoms if not atom.startswith("not "))
    unless = tuple(Guard(atom.removeprefix("not ").replace(" ", "_")) for atom in atoms if atom.startswith("not "))
    return Row(row.sources, row.trigger, row.target, row.actions, row.why, when, unless)


def test_failures_and_planned_interruptions_have_different_tones() -> None:
    """By the actions of a row."""
    tones = {(source, row.trigger): tone_of(source, row) for row in ROWS for source in row.sources}
    assert tones[State.READY, Name.CLOSED] is Tone.FAILURE
    assert tones[State.READY, Name.RECONNECT] is Tone.PLANNED
    assert tones[State.RESUMING, Name.INVALID_SESSION] is Tone.PLANNED
    assert tones[State.READY, Name.INVALID_SESSION] is Tone.FAILURE
    assert tones[State.IDENTIFYING, Name.SLOT_REFUSED] is Tone.PARKED
    assert tones[State.RESTARTING, Name.RESTART_DUE] is Tone.RECOVERY
    assert tone_of(State.DISCONNECTED, rows_for(State.DISCONNECTED, Name.START)[0]) is Tone.HAPPY
    assert tones[State.READY, Name.PAUSE] is tones[State.READY, Name.RESTART] is Tone.PLANNED
    assert {tones[state, Name.STOP] for state in LIVE} == {Tone.STOP}


# -------------------------------------------------------------------------------------------------- SVG and PNG


def test_states_and_edges_have_ids_in_the_svg() -> None:
    """The status page moves a class to the current state: ids must be there, once each."""
    ids = [element.get("id") for element in svg().iter() if element.get("id")]
    assert {f"state-{state.value}" for state in State} <= set(ids)
    assert {f"edge-{arrow.key}" for arrow in GRAPH.arrows} <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_trigger_and_every_state_can_be_read_in_the_svg() -> None:
    """Text is drawn as text, so that it can be searched and read aloud."""
    texts = svg_texts()
    assert all(re.search(rf"\b{name.value}\b", texts) for name in Name)
    assert all(state.value in texts for state in State)


@pytest.mark.parametrize("subject", Subject)
def test_every_colour_of_the_svg_has_a_dark_version(subject: Subject) -> None:
    """A colour without a dark version would be too bright on a dark page; black text would be invisible."""
    drawing = render(subject, PictureFormat.SVG).decode()
    sheet = drawing[drawing.index("<style>") : drawing.index("</style>")]
    used = {
        (attribute, element.get(attribute, ""))
        for element in svg(subject).iter()
        for attribute in ("fill", "stroke")
        if element.get(attribute, "none") != "none"
    }
    assert used
    assert [colour for colour in used if f"[{colour[0]}='{colour[1]}']" not in sheet] == []
    assert [text.text for text in svg(subject).iter(f"{SVG_NAMESPACE}text") if text.get("fill") is None] == []


@pytest.mark.parametrize("subject", Subject)
def test_the_svg_depends_on_nothing_outside(subject: Subject) -> None:
    """No script, no link, no version of the renderer, no XML declaration."""
    drawing = render(subject, PictureFormat.SVG).decode()
    assert drawing.startswith("<svg ")
    assert drawing.endswith("</svg>\n")
    assert not re.search(r"<script|href=|@import|url\(|<!--|<!DOCTYPE", drawing)


def test_the_png_is_a_png_sharp_enough_for_a_wall() -> None:
    """Signature and width, in pixels."""
    picture = render(Subject.LIFE_CYCLE, PictureFormat.PNG)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") >= 1800


def test_the_happy_path_is_strong_and_stop_is_dashed() -> None:
    """A reader sees them first."""
    parsed = {group.get("id"): group for group in svg().iter(f"{SVG_NAMESPACE}g")}
    happy = parsed["edge-Disconnected-Connecting-happy"].find(f"{SVG_NAMESPACE}path")
    stop = parsed["edge-live-Stopping-stop"].find(f"{SVG_NAMESPACE}path")
    assert happy is not None
    assert stop is not None
    assert float(happy.get("stroke-width", "1")) > 2 * float(stop.get("stroke-width", "1"))
    assert stop.get("stroke-dasharray")


def test_the_final_state_has_a_double_border() -> None:
    """Exited is drawn twice around, no other state is."""
    borders = {
        group.get("id"): len(group.findall(f"{SVG_NAMESPACE}path"))
        for group in svg().iter(f"{SVG_NAMESPACE}g")
        if (group.get("id") or "").startswith("state-")
    }
    assert {state for state, count in borders.items() if count == 2} == {"state-Exited"}


@pytest.mark.parametrize("picture_format", PICTURES)
def test_one_state_can_be_highlighted(picture_format: PictureFormat) -> None:
    """Each state gives another picture, and none of them is the plain one."""
    plain = render(Subject.LIFE_CYCLE, picture_format)
    highlighted = {render(Subject.LIFE_CYCLE, picture_format, state) for state in (State.READY, State.EXITED)}
    assert len(highlighted) == 2
    assert plain not in highlighted


def test_the_highlighted_state_carries_the_class_of_the_status_page() -> None:
    """`current`, on that state and no other."""
    drawing = ET.fromstring(render(Subject.LIFE_CYCLE, PictureFormat.SVG, State.RESUMING))  # noqa: S314  # our own output
    current = [group.get("id") for group in drawing.iter() if "current" in (group.get("class") or "").split()]
    assert current == ["state-Resuming"]


# -------------------------------------------------------------------------------------------------- text formats


def test_the_mermaid_text_has_the_same_edges() -> None:
    """One arrow each, with all its triggers, and a colour for each by number."""
    text = render(Subject.LIFE_CYCLE, PictureFormat.MERMAID).decode()
    arrows = re.findall(r'^  (\w+) (?:==>|-->|-\.->)\|"(.*)"\| (\w+)$', text, re.MULTILINE)
    expected = [
        (
            "live" if arrow.from_live_box else arrow.sources[0].value,
            arrow.target.value,
            [x.trigger for x in arrow.labels],
        )
        for arrow in GRAPH.arrows
    ]
    assert [
        (source, target, [line.split(" ")[0] for line in label.split("<br>")]) for source, label, target in arrows
    ] == expected
    assert text.startswith("flowchart TB\n")
    assert len(re.findall(r"^  linkStyle \d+ ", text, re.MULTILINE)) == len(arrows)
    assert re.findall(r"^    (\w+)\(", text, re.MULTILINE) == [state.value for state in State if state in LIVE]


def markdown_tables() -> list[list[list[str]]]:
    """The tables of the Markdown page: rows of cells, the heading first."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", render(Subject.LIFE_CYCLE, PictureFormat.MARKDOWN).decode(), re.MULTILINE)
    return [
        [line.strip("| ").split(" | ") for line in re.sub(r" \|  \|", " | - |", block).splitlines()] for block in blocks
    ]


def test_the_markdown_tables_are_regular() -> None:
    """Each line has as many cells as its heading: no reason breaks a table."""
    for line in render(Subject.LIFE_CYCLE, PictureFormat.MARKDOWN).decode().splitlines():
        assert not line.startswith("|") or line.endswith("|")
    text = render(Subject.LIFE_CYCLE, PictureFormat.MARKDOWN).decode()
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1


def test_the_markdown_rows_are_the_table_with_its_reasons() -> None:
    """From, trigger, guard, actions, to, why: in the order of the table."""
    _, rows, guards, _ = markdown_tables()
    assert rows[0] == ["from", "trigger", "guard", "actions", "to", "why"]
    shown = [(line[0], line[1].strip("`"), line[4], line[5]) for line in rows[2:]]
    assert shown == [
        (", ".join(row.sources), row.trigger.value, row.target.value if row.target else "(stays)", row.why)
        for row in ROWS
    ]
    assert [line[1] for line in guards[2:]] == list(GUARD_MEANINGS.values())


def test_the_grid_shows_every_pair_with_its_reason() -> None:
    """The targets of its rows, or ignore or reject with the number of the reason."""
    grid = markdown_tables()[3]
    assert grid[0][1:] == [state.value for state in State]
    cells = {
        (State(state), Name(line[0].strip("`"))): cell
        for line in grid[2:]
        for state, cell in zip(grid[0][1:], line[1:], strict=True)
    }
    assert set(cells) == set(itertools.product(State, Name))
    reasons = dict(
        re.findall(r"^(\d+)\. (.*)$", render(Subject.LIFE_CYCLE, PictureFormat.MARKDOWN).decode(), re.MULTILINE)
    )
    for pair, said in cells.items():
        if pair in CELLS:
            kind, number = said.replace("*", "").split(" ")
            assert (kind, reasons[number]) == (CELLS[pair].kind.value, CELLS[pair].why)
        else:
            targets = {row.target.value if row.target else "stays" for row in rows_for(*pair)}
            assert set(said.replace("*", "").split(" or ")) == targets
