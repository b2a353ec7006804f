"""Build the graph of the life cycle from the transition table: boxes with their internal transitions, arrows with their labels.

The DOT and the Mermaid text are both written from this graph, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from discorder.statemachine.check import enabled, valuations
from discorder.statemachine.table import LIVE, ROWS, Name, Row, State
from discorder.statemachine.terms import Action, Guard

LIVE_TITLE = "a connection exists"
MANY_GUARDS = 2  # with more guards than this, the rows of a pair are numbered


class Tone(StrEnum):
    """The meaning of an arrow, shown by its colour."""

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
class EdgeLabel:
    """One trigger on an arrow. ``where`` names the states of the live box to which it applies; "" means all of them."""

    trigger: Name
    guards: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """An edge from one state, or from the box of the live states, to another. ``covers``: the pairs of the table."""

    sources: tuple[State, ...]
    target: State
    tone: Tone
    labels: tuple[EdgeLabel, ...]
    covers: frozenset[tuple[State, Name]]

    @property
    def from_live_box(self) -> bool:
        """Whether the arrow starts at the box around the live states."""
        return len(self.sources) > 1

    @property
    def key(self) -> str:
        """A unique, stable name; the id of the edge in the SVG."""
        origin = "live" if self.from_live_box else self.sources[0].value
        return f"{origin}-{self.target.value}-{self.tone.value}"


@dataclass(frozen=True, slots=True)
class InternalTransition:
    """Triggers that a state handles without leaving it, with the actions."""

    triggers: tuple[Name, ...]
    guards: str
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A state."""

    state: State
    meaning: str
    internal: tuple[InternalTransition, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The content of a picture of the life cycle."""

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def build_graph(rows: Sequence[Row] = ROWS) -> Graph:
    """Build the graph of ``rows``, in the order of the table."""
    return Graph(
        boxes=tuple(Box(state, state.meaning, tuple(_internal(state, rows))) for state in State),
        arrows=tuple(_arrows(rows)),
    )


def words(name: str) -> str:
    """Return the name of a guard or an action as words."""
    return name.replace("_", " ")


def tone_of(source: State, row: Row) -> Tone:
    """Return the tone of one transition, which depends on its actions and its target."""
    if row.trigger is Name.STOP or source is State.STOPPING:
        return Tone.STOP
    tones = {
        Action.NOTE_CAUSE: Tone.FAILURE,
        Action.NOTE_HOST_FAILURE: Tone.FAILURE,
        Action.NOTE_PLANNED: Tone.PLANNED,
        Action.NOTE_REFUSAL: Tone.PARKED,
    }
    for action in row.actions:
        if action in tones:
            return tones[action]
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
        yield Arrow(sources, target, tone, tuple(_labels(sources, steps, rows)), covers)


def _live_states() -> tuple[State, ...]:
    return tuple(state for state in State if state in LIVE)


def _labels(box: tuple[State, ...], steps: Sequence[tuple[State, Row]], rows: Sequence[Row]) -> Iterator[EdgeLabel]:
    origins: dict[tuple[Name, str], list[State]] = {}
    for source, row in steps:
        origins.setdefault((row.trigger, guard_words(source, row, rows)), []).append(source)
    lines = [EdgeLabel(trigger, guards, _where(box, sources)) for (trigger, guards), sources in origins.items()]
    yield from sorted(lines, key=lambda line: line.where != "")


def _where(box: tuple[State, ...], sources: Iterable[State]) -> str:
    inside = [state for state in box if state in set(sources)]
    outside = [state for state in box if state not in inside]
    if not outside:
        return ""
    return f"not in {outside[0]}" if len(outside) == 1 else f"in {', '.join(inside)}"


def _internal(state: State, rows: Sequence[Row]) -> Iterator[InternalTransition]:
    same: dict[tuple[str, tuple[Action, ...]], list[Name]] = {}
    for row in rows:
        if row.target is None and not row.idle and state in row.sources:
            same.setdefault((guard_words(state, row, rows), row.actions), []).append(row.trigger)
    for (guards, actions), triggers in same.items():
        yield InternalTransition(tuple(triggers), guards, actions)


# -------------------------------------------------------------------------------------------------- guards


def guard_words(state: State, row: Row, rows: Sequence[Row] = ROWS) -> str:
    """Return the guards of a row in words.

    If the rows of a pair have many guards, number the rows ("the first that holds decides") and leave out the guards that an
    earlier row implies.
    """
    rivals = [other for other in rows if other.trigger is row.trigger and state in other.sources]
    if all(len(other.when) + len(other.unless) <= MANY_GUARDS for other in rivals):
        return ", ".join(_literals(row))
    index = rivals.index(row)
    literals = _literals(_shortest(rivals, index))
    return f"{index + 1}. {', '.join(literals) or 'otherwise'}"


def _literals(row: Row) -> list[str]:
    return [words(guard) for guard in row.when] + [f"not {words(guard)}" for guard in row.unless]


def _shortest(rivals: Sequence[Row], index: int) -> Row:
    """Return ``rivals[index]`` without the guards that make no difference if no earlier row holds."""
    row = rivals[index]
    guards = sorted({guard for rival in rivals for guard in (*rival.when, *rival.unless)})
    undecided = [
        valuation
        for valuation in valuations(guards)
        if not any(enabled(earlier, valuation) for earlier in rivals[:index])
    ]
    for guard in (*row.unless, *row.when):
        shorter = _without(row, guard)
        if all(enabled(shorter, valuation) == enabled(rivals[index], valuation) for valuation in undecided):
            row = shorter
    return row


def _without(row: Row, guard: Guard) -> Row:
    return Row(
        row.sources,
        row.trigger,
        row.target,
        row.actions,
        row.why,
        when=tuple(one for one in row.when if one is not guard),
        unless=tuple(one for one in row.unless if one is not guard),
    )
