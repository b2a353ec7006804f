"""Define the colours of the pictures, each in a light and a dark version, and the style sheet that switches between them.

The SVG uses the light colours; its style sheet replaces them if the reader's system is dark. Each picture has a background
of its own, so that it is legible on any page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from discorder.pictures.graph_model import Tone
from discorder.statemachine.table import LIVE, State

SVG_CLASS = "discorder-picture"  # the scope of every CSS rule, so that an inlined picture does not affect its page


@dataclass(frozen=True, slots=True)
class Ink:
    """One colour, for a light and for a dark background."""

    light: str
    dark: str


CARD = Ink("#ffffff", "#0d1117")
TEXT = Ink("#1f2328", "#e6edf3")
MUTED = Ink("#59636e", "#9aa4af")
BORDER = Ink("#6e7781", "#7d8590")
RULE = Ink("#d8dee4", "#30363d")
BOX = Ink("#f6f8fa", "#161b22")
LIVE_BOX = Ink("#f1f8f4", "#0f1c17")
LIVE_BORDER = Ink("#94c9a4", "#2b5a3a")
LIVE_STATE = Ink("#fefefe", "#12221a")
READY_BOX = Ink("#d2f4dc", "#14432a")
UNHEALTHY_BOX = Ink("#ffe9e7", "#43191c")
RESTARTING_BOX = Ink("#dff1ff", "#10305a")
CURRENT = Ink("#ffd33d", "#8a6100")

TONE_INKS: Mapping[Tone, Ink] = {
    Tone.HAPPY: Ink("#1a7f37", "#3fb950"),
    Tone.FAILURE: Ink("#cf222e", "#ff7b72"),
    Tone.PLANNED: Ink("#8250df", "#c297ff"),
    Tone.PARKED: Ink("#9a6700", "#e3a72f"),
    Tone.RECOVERY: Ink("#0969da", "#63acff"),
    Tone.STOP: Ink("#717a85", "#8b949e"),
}

_SPECIAL: Mapping[State, tuple[Ink, Ink]] = {
    State.READY: (READY_BOX, TONE_INKS[Tone.HAPPY]),
    State.UNHEALTHY: (UNHEALTHY_BOX, TONE_INKS[Tone.FAILURE]),
    State.RESTARTING: (RESTARTING_BOX, TONE_INKS[Tone.RECOVERY]),
}

_INKS = (
    *(CARD, TEXT, MUTED, BORDER, RULE, BOX, LIVE_BOX, LIVE_BORDER, LIVE_STATE),
    *(READY_BOX, UNHEALTHY_BOX, RESTARTING_BOX, CURRENT),
    *TONE_INKS.values(),
)


def state_inks(state: State) -> tuple[Ink, Ink]:
    """Return the fill and the border of a state's box."""
    if state in _SPECIAL:
        return _SPECIAL[state]
    return (LIVE_STATE if state in LIVE else BOX, BORDER)


def style_sheet() -> str:
    """Return the CSS of the SVG: the dark colours, and the style of the current state (``class="current"`` on its box)."""
    current = f".{SVG_CLASS} .state.current > path"
    dark = "\n".join(
        f".{SVG_CLASS} [{attribute}='{ink.light}'] {{ {attribute}: {ink.dark}; }}"
        for ink in _INKS
        for attribute in ("fill", "stroke")
    )
    return (
        f"{current} {{ fill: {CURRENT.light}; stroke-width: 3; }}\n"
        f"@media (prefers-color-scheme: dark) {{\n{dark}\n{current} {{ fill: {CURRENT.dark}; }}\n}}\n"
    )
