"""Draw the components of the package and their imports as DOT text."""

from __future__ import annotations

import re
import textwrap
from html import escape

from discorder.pictures.graph_model import Tone
from discorder.pictures.imports import Component, read_components, reduced
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

FONT = "Helvetica"
WIDTH = 24  # characters in a box, so that a README can show seven boxes in a row

_CORE = "statemachine"
_INTERFACES = {"transport", "publishers"}


def architecture_dot() -> str:
    """Return the DOT text. A component is drawn above the components that it imports."""
    components = read_components()
    nodes = "\n".join(_node(component) for component in components.values())
    edges = "\n".join(
        f"  {name} -> {other}" for name, others in reduced(components).items() for other in sorted(others)
    )
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


def _node(component: Component) -> str:
    fill, border = _inks(component)
    name = f"{component.name}/" if component.is_package else component.name
    said = textwrap.wrap(re.split("[:;,]", component.summary.replace("`", ""))[0], WIDTH)  # without the details
    lines = "".join(
        f'<tr><td><font point-size="12" color="{MUTED.light}">{escape(line)}</font></td></tr>' for line in said
    )
    table = (
        f'<table border="0" cellborder="0" cellspacing="0" cellpadding="0">'
        f'<tr><td><font point-size="16"><b>{name}</b></font></td></tr>{lines}</table>'
    )
    colours = f'fillcolor="{fill.light}", color="{border.light}"'
    return f'  {component.name} [id="component-{component.name}", {colours}, label=<{table}>]'


def _inks(component: Component) -> tuple[Ink, Ink]:
    if component.name == _CORE:
        return READY_BOX, TONE_INKS[Tone.HAPPY]
    if component.name in _INTERFACES:
        return RESTARTING_BOX, TONE_INKS[Tone.RECOVERY]
    if not component.imports:
        return LIVE_BOX, LIVE_BORDER
    return BOX, BORDER


def _legend() -> str:
    entries = (
        (TONE_INKS[Tone.HAPPY], "decides; imports no other component"),
        (TONE_INKS[Tone.RECOVERY], "interfaces to other programs"),
        (MUTED, "an arrow: imports (an import that follows from other arrows is left out)"),
    )
    cells = "".join(f'<td><font color="{ink.light}">{said}</font></td>' for ink, said in entries)
    return f'<table border="0" cellborder="0" cellspacing="12"><tr>{cells}</tr></table>'
