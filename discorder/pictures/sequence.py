"""Write a scenario as a sequence diagram: DOT text with fixed positions, or Mermaid text.

Positions are in points from the top left; DOT counts from the bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from discorder.pictures.graph_model import Tone
from discorder.pictures.palette import BORDER, BOX, CARD, MUTED, TEXT, TONE_INKS, state_inks
from discorder.pictures.participants import Entered, Message, Participant, Stroke, messages
from discorder.pictures.scenarios import SCENARIOS, run

FONT = "Helvetica"
SPACING = {
    Participant.STORE: 104,
    Participant.GATE: 112,
    Participant.MACHINE: 118,
    Participant.DRIVER: 218,
    Participant.COROUTINES: 172,
    Participant.DISCORD: 116,
}
"""Points between a participant and the one to its left: as narrow as the texts allow, for the width of a README."""
ARROW = 30  # points of height of an arrow
STATE = 40  # points of height of the box of a state
HEADER = 46
LABEL_ABOVE = 10  # points from an arrow's line to the middle of its text

_INKS = {Stroke.TRIGGER: TEXT, Stroke.COMMAND: TONE_INKS[Tone.RECOVERY], Stroke.TASKS: MUTED}
_MERMAID_ARROWS = {Stroke.TRIGGER: "->>", Stroke.COMMAND: "-)", Stroke.TASKS: "--)"}
_LEGEND = (
    (Stroke.TRIGGER, "a trigger, with the guards that decided"),
    (Stroke.COMMAND, "a command of the machine"),
    (Stroke.TASKS, "tasks, by RUNS[state]"),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """An arrow or a box, ``y`` points below the top."""

    what: Message | Entered
    y: int


def sequence_dot(scenario: str) -> str:
    """Return the scenario of that name in `SCENARIOS` as DOT text."""
    shown = list(messages(run(SCENARIOS[scenario])))
    participants = _participants(shown)
    columns = _columns(participants)
    placed, bottom = _placed(shown)
    lines = [
        _head(SCENARIOS[scenario].title),
        *(_participant(participant, x, bottom) for participant, x in columns.items()),
        *(line for number, one in enumerate(placed) for line in _drawn(number, one, columns)),
        *_legend(columns, bottom),
    ]
    return "\n".join([*lines, "}"]) + "\n"


def sequence_mermaid(scenario: str) -> str:
    """Return the scenario as Mermaid text, which code hosts draw inline."""
    shown = list(messages(run(SCENARIOS[scenario])))
    lines = ["sequenceDiagram", f"  title {SCENARIOS[scenario].title}"]
    lines += [
        f"  participant {participant.name.lower()} as {participant.value}" for participant in _participants(shown)
    ]
    for one in shown:
        if isinstance(one, Entered):
            lines.append(f"  Note over {Participant.MACHINE.name.lower()}: {one.state}")
        else:
            arrow = _MERMAID_ARROWS[one.stroke]
            lines.append(f"  {one.sender.name.lower()}{arrow}{one.receiver.name.lower()}: {one.text}")
    return "\n".join(lines) + "\n"


def _participants(shown: list[Message | Entered]) -> list[Participant]:
    taking_part = {
        participant for one in shown if isinstance(one, Message) for participant in (one.sender, one.receiver)
    }
    return [participant for participant in Participant if participant in taking_part]


def _columns(participants: list[Participant]) -> dict[Participant, int]:
    x = 0
    columns = {}
    for place, participant in enumerate(participants):
        x += SPACING[participant] if place else 0
        columns[participant] = x
    return columns


def _placed(shown: list[Message | Entered]) -> tuple[list[Placed], int]:
    y = HEADER
    placed: list[Placed] = []
    for one in shown:
        height = STATE if isinstance(one, Entered) else ARROW
        if isinstance(one, Message) and one.stroke is Stroke.TRIGGER:
            y += 8  # separates the steps
        elif placed and isinstance(placed[-1].what, Entered):
            y += 6  # room for the text above the first arrow
        placed.append(Placed(one, y + height // 2))
        y += height
    return placed, y + 12


def _head(title: str) -> str:
    return f"""\
digraph sequence {{
  graph [layout=neato, splines=line, bgcolor="{CARD.light}", pad=0.3, outputorder=edgesfirst, fontname="{FONT}", fontsize=16,
         fontcolor="{TEXT.light}", labelloc=t, label="{title}"]
  node [shape=plain, fontname="{FONT}", fontsize=12, fontcolor="{TEXT.light}"]
  edge [fontname="{FONT}", arrowsize=0.7]"""


def _participant(participant: Participant, x: int, bottom: int) -> str:
    key = participant.name.lower()
    box = _attributes(
        shape="box", style="rounded,filled", fillcolor=BOX.light, color=BORDER.light, fontsize="13", margin="0.12,0.06"
    )
    return (
        f"  {key} [{_at(x, 14)}, {box}, label=<<b>{participant.value}</b>>]\n  {key}_end [{_at(x, bottom)}, shape=point, "
        f'width=0.02, color="{BORDER.light}"]\n'
        f'  {key} -> {key}_end [dir=none, style=dotted, color="{BORDER.light}"]'
    )


def _drawn(number: int, one: Placed, columns: dict[Participant, int]) -> Iterator[str]:
    if isinstance(one.what, Entered):
        fill, border = state_inks(one.what.state)
        box = _attributes(
            shape="box", style="rounded,filled", fillcolor=fill.light, color=border.light, fontsize="14", penwidth="1.6"
        )
        position = _at(columns[Participant.MACHINE], one.y)
        yield f'  s{number} [{position}, {box}, margin="0.14,0.05", label=<<b>{one.what.state}</b>>]'
        return
    message = one.what
    sender, receiver, ink = columns[message.sender], columns[message.receiver], _INKS[message.stroke].light
    yield f'  a{number} [{_at(sender, one.y)}, shape=point, width=0.02, color="{ink}"]'
    yield f'  b{number} [{_at(receiver, one.y)}, shape=point, width=0.02, color="{ink}"]'
    style = "dashed" if message.stroke is Stroke.TASKS else "solid"
    yield f'  a{number} -> b{number} [color="{ink}", penwidth=1.4, style={style}]'
    middle = _text_at(message, columns)
    yield (
        f"  t{number} [{_at(middle, one.y - LABEL_ABOVE)}, label=<{_said(message, ink)}>, shape=box, style=filled, "
        f'fillcolor="{CARD.light}", color="{CARD.light}", penwidth=0, height=0.15, margin="0.03,0.01"]'
    )


def _text_at(message: Message, columns: dict[Participant, int]) -> int:
    """Return the x of a message's text: in the space beside the machine, or beside the driver for the driver's own messages."""
    order = list(columns)
    here, there = sorted((order.index(message.sender), order.index(message.receiver)))
    machine = columns[Participant.MACHINE]
    if columns[message.sender] > machine or columns[message.receiver] > machine:
        return (columns[order[here]] + columns[order[here + 1]]) // 2
    return (columns[order[there - 1]] + columns[order[there]]) // 2


def _said(message: Message, ink: str) -> str:
    text = escape(message.text)
    if message.stroke is Stroke.TRIGGER:
        name, _, guards = text.partition(" ")
        text = f"<b>{name}</b> {guards}".strip()
    return f'<font color="{ink}">{text}</font>'


def _legend(columns: dict[Participant, int], bottom: int) -> Iterator[str]:
    cells = "".join(f'<td><font color="{_INKS[stroke].light}">{said}</font></td>' for stroke, said in _LEGEND)
    middle = max(columns.values()) // 2
    table = f'<table border="0" cellborder="0" cellspacing="12"><tr>{cells}</tr></table>'
    yield f"  legend [{_at(middle, bottom + 22)}, label=<{table}>]"


def _at(x: int, y: int) -> str:
    return f'pos="{x},{-y}!"'


def _attributes(**pairs: str) -> str:
    return ", ".join(f'{key}="{value}"' for key, value in pairs.items())
