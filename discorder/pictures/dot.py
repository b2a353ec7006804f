"""Write the life cycle as DOT text. Uses Latin-1 characters only, because the renderer has font metrics for no others."""

from __future__ import annotations

import textwrap
from html import escape

from discorder.pictures.graph_model import LIVE_TITLE, TONES, Arrow, Box, EdgeLabel, Graph, Tone, build_graph, words
from discorder.pictures.palette import (
    BORDER,
    CARD,
    CURRENT,
    LIVE_BORDER,
    LIVE_BOX,
    MUTED,
    RULE,
    TEXT,
    TONE_INKS,
    state_inks,
)
from discorder.pictures.trace_path import TracePath
from discorder.statemachine.table import FINAL, INITIAL, LIVE, State

FONT = "Helvetica"
MEANING_WIDTH = 31  # characters, so that a README can show two boxes in a row
NAME_SIZE, TEXT_SIZE, SMALL_SIZE, ACTIONS_SIZE = 18, 13, 12, 11  # points; `page_svg.py` distinguishes the texts by them

_HEAD = f"""\
digraph life_cycle {{
  graph [rankdir=TB, compound=true, newrank=true, bgcolor="{CARD.light}", pad=0.25, nodesep=0.52, ranksep=0.45,
         fontname="{FONT}", fontsize={TEXT_SIZE}, fontcolor="{MUTED.light}"]
  node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize={TEXT_SIZE}, fontcolor="{TEXT.light}", margin="0.16,0.09"]
  edge [fontname="{FONT}", fontsize={TEXT_SIZE}, arrowsize=0.8]
"""


def dot(highlight: State | None = None, trace: TracePath | None = None, *, legend: bool = True) -> str:
    """Return the DOT text, with ``highlight`` marked as the current state.

    With ``trace``: number its steps, mark its last state, and fade the states and arrows that are not on it.
    """
    graph = build_graph()
    current = trace.end if trace is not None and highlight is None else highlight
    boxes = {box.state: _node(box, current, trace) for box in graph.boxes}
    live = "\n".join(f"  {node}" for state, node in boxes.items() if state in LIVE)
    others = "\n".join(node for state, node in boxes.items() if state not in LIVE)
    edges = "\n".join(_edge(arrow, trace) for arrow in graph.arrows)
    said = _legend(graph, trace) if legend else ""
    return f"{_HEAD}{_cluster(live)}\n{others}\n{_initial_dot()}\n{edges}\n{said}\n}}\n"


def _cluster(content: str) -> str:
    return f"""\
  subgraph cluster_live {{
    id="live"; class="live"; label="{LIVE_TITLE}"; labeljust=l; margin=16;
    style="rounded,filled"; fillcolor="{LIVE_BOX.light}"; color="{LIVE_BORDER.light}"; penwidth=1.5;
{content}
  }}"""


def _initial_dot() -> str:
    return (
        f'  initial [shape=circle, label="", width=0.16, fixedsize=true, style=filled, fillcolor="{TEXT.light}",'
        f' color="{TEXT.light}"]\n'
        f'  initial -> {INITIAL.value} [id="edge-initial", color="{TEXT.light}"]'
    )


# -------------------------------------------------------------------------------------------------- boxes


def _node(box: Box, highlight: State | None, trace: TracePath | None) -> str:
    untouched = trace is not None and not trace.touches(box.state)
    fill, border = (CARD, RULE) if untouched else state_inks(box.state)
    current = box.state is highlight
    attributes = {
        "id": f"state-{box.state.value}",
        "class": "state current" if current else "state",
        "fillcolor": CURRENT.light if current else fill.light,
        "color": border.light,
        "penwidth": "3" if current else "1.3" if border is BORDER else "2.2",
    }
    if box.state is FINAL:
        attributes["peripheries"] = "2"
    return f"  {box.state.value} [{_attributes(attributes)}, label=<{_box_label(box, trace)}>]"


def _box_label(box: Box, trace: TracePath | None) -> str:
    parts = [f'<font point-size="{NAME_SIZE}"><b>{box.state.value}</b></font>']
    parts += [_small(escape(line)) for line in textwrap.wrap(box.meaning, MEANING_WIDTH)]
    rows = [f"<tr><td>{part}</td></tr>" for part in parts]
    if box.internal:
        rows.append('<tr><td height="4"></td></tr>')
    for transition in box.internal:
        guards = f" [{transition.guards}]" if transition.guards else ""
        said = f"{', '.join(transition.triggers)}{guards} / {', '.join(words(action) for action in transition.actions)}"
        numbers = "" if trace is None else trace.within(box.state, transition.triggers)
        rows.append(
            f'<tr><td><font point-size="{ACTIONS_SIZE}">{_steps(numbers)}<i>{escape(said)}</i></font></td></tr>'
        )
    return f'<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{"".join(rows)}</table>'


def _steps(numbers: str) -> str:
    """Format the step numbers of a trace."""
    return f'<font color="{TEXT.light}"><b>{numbers}</b></font>  ' if numbers else ""


def _small(text: str) -> str:
    return f'<font point-size="{SMALL_SIZE}" color="{MUTED.light}">{text}</font>'


# -------------------------------------------------------------------------------------------------- arrows


def _edge(arrow: Arrow, trace: TracePath | None) -> str:
    used = None if trace is None else trace.triggers_along(arrow)
    ink = (RULE if used is not None and not used else TONE_INKS[arrow.tone]).light
    attributes = {
        "id": f"edge-{arrow.key}",
        "class": arrow.tone.value,
        "color": ink,
        "fontcolor": ink,
        "penwidth": {Tone.HAPPY: "2.6", Tone.STOP: "1.2"}.get(arrow.tone, "1.7"),
    }
    if arrow.tone is Tone.STOP:
        attributes["style"] = "dashed"
    if arrow.tone is Tone.HAPPY:
        attributes["weight"] = "8"  # keeps these arrows straight
    if arrow.from_live_box:
        attributes["ltail"] = "cluster_live"
    source = State.READY if arrow.from_live_box else arrow.sources[0]
    label = _edge_label(arrow, trace)
    return f"  {source.value} -> {arrow.target.value} [{_attributes(attributes)}, label=<{label}>]"


def _edge_label(arrow: Arrow, trace: TracePath | None) -> str:
    lines = [_line(line) for line in arrow.labels]
    if trace is not None:
        used = trace.triggers_along(arrow)
        lines = [
            said if line.trigger in used else f'<font color="{RULE.light}">{line.trigger}</font>'
            for line, said in zip(arrow.labels, lines, strict=True)
        ]
        lines[0] = _steps(trace.along(arrow)) + lines[0]
    rows = "".join(f'<tr><td width="5"></td><td align="left">{line}</td></tr>' for line in lines)
    return f'<table border="0" cellborder="0" cellspacing="0" cellpadding="1">{rows}</table>'


def _line(line: EdgeLabel) -> str:
    said = f"<b>{line.trigger}</b>"
    if line.guards:
        gap = '<br align="left"/>' if "," in line.guards else " "  # several guards are written on a line of their own
        said += f"{gap}[{escape(line.guards)}]"
    return f"{said} {_small(escape(line.where))}" if line.where else said


def _legend(graph: Graph, trace: TracePath | None) -> str:
    used = {arrow.tone for arrow in graph.arrows}
    entries = "".join(
        f'<td><font color="{TONE_INKS[tone].light}"><b>{escape(said)}</b></font></td>'
        for tone, said in TONES.items()
        if tone in used
    )
    said = "numbered guards: the first that holds decides"
    if trace is not None:
        said = f"the path of {trace.title}: {len(trace.steps)} steps, their numbers in bold"
    note = f'<tr><td colspan="{len(used)}">{_small(escape(said))}</td></tr>'
    table = f'<table border="0" cellborder="0" cellspacing="8" cellpadding="1"><tr>{entries}</tr>{note}</table>'
    return f"  labelloc=b; label=<{table}>"


def _attributes(pairs: dict[str, str]) -> str:
    return ", ".join(f'{key}="{value}"' for key, value in pairs.items())
