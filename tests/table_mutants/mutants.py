"""Broken copies of the table: each row, guard, action and deadline taken away in turn, and each target swapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from discorder.proofs.model import THE_TABLE, Table
from discorder.statemachine.table import Row, State
from discorder.statemachine.terms import Action

MUTANT_VARIABLE = "DISCORDER_MUTANT"  # the number of the mutant that a test process is to run with


@dataclass(frozen=True, slots=True)
class Mutant:
    """One thing in the table that is different. ``kind`` is what was done, ``name`` says where."""

    kind: str
    name: str
    table: Table

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def mutants(table: Table = THE_TABLE) -> Iterator[Mutant]:
    """Every mutant, in the order of the table."""
    for row in table.rows:
        yield from _of_row(table, row)
    for state in table.deadlines:
        rest = {other: deadline for other, deadline in table.deadlines.items() if other is not state}
        yield Mutant("deadline dropped", str(state), replace(table, deadlines=rest))
    for state, deadline in table.deadlines.items():
        if deadline.extended_by_dispatch:
            fixed = {**table.deadlines, state: replace(deadline, extended_by_dispatch=False)}
            yield Mutant("extension dropped", str(state), replace(table, deadlines=fixed))
    for field in ("entry", "exit"):
        yield from _of_standing(table, field)
    for state in table.stable_after:
        yield Mutant("stability dropped", str(state), replace(table, stable_after={}))


def _of_row(table: Table, row: Row) -> Iterator[Mutant]:
    def changed(kind: str, what: str, *instead: Row) -> Mutant:
        rows = [new for old in table.rows for new in (instead if old is row else (old,))]
        return Mutant(kind, f"{described(row)}{what}", replace(table, rows=rows))

    yield changed("row dropped", "")
    for source in row.sources if len(row.sources) > 1 else ():
        fewer = tuple(other for other in row.sources if other is not source)
        yield changed("source dropped", f": {source}", replace(row, sources=fewer))
    for guard in row.when:
        yield changed("guard dropped", f": {guard}", replace(row, when=tuple(g for g in row.when if g is not guard)))
    for guard in row.unless:
        loose = replace(row, unless=tuple(g for g in row.unless if g is not guard))
        yield changed("guard dropped", f": not {guard}", loose)
    for action in row.actions:
        fewer_actions = tuple(other for other in row.actions if other is not action)
        yield changed("action dropped", f": {action}", replace(row, actions=fewer_actions))
    for target in (None, *State):
        if target is not row.target:
            yield changed("target swapped", f": to {target or 'stay'}", replace(row, target=target))


def _of_standing(table: Table, field: str) -> Iterator[Mutant]:
    """Yield the table without each action that a state has on entry or exit."""
    standing: Mapping[State, tuple[Action, ...]] = getattr(table, field)
    for state, actions in standing.items():
        for action in actions:
            rest = {**standing, state: tuple(other for other in actions if other is not action)}
            changed = replace(table, entry=rest) if field == "entry" else replace(table, exit=rest)
            yield Mutant(f"{field} dropped", f"{state}: {action}", changed)


def described(row: Row) -> str:
    """The row in one line."""
    guards = [*(str(guard) for guard in row.when), *(f"not {guard}" for guard in row.unless)]
    where = f" [{', '.join(guards)}]" if guards else ""
    return f"{', '.join(row.sources)} × {row.trigger}{where} → {row.target or 'stay'}"
