"""What the life-cycle pictures show, read off the table: boxes with what happens inside, arrows with their lines.

Shared by the DOT and the Mermaid text, so that they cannot differ. It decides what belongs together and in which tone, never
how it looks; and it knows nothing about the life cycle but what the table says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from discorder.statemachine.check import enabled, valuations
from discorder.statemachine.table import LIVE, ROWS, Name, Row, State
from discorder.statemachine.terms import Action, Guard

LIVE_TITLE = "a connection exists"
MANY_ATOMS = 2  # a row with more guards than this is written as "the first that holds decides"


class Tone(StrEnum):
    """What an arrow means to a reader at a glance. Pictures give each a colour."""

    HAPPY = "happy"
    FAILURE = "failure"
    PLANNED = "planned"
    PARKED = "parked"
    RECOVERY = "recovery"
    STOP = "stop"


TONES: Mapping[Tone, str] = {
    Tone.HAPPY: "the way to Ready",
    Tone.FAILURE: "failure",
    Tone.PLANNED: "planned interruption",
    Tone.PARKED: "parked",
    Tone.RECOVERY: "recovery",
    Tone.STOP: "stop",
}
"""The legend."""


@dataclass(frozen=True, slots=True)
class Line:
    """One trigger on an arrow. ``where`` narrows an arrow of the live box to some of its states; "" is all of them."""

    trigger: Name
    guards: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """A drawn edge: from one state, or from the box of the live ones, to another. ``covers`` are the pairs it stands for."""

    sources: tuple[State, ...]
    target: State
    tone: Tone
    lines: tuple[Line, ...]
    covers: frozenset[tuple[State, Name]]

    @property
    def from_live_box(self) -> bool:
        """Whether it leaves the box around all live states."""
        return len(self.sources) > 1

    @property
    def key(self) -> str:
        """Unique and stable; becomes the id of the edge in the SVG."""
        origin = "live" if self.from_live_box else self.sources[0].value
        return f"{origin}-{self.target.value}-{self.tone.value}"


@dataclass(frozen=True, slots=True)
class Inner:
    """Triggers that a state handles without leaving it, and what is done."""

    triggers: tuple[Name, ...]
    guards: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A state as it is drawn."""

    state: State
    meaning: str
    inner: tuple[Inner, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a picture of the life cycle shows."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def build_scene(rows: Sequence[Row] = ROWS) -> Scene:
    """The picture of ``rows``, in the order of the table."""
    return Scene(
        boxes=tuple(Box(state, state.meaning, tuple(_inner(state, rows))) for state in State),
        arrows=tuple(_arrows(rows)),
    )


def words(name: str) -> str:
    """A guard or an action as a reader says it."""
    return name.replace("_", " ")


def tone_of(source: State, row: Row) -> Tone:
    """The tone of one transition, told from what it notes and where it leads."""
    if row.trigger is Name.STOP or source is State.STOPPING:
        return Tone.STOP
    noted = {
        Action.NOTE_CAUSE: Tone.FAILURE,
        Action.NOTE_PLANNED: Tone.PLANNED,
        Action.NOTE_REFUSAL: Tone.PARKED,
    }
    for action in row.actions:
        if action in noted:
            return noted[action]
    if row.target is State.EXITED:
        return Tone.FAILURE
    if State.RESTARTING in {source, row.target}:
        return Tone.RECOVERY
    return Tone.HAPPY


# -------------------------------------------------------------------------------------------------- arrows


def _arrows(rows: Sequence[Row]) -> Iterator[Arrow]:
    gathered: dict[tuple[tuple[State, ...], State, Tone], list[tuple[State, Row]]] = {}
    for row in rows:
        for source in row.sources:
            if row.target is not None:
                origin = _live_states() if source in LIVE and row.target not in LIVE else (source,)
                gathered.setdefault((origin, row.target, tone_of(source, row)), []).append((source, row))
    for (sources, target, tone), steps in gathered.items():
        covers = frozenset((source, row.trigger) for source, row in steps)
        yield Arrow(sources, target, tone, tuple(_lines(sources, steps, rows)), covers)


def _live_states() -> tuple[State, ...]:
    return tuple(state for state in State if state in LIVE)


def _lines(box: tuple[State, ...], steps: Sequence[tuple[State, Row]], rows: Sequence[Row]) -> Iterator[Line]:
    origins: dict[tuple[Name, str], list[State]] = {}
    for source, row in steps:
        origins.setdefault((row.trigger, guard_words(source, row, rows)), []).append(source)
    lines = [Line(trigger, guards, _where(box, sources)) for (trigger, guards), sources in origins.items()]
    yield from sorted(lines, key=lambda line: line.where != "")


def _where(box: tuple[State, ...], sources: Iterable[State]) -> str:
    inside = [state for state in box if state in set(sources)]
    outside = [state for state in box if state not in inside]
    if not outside:
        return ""
    return f"not in {outside[0]}" if len(outside) == 1 else f"in {', '.join(inside)}"


def _inner(state: State, rows: Sequence[Row]) -> Iterator[Inner]:
    same: dict[tuple[str, tuple[Action, ...]], list[Name]] = {}
    for row in rows:
        if row.target is None and state in row.sources:
            same.setdefault((guard_words(state, row, rows), row.actions), []).append(row.trigger)
    for (guards, actions), triggers in same.items():
        yield Inner(tuple(triggers), guards, actions)


# -------------------------------------------------------------------------------------------------- guards


def guard_words(state: State, row: Row, rows: Sequence[Row] = ROWS) -> str:
    """The guards of a row in words.

    Where the rows of a pair need many atoms, they are numbered, "the first that holds decides", and what an earlier row has
    decided already is left out.
    """
    rivals = [other for other in rows if other.trigger is row.trigger and state in other.sources]
    if all(len(other.when) + len(other.unless) <= MANY_ATOMS for other in rivals):
        return ", ".join(_literals(row))
    place = rivals.index(row)
    literals = _literals(_shortest(rivals, place))
    return f"{place + 1}. {', '.join(literals) or 'otherwise'}"


def _literals(row: Row) -> list[str]:
    return [words(guard) for guard in row.when] + [f"not {words(guard)}" for guard in row.unless]


def _shortest(rivals: Sequence[Row], place: int) -> Row:
    """``rivals[place]`` without the atoms that do not matter once the rows before it did not hold."""
    row = rivals[place]
    guards = sorted({guard for rival in rivals for guard in (*rival.when, *rival.unless)})
    undecided = [
        valuation
        for valuation in valuations(guards)
        if not any(enabled(earlier, valuation) for earlier in rivals[:place])
    ]
    for guard in (*row.unless, *row.when):
        shorter = _without(row, guard)
        if all(enabled(shorter, valuation) == enabled(rivals[place], valuation) for valuation in undecided):
            row = shorter
    return row


def _without(row: Row, guard: Guard) -> Row:
    return Row(
        row.sources,
        row.trigger,
        row.target,
        row.actions,
        row.why,
        when=tuple(atom for atom in row.when if atom is not guard),
        unless=tuple(atom for atom in row.unless if atom is not guard),
    )
