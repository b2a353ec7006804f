"""The table as Markdown: the rows with their reasons, and the full state x trigger grid.

Every pair is in the grid: what it leads to, or why it means nothing (ignore) or must not happen (reject).
"""

from __future__ import annotations

from collections.abc import Iterable

from discorder.pictures.scene import words
from discorder.statemachine.table import CELLS, DEADLINES, ROWS, Name, Row, State, rows_for
from discorder.statemachine.terms import GUARD_MEANINGS, Kind

_HEAD = """\
# The life cycle of a shard

Generated from `statemachine/table.py`; do not edit. `make diagrams` draws it anew.

![state diagram](life-cycle.svg)

The same as a grid: [every state and trigger](grid.svg). Runs of the machine: [start](sequence-start.svg),
[resume](sequence-resume.svg), [zombie](sequence-zombie.svg), [op 9](sequence-op-9.svg), [shutdown](sequence-shutdown.svg).
"""


def markdown() -> str:
    """The whole page."""
    sections = (_HEAD, _states(), _transitions(), _guards(), _grid())
    return "\n".join(sections)


def _states() -> str:
    rows = (
        (f"**{state.value}**", state.meaning, f"{DEADLINES[state].seconds:g} s" if state in DEADLINES else "")
        for state in State
    )
    return f"## States\n\n{_table(('state', 'means', 'deadline'), rows)}"


def _transitions() -> str:
    rows = (
        (
            ", ".join(source.value for source in row.sources),
            _code(row.trigger),
            _guard_cell(row),
            ", ".join(_code(action) for action in row.actions),
            "(stays)" if row.target is None else row.target.value,
            row.why,
        )
        for row in ROWS
    )
    return f"## Transitions\n\n{_table(('from', 'trigger', 'guard', 'actions', 'to', 'why'), rows)}"


def _guard_cell(row: Row) -> str:
    return ", ".join([words(guard) for guard in row.when] + [f"not {words(guard)}" for guard in row.unless])


def _guards() -> str:
    rows = ((words(guard), meaning) for guard, meaning in GUARD_MEANINGS.items())
    return f"## Guards\n\n{_table(('guard', 'true when'), rows)}"


def _grid() -> str:
    notes: dict[str, int] = {}
    for state in State:  # numbered in reading order, so that the text is the same each time
        for trigger in Name:
            cell = CELLS.get((state, trigger))
            if cell is not None:
                notes.setdefault(cell.why, len(notes) + 1)
    rows = ((_code(trigger), *(_grid_cell(state, trigger, notes) for state in State)) for trigger in Name)
    table = _table(("trigger", *(state.value for state in State)), rows)
    explained = "\n".join(f"{number}. {why}" for why, number in notes.items())
    legend = (
        "A state: the transition leads there. *stays*: something is done, the state is kept. "
        "ignore: means nothing here, and is counted. **reject**: the peer broke the protocol, or we have a bug. "
        "The numbers are the reasons below."
    )
    return f"## Every state x trigger pair\n\n{legend}\n\n{table}\n{explained}\n"


def _grid_cell(state: State, trigger: Name, notes: dict[str, int]) -> str:
    cell = CELLS.get((state, trigger))
    if cell is not None:
        kind = f"**{cell.kind}**" if cell.kind is Kind.REJECT else cell.kind.value
        return f"{kind} {notes[cell.why]}"
    targets = ["*stays*" if row.target is None else row.target.value for row in rows_for(state, trigger)]
    return " or ".join(dict.fromkeys(targets))


def _code(name: str) -> str:
    return f"`{name}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")
