"""Is the small world as large as the table? What the table has and the world does not know is named here, with its place."""

from __future__ import annotations

from discorder.proofs.actions import ACTIONS, GUARDS
from discorder.proofs.facts import ARRIVALS, PLACES, STOPS
from discorder.proofs.language import Assign, Effects, When
from discorder.proofs.search import Found
from discorder.proofs.small_world import THE_TABLE, SmallWorld, Table
from discorder.proofs.surroundings import surroundings
from discorder.statemachine.table import Name, Row, State
from discorder.statemachine.terms import Action, Guard

_ROOM = "discorder/proofs/"


def check_meanings() -> list[str]:
    """Every action and guard of the table means something in the world."""
    findings = [
        f"action {action} means nothing in the small world; say what it does in {_ROOM}actions.py"
        for action in Action
        if action not in ACTIONS
    ]
    return findings + [
        f"guard {guard} means nothing in the small world; say when it holds in {_ROOM}actions.py"
        for guard in Guard
        if guard not in GUARDS
    ]


def check_origins(table: Table = THE_TABLE) -> list[str]:
    """Every trigger is posted by somebody in the world."""
    posted = {place.beginnings[0] for place in PLACES} | {stop.value for stop in STOPS}
    for step in surroundings(table.deadlines, table.runs):
        posted |= _posted(step.effects)
    for meaning in ACTIONS.values():
        for arrival in ARRIVALS:
            posted |= _posted(meaning(arrival) if callable(meaning) else meaning)
    names = {arrival.trigger for arrival in (*ARRIVALS, *STOPS) if arrival.value in posted}
    return [
        f"trigger {name} is posted by nobody in the small world; add the step that does it to {_ROOM}surroundings.py"
        f" (and the trigger to WITHOUT_A_GENERATION in {_ROOM}facts.py, if it is no report of a connection)"
        for name in Name
        if name not in names
    ]


def _posted(effects: Effects) -> set[str]:
    found = set()
    for effect in effects:
        if isinstance(effect, Assign) and effect.variable in PLACES:
            found.add(effect.variable.values[effect.value])
        elif isinstance(effect, When):
            found |= _posted(effect.then) | _posted(effect.otherwise)
    return found


def dead_rows(world: SmallWorld, found: Found) -> list[str]:
    """The rows, source by source, that are never enabled in any state of the world."""
    alive: set[tuple[State, Row]] = set()
    written: dict[tuple[State, Row], None] = {}
    for number, move in enumerate(world.moves):
        if move is not None:
            written[move.source, move.row] = None
            if number in found.taken:
                alive.add((move.source, move.row))
    return [
        f"{source} x {row.trigger}: a dead row, it is never enabled in the small world ({row.why})"
        for source, row in written
        if (source, row) not in alive
    ]
