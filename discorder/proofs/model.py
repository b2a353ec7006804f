"""Build the model as one list of steps: the table, the meaning of its guards and actions, and the environment.

The model is built from a `Table`, so that a test can pass a broken copy of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from discorder.proofs import actions
from discorder.proofs.environment import Deadlines, Runs, environment_steps
from discorder.proofs.model_dsl import YES, Actor, Condition, Duty, Effects, Not, Step, Variable, all_of, without
from discorder.proofs.properties import FACTS_FOR_PROPERTIES, INVARIANTS, Property, expected, violated, watched
from discorder.proofs.variables import (
    ACTS,
    ARRIVALS,
    AT_ONCE,
    DEADLINE,
    FACTS,
    PLACES,
    STATE,
    VOID,
    Arrival,
    head,
    in_state,
    take,
    take_first,
)
from discorder.statemachine.table import (
    CELLS,
    CLOSINGS,
    DEADLINES,
    ENTRY,
    EXIT,
    FINAL,
    ROWS,
    RUNS,
    STABLE_AFTER,
    Cell,
    Closing,
    Name,
    Row,
    State,
)
from discorder.statemachine.terms import Action, Kind


@dataclass(frozen=True, slots=True)
class Table:
    """Hold what `statemachine/` defines: the rows, the other cells, and the properties of each state."""

    rows: Sequence[Row] = ROWS
    cells: Mapping[tuple[State, Name], Cell] = field(default_factory=lambda: CELLS)
    deadlines: Deadlines = field(default_factory=lambda: DEADLINES)
    runs: Runs = field(default_factory=lambda: RUNS)
    stable_after: Mapping[State, float] = field(default_factory=lambda: STABLE_AFTER)
    closings: Mapping[State, Closing] = field(default_factory=lambda: CLOSINGS)
    entry: Mapping[State, tuple[Action, ...]] = field(default_factory=lambda: ENTRY)
    exit: Mapping[State, tuple[Action, ...]] = field(default_factory=lambda: EXIT)


THE_TABLE = Table()
"""The table that the control plane runs."""


@dataclass(frozen=True, slots=True)
class Move:
    """Describe a transition as the machine records it. ``opens``: it starts a new connection. ``row``: the row of the table."""

    source: State
    trigger: Name
    target: State
    opens: bool
    row: Row = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.source} --{self.trigger}--> {self.target}"


@dataclass(frozen=True, slots=True)
class TableModel:
    """Hold a model. ``moves[n]`` is the transition that ``steps[n]`` records, None for a step that records no transition."""

    variables: tuple[Variable, ...]
    steps: tuple[Step, ...]
    moves: tuple[Move | None, ...]
    invariants: tuple[tuple[Property, Condition], ...]


def with_steps(model: TableModel, *steps: Step) -> TableModel:
    """Return the model with ``steps`` added. They record no transitions."""
    return replace(model, steps=(*model.steps, *steps), moves=(*model.moves, *(None for _ in steps)))


def without_properties(model: TableModel, kept: Set[Variable]) -> TableModel:
    """Return the model without the variables that only properties use, except ``kept``. Its runs stay the same."""
    dropped = frozenset(FACTS_FOR_PROPERTIES) - kept
    return TableModel(
        tuple(variable for variable in model.variables if variable not in dropped),
        tuple(replace(step, effects=without(step.effects, dropped)) for step in model.steps),
        model.moves,
        (),
    )


def table_model(table: Table = THE_TABLE) -> TableModel:
    """Build the model of a machine with ``table``."""
    steps: list[Step] = list(environment_steps(table.deadlines, table.runs, table.stable_after, table.closings))
    moves: list[Move | None] = [None] * len(steps)
    for step, move in _machine(table):
        steps.append(step)
        moves.append(move)
    return TableModel((*FACTS, *FACTS_FOR_PROPERTIES), tuple(steps), tuple(moves), INVARIANTS)


def _machine(table: Table) -> Iterator[tuple[Step, Move | None]]:
    stale = all_of(PLACES[0].is_(VOID), in_state(*(state for state in State if state is not FINAL)))
    yield Step(Actor.MACHINE, "an outdated report is dropped", stale, take_first()), None
    for state in State:
        if state is FINAL:
            continue  # the driver's loop has ended
        for arrival in (*ARRIVALS, *AT_ONCE):
            yield from _takes(table, state, arrival)


def _takes(table: Table, state: State, arrival: Arrival) -> Iterator[tuple[Step, Move | None]]:
    """Yield the steps that process ``arrival`` in ``state``: one per row that may be enabled, or one for the cell."""
    here = all_of(in_state(state), head(arrival))
    gone, duty = take(arrival), _duty(arrival)
    actor = Actor.OPERATOR if arrival in AT_ONCE else Actor.MACHINE
    cell = table.cells.get((state, arrival.trigger))
    if cell is not None:
        if arrival in ACTS and cell.kind is Kind.IGNORE:
            return  # the operator gets the reason, and nothing happens
        wrong = () if cell.kind is Kind.IGNORE else violated(Property.NO_REJECT)
        yield Step(actor, f"{arrival}: {cell.kind}, {cell.why}", here, (*gone, *wrong), duty), None
        return
    earlier: list[Condition] = []
    for row in table.rows:
        if row.trigger is not arrival.trigger or state not in row.sources:
            continue
        holds = actions.enabled(row.when, row.unless)
        when = all_of(here, holds, *(Not(condition) for condition in earlier))
        earlier.append(holds)
        effects = (*gone, *_transition(table, state, arrival, row))
        if row.idle:
            if effects:
                yield Step(actor, f"{arrival}: ignore, {row.why}", when, effects, duty), None
            continue
        target = state if row.target is None else row.target
        move = Move(state, row.trigger, target, Action.OPEN_SOCKET in row.actions, row)
        yield Step(actor, _says(arrival, row), when, effects, duty), move
    none = all_of(here, *(Not(condition) for condition in earlier))
    yield Step(actor, f"{arrival}: no row is enabled", none, (*gone, *violated(Property.A_ROW)), duty), None


def _duty(arrival: Arrival) -> Duty:
    if arrival.trigger is Name.UNPAUSE:
        return Duty.MAY
    return Duty.MAY_END if arrival in AT_ONCE else Duty.MUST


def _says(arrival: Arrival, row: Row) -> str:
    does = ", ".join(row.actions) or "nothing to do"
    return f"{arrival}: {does}"


def _transition(table: Table, state: State, arrival: Arrival, row: Row) -> Effects:
    """Return the effects of a transition in the driver's order: cancel the old timers, run the actions, arm the new deadline."""
    target = row.target
    standing = () if target is None else (*table.exit.get(state, ()), *table.entry.get(target, ()))
    acts = tuple(effect for action in (*row.actions, *standing) for effect in actions.effects_of(action, arrival))
    if target is None:
        return (*watched(state, arrival), *acts, *expected(state, arrival, state))
    return (
        *watched(state, arrival),
        *actions.leave(target, table.runs[target]),
        *acts,
        *((DEADLINE.becomes(YES),) if target in table.deadlines else ()),
        *expected(state, arrival, target),
        *actions.forget(target),
        STATE.becomes(target.value),
    )
