"""The parts of the package and who imports whom, as DOT text; what follows from other arrows is left out."""

from __future__ import annotations

import textwrap
from html import escape

from discorder.pictures.imports import Part, read_parts, reduced
from discorder.pictures.palette import (
    BORDER,
    BOX,
    CARD,
    LIVE_BORDER,
    LIVE_BOX,
    MUTED,
    READY_BOX,
    RESTARTING_BOX,
    TEXT,
    TONE_INKS,
    Ink,
)
from discorder.pictures.scene import Tone

FONT = "Helvetica"
WIDTH = 30  # characters of a box
LINES = 4  # of what a part says of itself

_DECIDES = "statemachine"
_SEAMS = {"transport", "publishers"}


def architecture_dot() -> str:
    """Every part, those that import on top."""
    parts = read_parts()
    nodes = "\n".join(_node(part) for part in parts.values())
    edges = "\n".join(f"  {name} -> {other}" for name, others in reduced(parts).items() for other in sorted(others))
    return f"""\
digraph architecture {{
  graph [rankdir=TB, bgcolor="{CARD.light}", pad=0.25, nodesep=0.18, ranksep=0.42, fontname="{FONT}", fontsize=12,
         fontcolor="{MUTED.light}", labelloc=b, label=<{_legend()}>]
  node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize=12, fontcolor="{TEXT.light}", margin="0.1,0.05"]
  edge [color="{BORDER.light}", arrowsize=0.65, penwidth=1.1]
{nodes}
{edges}
}}
"""


def _node(part: Part) -> str:
    fill, border = _inks(part)
    name = f"{part.name}/" if part.is_package else part.name
    said = textwrap.wrap(part.says.replace("`", ""), WIDTH)
    if len(said) > LINES:
        said = [*said[: LINES - 1], textwrap.shorten(said[LINES - 1] + " " + said[LINES], WIDTH, placeholder=" ...")]
    lines = "".join(
        f'<tr><td><font point-size="10" color="{MUTED.light}">{escape(line)}</font></td></tr>' for line in said
    )
    table = (
        f'<table border="0" cellborder="0" cellspacing="0" cellpadding="0">'
        f'<tr><td><font point-size="14"><b>{name}</b></font></td></tr>{lines}</table>'
    )
    return f'  {part.name} [id="part-{part.name}", fillcolor="{fill.light}", color="{border.light}", label=<{table}>]'


def _inks(part: Part) -> tuple[Ink, Ink]:
    if part.name == _DECIDES:
        return READY_BOX, TONE_INKS[Tone.HAPPY]
    if part.name in _SEAMS:
        return RESTARTING_BOX, TONE_INKS[Tone.RECOVERY]
    if not part.imports:
        return LIVE_BOX, LIVE_BORDER
    return BOX, BORDER


def _legend() -> str:
    entries = (
        (TONE_INKS[Tone.HAPPY], "decides, and imports nothing of ours"),
        (TONE_INKS[Tone.RECOVERY], "seams to the outside"),
        (MUTED, "an arrow: imports (what follows from other arrows is left out)"),
    )
    cells = "".join(f'<td><font color="{ink.light}">{said}</font></td>' for ink, said in entries)
    return f'<table border="0" cellborder="0" cellspacing="12"><tr>{cells}</tr></table>'
