"""Draw the state x trigger grid as DOT text: the target of each pair, or that it is ignored, rejected or a breach."""

from __future__ import annotations

from html import escape

from discorder.pictures.graph_model import TONES, Tone, tone_of
from discorder.pictures.palette import BOX, CARD, MUTED, RULE, TEXT, TONE_INKS, state_inks
from discorder.statemachine.table import CELLS, Name, State, rows_for
from discorder.statemachine.terms import Kind

FONT = "Helvetica"
CELL_WIDTH = 88  # points

_SIGNS = {Kind.IGNORE: "\N{MIDDLE DOT}", Kind.REJECT: "\N{MULTIPLICATION SIGN}", Kind.BREACH: "!"}
_LEGEND = (
    f"{_SIGNS[Kind.IGNORE]} ignore: has no effect, and is counted     "
    f"{_SIGNS[Kind.REJECT]} reject: Discorder has a bug     "
    f"{_SIGNS[Kind.BREACH]} breach: the peer broke the protocol, and the trigger breach follows"
)


def grid_dot() -> str:
    """Return the DOT text, in the colours of the state diagram."""
    head = "".join(_state_cell(state) for state in State)
    rows = "".join(_row(trigger) for trigger in Name)
    tones = "     ".join(f'<font color="{TONE_INKS[tone].light}"><b>{said}</b></font>' for tone, said in TONES.items())
    span = len(State) + 1
    legend = "".join(
        f'<tr><td border="0" colspan="{span}" cellpadding="5">{line}</td></tr>' for line in (tones, _muted(_LEGEND))
    )
    table = (
        f'<table border="0" cellborder="1" cellspacing="0" cellpadding="6" color="{RULE.light}">'
        f'<tr><td border="0"></td>{head}</tr>{rows}{legend}</table>'
    )
    return (
        f'digraph grid {{\n  graph [bgcolor="{CARD.light}", pad=0.25]\n'
        f'  grid [shape=plain, fontname="{FONT}", fontsize=12, fontcolor="{TEXT.light}", label=<{table}>]\n}}\n'
    )


def _state_cell(state: State) -> str:
    fill, _ = state_inks(state)
    return f'<td bgcolor="{fill.light}" width="{CELL_WIDTH}"><b>{state}</b></td>'


def _row(trigger: Name) -> str:
    cells = "".join(_cell(state, trigger) for state in State)
    return f'<tr><td align="right" bgcolor="{BOX.light}"><b>{trigger}</b></td>{cells}</tr>'


def _cell(state: State, trigger: Name) -> str:
    cell = CELLS.get((state, trigger))
    if cell is not None:
        ink = MUTED if cell.kind is Kind.IGNORE else TONE_INKS[Tone.FAILURE]
        return f'<td><font color="{ink.light}">{_SIGNS[cell.kind]}</font></td>'
    # in the order of the table, without duplicates
    lines = dict.fromkeys((str(row.target or "stays"), tone_of(state, row)) for row in rows_for(state, trigger))
    said = "<br/>".join(
        f'<font color="{(MUTED if target == "stays" else TONE_INKS[tone]).light}">{escape(target)}</font>'
        for target, tone in lines
    )
    targets = {row.target for row in rows_for(state, trigger)}
    entered = next(iter(targets)) if len(targets) == 1 else None
    tint = "" if entered is None else f' bgcolor="{state_inks(entered)[0].light}"'
    return f"<td{tint}>{said}</td>"


def _muted(text: str) -> str:
    return f'<font color="{MUTED.light}">{escape(text)}</font>'
