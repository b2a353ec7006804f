"""The parts of the package and who imports whom, as DOT text; what follows from other arrows is left out."""

from __future__ import annotations

import re
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
WIDTH = 24  # characters of a box: seven beside each other must be legible in a README

_DECIDES = "statemachine"
_SEAMS = {"transport", "publishers"}


def architecture_dot() -> str:
    """Every part, those that import on top."""
    parts = read_parts()
    nodes = "\n".join(_node(part) for part in parts.values())
    edges = "\n".join(f"  {name} -> {other}" for name, others in reduced(parts).items() for other in sorted(others))
    return f"""\
digraph architecture {{
  graph [rankdir=TB, bgcolor="{CARD.light}", pad=0.25, nodesep=0.2, ranksep=0.4, fontname="{FONT}", fontsize=12,
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
    said = textwrap.wrap(
        re.split("[:;,]", part.says.replace("`", ""))[0], WIDTH
    )  # what it is, not what it does in detail
    lines = "".join(
        f'<tr><td><font point-size="12" color="{MUTED.light}">{escape(line)}</font></td></tr>' for line in said
    )
    table = (
        f'<table border="0" cellborder="0" cellspacing="0" cellpadding="0">'
        f'<tr><td><font point-size="16"><b>{name}</b></font></td></tr>{lines}</table>'
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
