"""A story as a sequence diagram: DOT text with every place given, for the layout engine that moves nothing, or Mermaid text.

Participants stand side by side, time runs down. Places are in points, from the top left; DOT counts from the bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from discorder.pictures.cast import Entered, Message, Part, Stroke, messages
from discorder.pictures.palette import BORDER, BOX, CARD, MUTED, TEXT, TONE_INKS, state_inks
from discorder.pictures.scene import Tone
from discorder.pictures.stories import STORIES, run

FONT = "Helvetica"
GAPS = {Part.STORE: 104, Part.GATE: 112, Part.MACHINE: 118, Part.DRIVER: 218, Part.COROUTINES: 172, Part.DISCORD: 116}
"""Points between a lifeline and the one to its left: as narrow as what is said there allows, for the width of a README."""
ARROW = 30  # points down for an arrow
STATE = 40  # points down for a box of a state
HEADER = 46
LABEL_ABOVE = 10  # points from an arrow's line to the middle of its text

_INKS = {Stroke.TRIGGER: TEXT, Stroke.COMMAND: TONE_INKS[Tone.RECOVERY], Stroke.TASKS: MUTED}
_MERMAID_ARROWS = {Stroke.TRIGGER: "->>", Stroke.COMMAND: "-)", Stroke.TASKS: "--)"}
_LEGEND = (
    (Stroke.TRIGGER, "a trigger, with the guards that decided"),
    (Stroke.COMMAND, "a command of the machine"),
    (Stroke.TASKS, "tasks as RUNS[state] asks"),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """Something to draw, ``y`` points below the top."""

    what: Message | Entered
    y: int


def sequence_dot(story: str) -> str:
    """The story of that name in `STORIES` as DOT text."""
    shown = list(messages(run(STORIES[story])))
    parts = _participants(shown)
    columns = _columns(parts)
    placed, bottom = _placed(shown)
    lines = [
        _head(STORIES[story].title),
        *(_participant(part, x, bottom) for part, x in columns.items()),
        *(line for number, one in enumerate(placed) for line in _drawn(number, one, columns)),
        *_legend(columns, bottom),
    ]
    return "\n".join([*lines, "}"]) + "\n"


def sequence_mermaid(story: str) -> str:
    """The same story as Mermaid text, which code hosts draw inline."""
    shown = list(messages(run(STORIES[story])))
    lines = ["sequenceDiagram", f"  title {STORIES[story].title}"]
    lines += [f"  participant {part.name.lower()} as {part.value}" for part in _participants(shown)]
    for one in shown:
        if isinstance(one, Entered):
            lines.append(f"  Note over {Part.MACHINE.name.lower()}: {one.state}")
        else:
            arrow = _MERMAID_ARROWS[one.stroke]
            lines.append(f"  {one.sender.name.lower()}{arrow}{one.receiver.name.lower()}: {one.text}")
    return "\n".join(lines) + "\n"


def _participants(shown: list[Message | Entered]) -> list[Part]:
    taking_part = {part for one in shown if isinstance(one, Message) for part in (one.sender, one.receiver)}
    return [part for part in Part if part in taking_part]


def _columns(parts: list[Part]) -> dict[Part, int]:
    x = 0
    columns = {}
    for place, part in enumerate(parts):
        x += GAPS[part] if place else 0
        columns[part] = x
    return columns


def _placed(shown: list[Message | Entered]) -> tuple[list[Placed], int]:
    y = HEADER
    placed: list[Placed] = []
    for one in shown:
        height = STATE if isinstance(one, Entered) else ARROW
        if isinstance(one, Message) and one.stroke is Stroke.TRIGGER:
            y += 8  # a step begins
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


def _participant(part: Part, x: int, bottom: int) -> str:
    key = part.name.lower()
    box = _attributes(
        shape="box", style="rounded,filled", fillcolor=BOX.light, color=BORDER.light, fontsize="13", margin="0.12,0.06"
    )
    return (
        f"  {key} [{_at(x, 14)}, {box}, label=<<b>{part.value}</b>>]\n  {key}_end [{_at(x, bottom)}, shape=point, "
        f'width=0.02, color="{BORDER.light}"]\n'
        f'  {key} -> {key}_end [dir=none, style=dotted, color="{BORDER.light}"]'
    )


def _drawn(number: int, one: Placed, columns: dict[Part, int]) -> Iterator[str]:
    if isinstance(one.what, Entered):
        fill, border = state_inks(one.what.state)
        box = _attributes(
            shape="box", style="rounded,filled", fillcolor=fill.light, color=border.light, fontsize="14", penwidth="1.6"
        )
        yield f'  s{number} [{_at(columns[Part.MACHINE], one.y)}, {box}, margin="0.14,0.05", label=<<b>{one.what.state}</b>>]'
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


def _text_at(message: Message, columns: dict[Part, int]) -> int:
    """Over the first gap beside the machine, or beside the driver for what is the driver's own."""
    order = list(columns)
    here, there = sorted((order.index(message.sender), order.index(message.receiver)))
    machine = columns[Part.MACHINE]
    if columns[message.sender] > machine or columns[message.receiver] > machine:
        return (columns[order[here]] + columns[order[here + 1]]) // 2
    return (columns[order[there - 1]] + columns[order[there]]) // 2


def _said(message: Message, ink: str) -> str:
    text = escape(message.text)
    if message.stroke is Stroke.TRIGGER:
        name, _, guards = text.partition(" ")
        text = f"<b>{name}</b> {guards}".strip()
    return f'<font color="{ink}">{text}</font>'


def _legend(columns: dict[Part, int], bottom: int) -> Iterator[str]:
    cells = "".join(f'<td><font color="{_INKS[stroke].light}">{said}</font></td>' for stroke, said in _LEGEND)
    middle = max(columns.values()) // 2
    table = f'<table border="0" cellborder="0" cellspacing="12"><tr>{cells}</tr></table>'
    yield f"  legend [{_at(middle, bottom + 22)}, label=<{table}>]"


def _at(x: int, y: int) -> str:
    return f'pos="{x},{-y}!"'


def _attributes(**pairs: str) -> str:
    return ", ".join(f'{key}="{value}"' for key, value in pairs.items())
