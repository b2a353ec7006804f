"""Write the life cycle as Mermaid text, which code hosts draw inline.

As a flowchart, because edges of a stateDiagram cannot have a colour or start at a box.
"""

from __future__ import annotations

from discorder.pictures.graph_model import LIVE_TITLE, Arrow, Box, EdgeLabel, Tone, build_graph, words
from discorder.pictures.palette import CURRENT, LIVE_BORDER, TEXT, TONE_INKS, state_inks
from discorder.statemachine.table import FINAL, INITIAL, LIVE, State

_ARROWS = {Tone.HAPPY: "==>", Tone.STOP: "-.->"}


def mermaid(highlight: State | None = None) -> str:
    """Return the Mermaid text, with ``highlight`` marked as the current state."""
    graph = build_graph()
    lines = [
        "flowchart TB",
        "  initial(( ))",
        f'  subgraph live["{LIVE_TITLE}"]',
        *(f"    {_node(box)}" for box in graph.boxes if box.state in LIVE),
        "  end",
        *(f"  {_node(box)}" for box in graph.boxes if box.state not in LIVE),
        f"  initial --> {INITIAL.value}",
        *(f"  {_edge(arrow)}" for arrow in graph.arrows),
        f"  style initial fill:{TEXT.light},stroke:{TEXT.light}",
        f"  style live fill:none,stroke:{LIVE_BORDER.light}",
        *(f"  {_style(box.state, highlight)}" for box in graph.boxes),
        *(
            f"  linkStyle {number} stroke:{TONE_INKS[arrow.tone].light}"
            for number, arrow in enumerate(graph.arrows, start=1)
        ),
    ]
    return "\n".join(lines) + "\n"


def _node(box: Box) -> str:
    parts = [f"<b>{box.state.value}</b>", box.meaning]
    for transition in box.internal:
        said = f"{', '.join(transition.triggers)}{_bracketed(transition.guards)}"
        parts.append(f"<i>{said} / {', '.join(words(action) for action in transition.actions)}</i>")
    opening, closing = ('[["', '"]]') if box.state is FINAL else ('("', '")')
    return f"{box.state.value}{opening}{'<br>'.join(parts)}{closing}"


def _edge(arrow: Arrow) -> str:
    source = "live" if arrow.from_live_box else arrow.sources[0].value
    label = "<br>".join(_line(line) for line in arrow.labels)
    return f'{source} {_ARROWS.get(arrow.tone, "-->")}|"{label}"| {arrow.target.value}'


def _line(line: EdgeLabel) -> str:
    where = f" {line.where}" if line.where else ""
    return f"{line.trigger}{_bracketed(line.guards)}{where}"


def _bracketed(guards: str) -> str:
    return f" [{guards}]" if guards else ""


def _style(state: State, highlight: State | None) -> str:
    fill, border = state_inks(state)
    shown = CURRENT if state is highlight else fill
    return f"style {state.value} fill:{shown.light},stroke:{border.light},color:{TEXT.light}"
