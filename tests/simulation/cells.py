"""The table fault × state: which cells there are, why some are impossible, and the order in which seeds go through the others.

A plan aims half of its faults at the next cells of the round, so that seeds that follow one another strike every cell. Which ones
is a function of the seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from discorder.statemachine import RUNS, State
from tests.simulation.faults import Kind

DOWN = "down"
COLUMNS = (*(state.value for state in State if state is not State.DISCONNECTED), DOWN)
STRIDE = 17  # cells of the round by which one seed is ahead of the one before: about as many as a plan strikes

ON_A_CONNECTION = frozenset(
    {
        Kind.HALF_OPEN,
        Kind.RESET,
        Kind.TRUNCATED,
        Kind.WRITE_HANGS,
        Kind.RECONNECT,
        Kind.INVALID_RESUMABLE,
        Kind.INVALID,
        Kind.CLOSE,
        Kind.CLOSE_FATAL,
        Kind.NO_ACK,
        Kind.ASK_BEAT,
        Kind.SECOND_READY,
        Kind.GARBAGE,
    }
)
ON_A_PROCESS = frozenset({Kind.KILL, Kind.STOP, Kind.GOODBYE, Kind.HOST_SLEEP, Kind.THROW, Kind.RESTART, Kind.PAUSE})
WITHOUT_CONNECTION = frozenset({State.RESTARTING, State.EXITED, DOWN})


def impossible(kind: Kind, column: str) -> str:
    """Return why ``kind`` cannot strike in this column; "" where it can."""
    if kind in ON_A_CONNECTION and column in WITHOUT_CONNECTION:
        return "there is no connection"
    if kind is Kind.SECOND_READY and column in {State.CONNECTING, State.IDENTIFYING}:
        return "there was no first one"
    if kind in ON_A_PROCESS and column == DOWN:
        return "there is no process"
    if kind in {Kind.STOP, Kind.GOODBYE, Kind.RESTART, Kind.PAUSE} and column in {State.STOPPING, State.EXITED}:
        return "a stop is under way"
    if kind is Kind.RESTART and column in {State.IDENTIFYING, State.UNHEALTHY}:
        return "the table refuses it there"
    if kind is Kind.THROW and not RUNS[State(column)]:
        return "no task runs"
    return ""


def round_of(seed: int) -> Iterator[tuple[Kind, State]]:
    """The cells, for ever, from where ``seed`` begins; Disconnected stands for the time between two processes."""
    at = seed * STRIDE
    while True:
        yield CELLS[at % len(CELLS)]
        at += 1


def _cells() -> tuple[tuple[Kind, State], ...]:
    cells = [
        (kind, State.DISCONNECTED if column == DOWN else State(column))
        for kind in Kind
        for column in COLUMNS
        if not impossible(kind, column)
    ]
    random.Random("cells").shuffle(cells)  # neighbours have nothing in common
    return tuple(cells)


CELLS = _cells()
