"""The small world: the table, what its guards and actions mean, and everybody around the machine, as one list of steps.

Built from a `Table`, so that a broken copy of the table can be put into the same world.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from discorder.proofs import actions
from discorder.proofs.facts import (
    ARRIVALS,
    DEADLINE,
    DOCTOR,
    FACTS,
    PLACES,
    STATE,
    STOPS,
    VOID,
    Arrival,
    head,
    in_state,
    take,
    take_first,
)
from discorder.proofs.language import YES, Actor, Condition, Duty, Effects, Not, Step, Variable, all_of, without
from discorder.proofs.properties import FACTS_FOR_PROPERTIES, INVARIANTS, Property, expected, violated, watched
from discorder.proofs.surroundings import Deadlines, Runs, surroundings
from discorder.statemachine.table import CELLS, DEADLINES, FINAL, ROWS, RUNS, Cell, Name, Row, State
from discorder.statemachine.terms import Action, Kind


@dataclass(frozen=True, slots=True)
class Table:
    """What `statemachine/` says: the rows, the other cells, the deadlines, the tasks of each state."""

    rows: Sequence[Row] = ROWS
    cells: Mapping[tuple[State, Name], Cell] = field(default_factory=lambda: CELLS)
    deadlines: Deadlines = field(default_factory=lambda: DEADLINES)
    runs: Runs = field(default_factory=lambda: RUNS)


THE_TABLE = Table()
"""The one that runs."""


@dataclass(frozen=True, slots=True)
class Move:
    """What the machine records of a transition. ``opens``: a new generation begins with it. ``row``: why it is there."""

    source: State
    trigger: Name
    target: State
    opens: bool
    row: Row = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.source} --{self.trigger}--> {self.target}"


@dataclass(frozen=True, slots=True)
class SmallWorld:
    """``moves[n]`` is what ``steps[n]`` leaves in the ring of transitions, None for a step that leaves nothing there."""

    variables: tuple[Variable, ...]
    steps: tuple[Step, ...]
    moves: tuple[Move | None, ...]
    invariants: tuple[tuple[Property, Condition], ...]


def with_steps(world: SmallWorld, *steps: Step) -> SmallWorld:
    """The same world, in which ``steps`` can happen too. They leave nothing in the ring."""
    return replace(world, steps=(*world.steps, *steps), moves=(*world.moves, *(None for _ in steps)))


def without_properties(world: SmallWorld, kept: Set[Variable]) -> SmallWorld:
    """The same world without the facts that are there for a property alone, but for ``kept``: the same things happen."""
    dropped = frozenset(FACTS_FOR_PROPERTIES) - kept
    return SmallWorld(
        tuple(variable for variable in world.variables if variable not in dropped),
        tuple(replace(step, effects=without(step.effects, dropped)) for step in world.steps),
        world.moves,
        (),
    )


def small_world(table: Table = THE_TABLE) -> SmallWorld:
    """The world in which ``table`` is the machine's."""
    steps: list[Step] = list(surroundings(table.deadlines, table.runs))
    moves: list[Move | None] = [None] * len(steps)
    for step, move in _machine(table):
        steps.append(step)
        moves.append(move)
    return SmallWorld((*FACTS, *FACTS_FOR_PROPERTIES), tuple(steps), tuple(moves), INVARIANTS)


def _machine(table: Table) -> Iterator[tuple[Step, Move | None]]:
    stale = all_of(PLACES[0].is_(VOID), in_state(*(state for state in State if state is not FINAL)))
    yield Step(Actor.MACHINE, "an outdated report is dropped", stale, take_first()), None
    for state in State:
        if state is FINAL:
            continue  # the loop of the driver has ended
        for arrival in (*ARRIVALS, *STOPS):
            yield from _takes(table, state, arrival)


def _takes(table: Table, state: State, arrival: Arrival) -> Iterator[tuple[Step, Move | None]]:
    """What becomes of ``arrival`` in ``state``: a step for each row that may be enabled, or the one that passes it over."""
    here = all_of(in_state(state), head(arrival))
    gone, duty = take(arrival), Duty.MAY_END if arrival in STOPS else Duty.MUST
    actor = Actor.OPERATOR if arrival in STOPS else Actor.MACHINE
    cell = table.cells.get((state, arrival.trigger))
    if cell is not None:
        wrong = violated(Property.NO_REJECT) if cell.kind is Kind.REJECT else ()
        yield Step(actor, f"{arrival}: {cell.kind}d, {cell.why}", here, (*gone, *wrong), duty), None
        return
    earlier: list[Condition] = []
    for row in table.rows:
        if row.trigger is not arrival.trigger or state not in row.sources:
            continue
        holds = actions.enabled(row.when, row.unless)
        when = all_of(here, holds, *(Not(condition) for condition in earlier))
        earlier.append(holds)
        target = state if row.target is None else row.target
        move = Move(state, row.trigger, target, Action.OPEN_SOCKET in row.actions, row)
        yield Step(actor, _says(arrival, row), when, (*gone, *_transition(table, state, arrival, row)), duty), move
    none = all_of(here, *(Not(condition) for condition in earlier))
    yield Step(actor, f"{arrival}: no row is enabled", none, (*gone, *violated(Property.A_ROW)), duty), None


def _says(arrival: Arrival, row: Row) -> str:
    does = ", ".join(row.actions) or "nothing to do"
    return f"{arrival}: {does}"


def _transition(table: Table, state: State, arrival: Arrival, row: Row) -> Effects:
    """In the order of the driver: the timers of the state before are void, then the actions, then the new deadline."""
    acts = tuple(effect for action in row.actions for effect in actions.effects_of(action, arrival))
    target = row.target
    if target is None:
        again = (DOCTOR.mapped({"failed": "watching"}),) if state is State.UNHEALTHY else ()
        return (*watched(state, arrival), *acts, *again, *expected(state, arrival))
    return (
        *watched(state, arrival),
        *actions.leave(target, table.runs[target]),
        *acts,
        *((DEADLINE.becomes(YES),) if target in table.deadlines else ()),
        *expected(state, arrival),
        *actions.forget(target),
        STATE.becomes(target.value),
    )
