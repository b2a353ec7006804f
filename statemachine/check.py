"""Check the table statically, in well under a second.

Each check returns its findings as sentences; an empty list means that the property holds. The checks take the table as
arguments, so that a test can pass a broken copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from discorder.statemachine.cause import INTERRUPTIONS
from discorder.statemachine.machine import ShardMachine
from discorder.statemachine.table import (
    CELLS,
    CLOSINGS,
    DEADLINES,
    ENTRY,
    EXIT,
    FINAL,
    INITIAL,
    LIVE,
    ROWS,
    RUNS,
    STABLE_AFTER,
    WIRE,
    WRITTEN,
    Cell,
    Name,
    Row,
    State,
)
from discorder.statemachine.terms import EXCLUSIVE, GUARD_MEANINGS, Action, Deadline, Guard, Keeper, Kind, Task
from discorder.statemachine.triggers import Trigger

Cells = Mapping[tuple[State, Name], Cell]

NEEDS_NO_DEADLINE = {
    State.DISCONNECTED: "nothing was asked for yet",
    State.READY: "the zombie rule watches it (heartbeat.py)",
    State.RESTARTING: "its back-off is its deadline (backoff.py)",
    State.EXITED: "final",
}


def check_table(
    rows: Sequence[Row] = ROWS,
    cells: Cells = CELLS,
    deadlines: Mapping[State, Deadline] = DEADLINES,
    stable_after: Mapping[State, float] = STABLE_AFTER,
    standing: Iterable[Mapping[State, tuple[Action, ...]]] = (ENTRY, EXIT),
) -> list[str]:
    """Run every check and return all findings. If `check_words` finds something, the other checks are skipped.

    ``standing``: the entry and exit actions of the states.
    """
    if strangers := check_words(rows, cells):
        return strangers
    checks = (
        check_totality,
        check_determinism,
        check_reachability,
        check_stop,
        check_final,
        check_guards,
        check_targets,
        check_idle_rows,
        check_breaches,
        check_descriptions,
        check_machine,
    )
    findings = check_writing()
    findings += [finding for check in checks for finding in check(rows, cells)]
    findings += check_usage(
        rows, cells, [action for by_state in standing for acts in by_state.values() for action in acts]
    )
    return findings + check_deadlines(rows, deadlines) + check_stability(rows, stable_after) + check_closings(deadlines)


def valuations(guards: Sequence[Guard]) -> Iterator[dict[Guard, bool]]:
    """Yield every possible valuation of ``guards``. At most one of the exclusive guards is true."""
    for values in itertools.product((False, True), repeat=len(guards)):
        valuation = dict(zip(guards, values, strict=True))
        if sum(valuation.get(guard, False) for guard in EXCLUSIVE) <= 1:
            yield valuation


def enabled(row: Row, valuation: Mapping[Guard, bool]) -> bool:
    """Return whether the guards of ``row`` hold under ``valuation``."""
    return all(valuation[guard] for guard in row.when) and not any(valuation[guard] for guard in row.unless)


def check_words(rows: Sequence[Row], cells: Cells) -> list[str]:
    """Check that rows and cells hold only states, triggers, actions and guards. `(_READY)` is a string, not a tuple."""
    findings = []
    for row in rows:
        findings += _strangers(f"the row '{row.why}'", Name, (row.trigger,))
        findings += _strangers(f"a row of {row.trigger}", State, row.sources)
        findings += _strangers(f"a row of {row.trigger}", Action, row.actions)
        findings += _strangers(f"a row of {row.trigger}", Guard, (*row.when, *row.unless))
    findings += _strangers("a cell", State, (state for state, _ in cells))
    return findings + _strangers("a cell", Name, (name for _, name in cells))


def _strangers(where: str, kind: type[object], words: Iterable[object]) -> list[str]:
    strange = "".join(dict.fromkeys(str(word) for word in words if not isinstance(word, kind)))
    if not strange:
        return []
    return [f"{where} in table.py names {strange!r}, no {kind.__name__}; a tuple of one needs its comma: (one,)"]


def check_writing() -> list[str]:
    """Check that no pair is written twice. A second cell would silently replace the first."""
    reasons: dict[tuple[State, Name], list[str]] = {}
    for pair, cell in WRITTEN:
        reasons.setdefault(pair, []).append(cell.why)
    return [
        f"{state} x {name}: {len(why)} cells ({'; '.join(why)}); keep one of them in table.py"
        for (state, name), why in reasons.items()
        if len(why) > 1
    ]


def check_totality(rows: Sequence[Row], cells: Cells) -> list[str]:
    """Check that each state x trigger pair is either a transition or a cell."""
    with_rows = {(source, row.trigger) for row in rows for source in row.sources}
    findings = []
    for state in State:
        written = {name: ((state, name) in with_rows) + ((state, name) in cells) for name in Name}
        if missing := ", ".join(name for name in Name if written[name] == 0):
            findings.append(
                f"{state} x {missing}: neither a row nor a cell; write a row, or a line in _OTHERS, in table.py"
            )
        if double := ", ".join(name for name in Name if written[name] > 1):
            findings.append(f"{state} x {double}: a row and a cell; drop one of them in table.py")
    return findings


def check_determinism(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001  # all checks share one signature
    """Check that exactly one row is enabled for each pair and each valuation of its guards."""
    findings = []
    for state, trigger in sorted({(source, row.trigger) for row in rows for source in row.sources}):
        candidates = [row for row in rows if row.trigger is trigger and state in row.sources]
        guards = sorted({guard for row in candidates for guard in (*row.when, *row.unless)})
        for valuation in valuations(guards):
            count = sum(enabled(row, valuation) for row in candidates)
            if count != 1:
                facts = ", ".join(f"{guard}={value}" for guard, value in valuation.items()) or "no guards"
                findings.append(f"{state} x {trigger} with {facts}: {count} rows are enabled, not one")
    return findings


def check_reachability(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that every state is reachable from the initial state, and the final state from every state."""
    forward: dict[State, set[State]] = {state: set() for state in State}
    backward: dict[State, set[State]] = {state: set() for state in State}
    for row in rows:
        for source in row.sources:
            target = source if row.target is None else row.target
            forward[source].add(target)
            backward[target].add(source)
    findings = [
        f"{state} cannot be reached from {INITIAL}" for state in State if state not in _closure(INITIAL, forward)
    ]
    ending = _closure(FINAL, backward)
    return findings + [f"{FINAL} cannot be reached from {state}" for state in State if state not in ending]


def _closure(start: State, edges: Mapping[State, set[State]]) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        for state in edges[todo.pop()] - seen:
            seen.add(state)
            todo.append(state)
    return seen


def check_stop(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that `stop` leads to Stopping without a guard, in every state except Stopping and Exited."""
    findings = []
    for state in State:
        if state in {State.STOPPING, FINAL}:
            continue
        candidates = [row for row in rows if row.trigger is Name.STOP and state in row.sources]
        if not any(row.target is State.STOPPING and not row.when and not row.unless for row in candidates):
            findings.append(f"{state}: stop does not lead to {State.STOPPING} at once")
    return findings


def check_final(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that no row leaves the final state."""
    return [f"{FINAL} x {row.trigger}: a row leaves the final state" for row in rows if FINAL in row.sources]


def check_deadlines(rows: Sequence[Row], deadlines: Mapping[State, Deadline]) -> list[str]:
    """Check that each state with a deadline handles `timeout`, and that each other state gives a reason."""
    findings = []
    for state in State:
        handled = any(row.trigger is Name.TIMEOUT and state in row.sources for row in rows)
        if state in deadlines and not handled:
            findings.append(f"{state} has a deadline but no row for timeout")
        if state in deadlines and deadlines[state].extended_by_dispatch:
            findings += _extension(state, deadlines[state])
        if state not in deadlines and state not in NEEDS_NO_DEADLINE:
            findings.append(
                f"{state} has no deadline; give it one in table.py, or say why in NEEDS_NO_DEADLINE of check.py"
            )
    return findings


def _extension(state: State, deadline: Deadline) -> list[str]:
    if deadline.keeper is Keeper.DOCTOR and Task.PROCESSOR in RUNS[state]:
        return []
    return [f"{state}: events extend the deadline, but nothing is read there or the driver keeps it and sees no events"]


def check_stability(rows: Sequence[Row], stable_after: Mapping[State, float]) -> list[str]:
    """Check that the states with a row for `stable` are exactly the states with a stability time."""
    handled = {source for row in rows if row.trigger is Name.STABLE for source in row.sources}
    findings = [f"{state} becomes stable but has no row for stable" for state in stable_after if state not in handled]
    return findings + [
        f"{state} has a row for stable but never becomes stable; say after how many seconds in its line in table.py"
        for state in State
        if state in handled and state not in stable_after
    ]


def check_closings(deadlines: Mapping[State, Deadline]) -> list[str]:
    """Check that exactly the states that close the socket on entry have a `Closing`, and that the deadline is longer."""
    findings = [
        f"{state} closes the socket on entry and does not say how: give it a Closing in table.py, or take one away"
        for state in State
        if (Action.CLOSE_SOCKET in state.traits.entry) != (state in CLOSINGS)
    ]
    return findings + [
        f"{state} gives the close {closing.seconds:g} s, and must be left before; its deadline has to be longer"
        for state, closing in CLOSINGS.items()
        if state in deadlines and closing.seconds >= deadlines[state].seconds
    ]


def check_guards(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that no row requires a guard and its negation, or two guards that exclude each other."""
    findings = []
    for row in rows:
        guards = sorted({*row.when, *row.unless})
        if not any(enabled(row, valuation) for valuation in valuations(guards)):
            names = ", ".join([*row.when, *(f"not {guard}" for guard in row.unless)])
            findings.append(
                f"{', '.join(row.sources)} x {row.trigger}: a dead row, its guards contradict each other: {names}"
            )
    return findings


def check_targets(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that a row that stays in its state has target None. A row to its own source would restart the deadline."""
    return [
        f"{row.target} x {row.trigger}: a row leads to the state it comes from; to stay, write None"
        for row in rows
        if row.target in row.sources
    ]


def check_idle_rows(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that a row without target and actions has guards. Without guards it would be a cell."""
    return [
        f"{', '.join(row.sources)} x {row.trigger}: a row without target, actions and guards; write a cell in table.py"
        for row in rows
        if row.idle and not row.when and not row.unless
    ]


def check_breaches(rows: Sequence[Row], cells: Cells) -> list[str]:
    """Check that exactly the triggers that the peer must not send are breaches, and that their states handle `breach`."""
    handled = {source for row in rows if row.trigger is Name.BREACH for source in row.sources}
    findings = []
    for (state, name), cell in cells.items():
        from_peer = state in LIVE and name in WIRE
        if (cell.kind is Kind.BREACH) > from_peer:
            findings.append(f"{state} x {name}: a breach, but no peer sends it there; reject or ignore it")
        elif from_peer and cell.kind is Kind.REJECT:
            findings.append(f"{state} x {name}: rejected as a bug, but the peer can send it; make it a breach")
        if cell.kind is Kind.BREACH and state not in handled:
            findings.append(f"{state} x {name}: a breach, but {state} has no row for breach")
    return findings


def check_usage(rows: Sequence[Row], cells: Cells, standing: Iterable[Action]) -> list[str]:
    """Check that every trigger, action and guard is used, and that every row and cell gives its reason."""
    used_triggers = {row.trigger for row in rows}
    used_actions = {*standing, *(action for row in rows for action in row.actions)}
    used_guards = {guard for row in rows for guard in (*row.when, *row.unless)}
    findings = [f"trigger {name} is in no row" for name in Name if name not in used_triggers]
    findings += [f"action {action} is in no row and in no state" for action in Action if action not in used_actions]
    findings += [f"guard {guard} is in no row" for guard in Guard if guard not in used_guards]
    findings += [f"a row of {row.trigger} gives no reason" for row in rows if not row.why]
    return findings + [f"{state} x {name} gives no reason" for (state, name), cell in cells.items() if not cell.why]


def check_descriptions(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that each state and guard has a meaning, and that each trigger has a class."""
    findings = [f"state {state} has no meaning; say it in its line in table.py" for state in State if not state.meaning]
    findings += [
        f"trigger {name} has no class; write one in triggers.py, and add it to Trigger there"
        for name in Name
        if name not in {getattr(kind, "name", None) for kind in get_args(Trigger)}
    ]
    return findings + [
        f"guard {guard} has no meaning; add it to GUARD_MEANINGS in terms.py"
        for guard in Guard
        if guard not in GUARD_MEANINGS
    ]


def check_machine(rows: Sequence[Row], cells: Cells) -> list[str]:  # noqa: ARG001
    """Check that the machine has a method for each action and guard, and that each planned end has a text."""
    findings = [
        f"{kind} {word} is no method of ShardMachine; write one of that name in machine.py"
        for kind, words in (("action", Action), ("guard", Guard))
        for word in words
        if not callable(getattr(ShardMachine, word.value, None))
    ]
    noting = dict.fromkeys(row.trigger for row in rows if Action.NOTE_PLANNED in row.actions)
    return findings + [
        f"trigger {name} gives a connection up as planned, and nothing says why; add it to INTERRUPTIONS in cause.py"
        for name in noting
        if name not in INTERRUPTIONS
    ]
