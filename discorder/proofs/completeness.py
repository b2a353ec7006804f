"""Check that the model covers the table. Each finding names what is missing and the file to extend."""

from __future__ import annotations

from discorder.proofs.actions import ACTIONS, GUARDS
from discorder.proofs.environment import environment_steps
from discorder.proofs.model import THE_TABLE, Table, TableModel
from discorder.proofs.model_dsl import Assign, Effects, When
from discorder.proofs.search import Found
from discorder.proofs.variables import ARRIVALS, AT_ONCE, PLACES
from discorder.statemachine.table import Name, Row, State
from discorder.statemachine.terms import Action, Guard

_ROOM = "discorder/proofs/"


def check_meanings() -> list[str]:
    """Check that every action and guard of the table has a meaning in the model."""
    findings = [
        f"action {action} means nothing in the model; say what it does in {_ROOM}actions.py"
        for action in Action
        if action not in ACTIONS
    ]
    return findings + [
        f"guard {guard} means nothing in the model; say when it holds in {_ROOM}actions.py"
        for guard in Guard
        if guard not in GUARDS
    ]


def check_origins(table: Table = THE_TABLE) -> list[str]:
    """Check that some step or action of the model posts each trigger."""
    posted = {place.beginnings[0] for place in PLACES} | {requested.value for requested in AT_ONCE}
    for step in environment_steps(table.deadlines, table.runs, table.stable_after, table.closings):
        posted |= _posted(step.effects)
    for meaning in ACTIONS.values():
        for arrival in ARRIVALS:
            posted |= _posted(meaning(arrival) if callable(meaning) else meaning)
    names = {arrival.trigger for arrival in (*ARRIVALS, *AT_ONCE) if arrival.value in posted}
    return [
        f"trigger {name} is posted by nobody in the model; add the step that does it to {_ROOM}environment.py"
        f" (and the trigger to WITHOUT_A_GENERATION in {_ROOM}variables.py, if it is no report of a connection)"
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


def dead_rows(model: TableModel, found: Found) -> list[str]:
    """Return a finding for each row and source state that is never enabled in the model."""
    alive: set[tuple[State, Row]] = set()
    written: dict[tuple[State, Row], None] = {}
    for number, move in enumerate(model.moves):
        if move is not None:
            written[move.source, move.row] = None
            if number in found.taken:
                alive.add((move.source, move.row))
    return [
        f"{source} x {row.trigger}: a dead row, it is never enabled in the model ({row.why})"
        for source, row in written
        if (source, row) not in alive
    ]
