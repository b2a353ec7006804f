"""The static check finds nothing in the real table, and each kind of damage in a copy of it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_
from typing import cast, get_args

import pytest

from discorder.statemachine import ShardMachine, State, check
from discorder.statemachine.check import check_table
from discorder.statemachine.life_cycle import build_machine
from discorder.statemachine.table import CELLS, DEADLINES, FINAL, ROWS, WRITTEN, Cell, Name, Row
from discorder.statemachine.terms import GUARD_MEANINGS, Action, Guard, Kind
from discorder.statemachine.triggers import Trigger, Zombie


class NoTrigger:
    """A class in the union that lacks ``name``."""


def row_of(source: State, trigger: Name, *when: Guard) -> Row:
    """Return the first row of that pair whose guards are ``when``."""
    return next(row for row in ROWS if source in row.sources and row.trigger is trigger and row.when == when)


def test_the_table_is_sound() -> None:
    """The table is total, deterministic and reachable; it has a stop everywhere, deadlines where needed, and reasons."""
    assert check_table() == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.sources[0]}-{row.trigger}-{row.target}")
def test_each_dropped_row_is_noticed(row: Row) -> None:
    """No row is superfluous."""
    assert check_table([other for other in ROWS if other is not row])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.sources[0]}-{row.trigger}-{row.target}")
def test_each_duplicated_row_is_noticed(row: Row) -> None:
    """It is undefined which of two enabled rows is taken."""
    assert any("2 rows are enabled" in finding for finding in check_table([*ROWS, row]))


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.when or row.unless], ids=lambda row: f"{row.trigger}: {row.why}"
)
def test_each_lost_guard_is_noticed(row: Row) -> None:
    """Every row without its guards overlaps with another one."""
    loose = replace(row, when=(), unless=())
    assert any("rows are enabled" in finding for finding in check_table([loose if r is row else r for r in ROWS]))


@pytest.mark.parametrize("pair", CELLS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_each_dropped_cell_is_noticed(pair: tuple[State, Name]) -> None:
    """A pair without a row or a cell is named."""
    cells = {other: cell for other, cell in CELLS.items() if other != pair}
    assert check_table(ROWS, cells) == [
        f"{pair[0]} x {pair[1]}: neither a row nor a cell; write a row, or a line in _OTHERS, in table.py"
    ]


def test_what_is_not_said_of_a_new_state_is_one_finding() -> None:
    """A new state begins with one line and gives one finding, not a page of them."""
    unsaid = [name for name in Name if (State.DISCONNECTED, name) in CELLS]
    cells = {pair: cell for pair, cell in CELLS.items() if pair[0] is not State.DISCONNECTED}
    assert check_table(ROWS, cells) == [
        f"Disconnected x {', '.join(unsaid)}: neither a row nor a cell; write a row, or a line in _OTHERS, in table.py"
    ]


def test_a_pair_that_is_both_row_and_cell_is_noticed() -> None:
    """A transition cannot be ignored at the same time."""
    cells = {**CELLS, (State.READY, Name.CLOSED): Cell(Kind.IGNORE, "no")}
    assert check_table(ROWS, cells) == ["Ready x closed: a row and a cell; drop one of them in table.py"]


def test_a_cell_that_is_written_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for many states often includes one too many. Both reasons are printed, so that the two lines are found."""
    again = ((State.EXITED, Name.HELLO), Cell(Kind.IGNORE, "late"))
    monkeypatch.setattr(check, "WRITTEN", (*WRITTEN, again))
    assert check_table() == ["Exited x hello: 2 cells (final; late); keep one of them in table.py"]


def test_a_table_in_which_a_comma_is_missing_still_builds_and_is_noticed() -> None:
    """A state in brackets is not a tuple, and the check runs only where the machine could be built."""
    zombie, stable = row_of(State.READY, Name.ZOMBIE), row_of(State.READY, Name.STABLE)
    letters = replace(zombie, sources=cast("tuple[State, ...]", State.READY))
    no_list = replace(
        stable, actions=cast("tuple[Action, ...]", Action.CLIMB), when=cast("tuple[Guard, ...]", Guard.FATAL)
    )
    cells = {**CELLS, (cast("State", "R"), Name.STOP): Cell(Kind.IGNORE, "no")}
    letter = replace(stable, trigger=cast("Name", "s"))  # what `_rows` makes of `(Name.STABLE)`
    build_machine([letters, no_list, letter])
    remedy = "a tuple of one needs its comma: (one,)"
    assert check_table([*ROWS, letters, no_list, letter], cells) == [
        f"a row of zombie in table.py names 'Ready', no State; {remedy}",
        f"a row of stable in table.py names 'climb', no Action; {remedy}",
        f"a row of stable in table.py names 'fatl', no Guard; {remedy}",
        f"the row '{stable.why}' in table.py names 's', no Name; {remedy}",
        f"a cell in table.py names 'R', no State; {remedy}",
    ]


@pytest.mark.parametrize(("kind", "word"), [("action", Action.CLIMB), ("guard", Guard.FATAL)])
def test_an_action_and_a_guard_without_a_method_are_noticed(
    kind: str, word: Action | Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine looks the method up by name, and only when the row is taken."""
    monkeypatch.delattr(ShardMachine, word.value)
    assert check_table() == [f"{kind} {word} is no method of ShardMachine; write one of that name in machine.py"]


def test_a_planned_end_without_words_is_noticed() -> None:
    """The operator is told why a connection was given up. The text is looked up only when it happens."""
    row = replace(row_of(State.READY, Name.ZOMBIE), actions=(Action.NOTE_PLANNED,))
    assert check_table(
        [row if other.trigger is Name.ZOMBIE and other.sources == row.sources else other for other in ROWS]
    ) == ["trigger zombie gives a connection up as planned, and nothing says why; add it to INTERRUPTIONS in cause.py"]


def test_a_row_out_of_the_final_state_is_noticed() -> None:
    """Exited is final."""
    escape = Row((State.EXITED,), Name.START, State.CONNECTING, (Action.OPEN_SOCKET,), "once more")
    cells = {pair: cell for pair, cell in CELLS.items() if pair != (State.EXITED, Name.START)}
    assert check_table([*ROWS, escape], cells) == ["Exited x start: a row leaves the final state"]


def test_an_unreachable_state_is_noticed() -> None:
    """If nothing leads to Resuming, its rows are dead."""
    hello = row_of(State.CONNECTING, Name.HELLO, Guard.RESUMABLE)
    rows = [replace(row, target=State.IDENTIFYING) if row is hello else row for row in ROWS]
    assert check_table(rows) == ["Resuming cannot be reached from Disconnected"]


def test_a_state_without_a_way_to_the_end_is_noticed() -> None:
    """If Stopping leads back, a shard ends only by a failure, and Stopping itself never does."""
    rows = [replace(row, target=None) if row.target is State.EXITED else row for row in ROWS]
    assert "Exited cannot be reached from Stopping" in check_table(rows)


@pytest.mark.parametrize("state", [state for state in State if state not in {State.STOPPING, FINAL}])
def test_a_state_that_cannot_be_stopped_is_noticed(state: State) -> None:
    """Every state handles stop, at once."""
    deaf = [
        replace(row, sources=tuple(source for source in row.sources if source is not state))
        if row.trigger is Name.STOP
        else row
        for row in ROWS
    ]
    cells = {**CELLS, (state, Name.STOP): Cell(Kind.IGNORE, "deaf")}
    assert f"{state}: stop does not lead to Stopping at once" in check_table(deaf, cells)


@pytest.mark.parametrize(
    "state", [State.CONNECTING, State.IDENTIFYING, State.RESUMING, State.UNHEALTHY, State.STOPPING]
)
def test_a_deadline_that_leads_nowhere_is_noticed(state: State) -> None:
    """Every state with a deadline handles its timeout."""
    rows = [row for row in ROWS if not (row.trigger is Name.TIMEOUT and state in row.sources)]
    cells = {**CELLS, (state, Name.TIMEOUT): Cell(Kind.IGNORE, "for ever")}
    assert f"{state} has a deadline but no row for timeout" in check_table(rows, cells)


@pytest.mark.parametrize("action", Action)
def test_an_action_that_neither_a_row_nor_a_state_uses_is_noticed(action: Action) -> None:
    """Dead code in the machine would look like a part of the life cycle."""
    rows = [replace(row, actions=tuple(other for other in row.actions if other is not action)) for row in ROWS]
    assert f"action {action} is in no row and in no state" in check_table(rows, standing=())


def test_an_unused_trigger_and_an_unused_guard_are_noticed() -> None:
    """An unused name is a leftover."""
    findings = check_table([row for row in ROWS if row.trigger not in {Name.STABLE, Name.RESTART_DUE}])
    assert "trigger stable is in no row" in findings
    assert "guard may_open is in no row" in findings


def test_a_missing_reason_is_noticed() -> None:
    """Readers of the table need the reasons."""
    assert check_table([replace(ROWS[0], why=""), *ROWS[1:]]) == ["a row of start gives no reason"]
    cells = {**CELLS, (State.READY, Name.HELLO): Cell(Kind.BREACH, "")}
    assert check_table(ROWS, cells) == ["Ready x hello gives no reason"]


def test_a_row_whose_guards_contradict_each_other_is_noticed() -> None:
    """Two causes at once, or a guard and its negation, never enable a row."""
    fatal = row_of(State.UNHEALTHY, Name.DIAGNOSED, Guard.FATAL)
    for when, unless, names in (
        ((Guard.FATAL, Guard.PLANNED), (), "fatal, planned"),
        ((Guard.FATAL,), (Guard.FATAL,), "fatal, not fatal"),
    ):
        dead = replace(fatal, when=when, unless=unless)
        assert f"Unhealthy x diagnosed: a dead row, its guards contradict each other: {names}" in check_table(
            [*ROWS, dead]
        )


def test_a_row_that_leads_to_its_own_source_is_noticed() -> None:
    """Such a row would enter the state anew, with a new deadline. Staying in a state is written explicitly."""
    stable = row_of(State.READY, Name.STABLE)
    rows = [replace(row, target=State.READY) if row is stable else row for row in ROWS]
    assert check_table(rows) == ["Ready x stable: a row leads to the state it comes from; to stay, write None"]


@pytest.mark.parametrize("state", DEADLINES)
def test_a_lost_deadline_is_noticed(state: State) -> None:
    """Every state that waits has a deadline."""
    rest = {other: deadline for other, deadline in DEADLINES.items() if other is not state}
    assert check_table(deadlines=rest) == [
        f"{state} has no deadline; give it one in table.py, or say why in NEEDS_NO_DEADLINE of check.py"
    ]


def test_an_extension_that_nobody_could_notice_is_reported() -> None:
    """The driver sees no events, and nothing is read in Unhealthy."""
    extended = {**DEADLINES, State.UNHEALTHY: replace(DEADLINES[State.UNHEALTHY], extended_by_dispatch=True)}
    assert check_table(deadlines=extended) == [
        "Unhealthy: events extend the deadline, but nothing is read there or the driver keeps it and sees no events"
    ]


def test_a_breach_is_what_a_peer_sends_and_leads_on() -> None:
    """Only triggers that the peer can send are breaches; the others would be bugs of ours."""
    rejected = {**CELLS, (State.READY, Name.HELLO): Cell(Kind.REJECT, "no")}
    assert check_table(cells=rejected) == [
        "Ready x hello: rejected as a bug, but the peer can send it; make it a breach"
    ]
    of_ours = {**CELLS, (State.READY, Name.STOPPED): Cell(Kind.BREACH, "no")}
    assert check_table(cells=of_ours) == ["Ready x stopped: a breach, but no peer sends it there; reject or ignore it"]
    rows = [row for row in ROWS if not (row.trigger is Name.BREACH and State.READY in row.sources)]
    cells = {**CELLS, (State.READY, Name.BREACH): Cell(Kind.IGNORE, "no")}
    assert "Ready x hello: a breach, but Ready has no row for breach" in check_table(rows, cells)


def test_stability_and_its_rows_belong_together() -> None:
    """One without the other does nothing."""
    assert check_table(stable_after={}) == [
        "Ready has a row for stable but never becomes stable; say after how many seconds in its line in table.py"
    ]
    findings = check_table(stable_after={State.READY: 120.0, State.RESUMING: 5.0})
    assert findings == ["Resuming becomes stable but has no row for stable"]


def test_a_state_a_trigger_or_a_guard_without_a_description_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finding says where to add it."""
    monkeypatch.setattr(State.READY, "meaning", "")
    kinds = (kind for kind in get_args(Trigger) if kind is not Zombie)
    monkeypatch.setattr(check, "Trigger", reduce(or_, kinds) | NoTrigger)
    monkeypatch.setattr(check, "GUARD_MEANINGS", {g: t for g, t in GUARD_MEANINGS.items() if g is not Guard.FATAL})
    assert check_table() == [
        "state Ready has no meaning; say it in its line in table.py",
        "trigger zombie has no class; write one in triggers.py, and add it to Trigger there",
        "guard fatal has no meaning; add it to GUARD_MEANINGS in terms.py",
    ]
