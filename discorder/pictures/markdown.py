"""Write the transition table as Markdown: the rows with their reasons, and the state x trigger grid."""

from __future__ import annotations

from collections.abc import Iterable

from discorder.pictures.graph_model import words
from discorder.statemachine.table import CELLS, DEADLINES, ENTRY, EXIT, ROWS, STABLE_AFTER, Name, Row, State, rows_for
from discorder.statemachine.terms import GUARD_MEANINGS, Kind

_STATE_COLUMNS = ("state", "means", "deadline", "stable after", "on entry", "on exit")
_HEAD = """\
# The life cycle of a shard

Generated from `statemachine/table.py` by `make diagrams`. Do not edit.

![state diagram](life-cycle.svg)

The same as a grid: [every state and trigger](grid.svg). Runs of the machine: [start](sequence-start.svg),
[resume](sequence-resume.svg), [zombie](sequence-zombie.svg), [op 9](sequence-op-9.svg), [shutdown](sequence-shutdown.svg).
"""


def markdown() -> str:
    """Return the page."""
    sections = (_HEAD, _states(), _transitions(), _guards(), _grid())
    return "\n".join(sections)


def _states() -> str:
    rows = (
        (
            f"**{state.value}**",
            state.meaning,
            _deadline(state),
            _stable(state),
            *(", ".join(_code(action) for action in actions.get(state, ())) for actions in (ENTRY, EXIT)),
        )
        for state in State
    )
    return f"## States\n\n{_table(_STATE_COLUMNS, rows)}"


def _deadline(state: State) -> str:
    if state not in DEADLINES:
        return ""
    seconds = f"{DEADLINES[state].seconds:g} s"
    return f"{seconds} after the last event" if DEADLINES[state].extended_by_dispatch else seconds


def _stable(state: State) -> str:
    return f"{STABLE_AFTER[state]:g} s" if state in STABLE_AFTER else ""


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
    for state in State:  # in reading order, so that the numbers are the same each time
        for trigger in Name:
            cell = CELLS.get((state, trigger))
            if cell is not None:
                notes.setdefault(cell.why, len(notes) + 1)
    rows = ((_code(trigger), *(_grid_cell(state, trigger, notes) for state in State)) for trigger in Name)
    table = _table(("trigger", *(state.value for state in State)), rows)
    explained = "\n".join(f"{number}. {why}" for why, number in notes.items())
    legend = (
        "A state: the target of the transition. *stays*: the actions are done, the state does not change. "
        "ignore: has no effect, and is counted. **reject**: Discorder has a bug. "
        "**breach**: the peer broke the protocol, and the trigger `breach` follows. "
        "The numbers refer to the reasons below."
    )
    return f"## Every state x trigger pair\n\n{legend}\n\n{table}\n{explained}\n"


def _grid_cell(state: State, trigger: Name, notes: dict[str, int]) -> str:
    cell = CELLS.get((state, trigger))
    if cell is not None:
        kind = cell.kind.value if cell.kind is Kind.IGNORE else f"**{cell.kind}**"
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
