"""Define why a connection ended and how a shard ended, and derive both from a trigger. The table decides what follows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from discorder.statemachine.backoff import FLOOR, INVALIDATED, RATE_LIMITED, Window, asked_pause
from discorder.statemachine.close_codes import CloseClass
from discorder.statemachine.table import Name
from discorder.statemachine.triggers import (
    Closed,
    Congested,
    ConnectFailed,
    InvalidResumable,
    InvalidSession,
    Restart,
    SlotDeferred,
    Trigger,
)


class CauseKind(Enum):
    """Classify the end of a connection. Each end has exactly one kind."""

    PLANNED = "planned"
    FAILURE = "failure"
    FATAL = "fatal"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Cause:
    """Record why a connection ended. The first cause of a connection counts; opening the next socket clears it."""

    kind: CauseKind
    trigger: Name
    text: str
    error: BaseException | None = None
    pause: Window = FLOOR  # minimum wait before the redial, whatever the ladder says


class EndKind(Enum):
    """Classify the end of a shard for the caller."""

    ON_REQUEST = "on request"
    FATAL = "fatal"
    FAILURE = "failure"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Ended:
    """Record how a shard ended. ``error`` ended the last connection (None on request); ``attempts`` is the failures in a row."""

    kind: EndKind
    error: BaseException | None = None
    attempts: int = 0


INTERRUPTIONS = {
    Name.RECONNECT: "op 7: Discord asked for a new connection",
    Name.INVALID_RESUMABLE: "op 9 true: Discord asked to resume on a new connection",
    Name.INVALID_SESSION: "op 9 false: Discord refused to resume the session",
    Name.CONGESTED: "a publisher that must not lose is full",
    Name.SLOT_DEFERRED: "other shards identify first",
    Name.RESTART: "an operator asked for a new connection",
    Name.PAUSE: "an operator paused the shard",
    Name.START: "an operator paused the shard before this start",
}
"""Text for the operator for each planned end, and for the start of a paused shard.

`check.py` requires an entry for each trigger with a `note_planned` row.
"""


def failure(trigger: Trigger) -> Cause:
    """Return the cause of a failed connection. It is fatal for a close code that a redial cannot fix."""
    kind, pause = CauseKind.FAILURE, FLOOR
    if isinstance(trigger, InvalidSession | InvalidResumable):
        pause = INVALIDATED
    elif isinstance(trigger, ConnectFailed):
        pause = asked_pause(trigger.retry_after)
    elif isinstance(trigger, Closed):
        if trigger.close_code.kind is CloseClass.FATAL:
            kind = CauseKind.FATAL
        elif trigger.close_code.kind is CloseClass.SLOW_DOWN:
            pause = RATE_LIMITED
    return Cause(kind, trigger.name, _text(trigger), _error(trigger), pause)


def interruption(trigger: Trigger) -> Cause:
    """Return the cause of a planned end: op 7, op 9, a congested publisher, a deferred IDENTIFY, an operator, or ourselves."""
    pause = INVALIDATED if isinstance(trigger, InvalidSession) and not trigger.by_us else FLOOR
    text = INTERRUPTIONS[trigger.name]
    if isinstance(trigger, Congested):
        text = f"{text}: {trigger.publisher}"
    elif isinstance(trigger, SlotDeferred):
        text = f"{text}: {trigger.error}"
    elif isinstance(trigger, InvalidSession) and trigger.by_us:
        text = str(trigger.error)
    elif isinstance(trigger, Restart) and trigger.why:
        text = trigger.why
    return Cause(CauseKind.PLANNED, trigger.name, text, _error(trigger), pause)


def detour(trigger: Trigger) -> Cause:
    """Return the cause of a failed connection to a resume host, when the main host has not been tried yet.

    A pause that the resume host requested delays the dial of the main host only if the pause applies to our address.
    """
    pause = FLOOR
    if isinstance(trigger, ConnectFailed) and trigger.of_address:
        pause = asked_pause(trigger.retry_after)
    return Cause(CauseKind.PLANNED, trigger.name, f"{_text(trigger)}; the main host is next", _error(trigger), pause)


def refusal(trigger: Trigger) -> Cause:
    """Return the cause of a connection that was closed because the identify gate refused."""
    text = f"parked by the identify gate, without a socket: {_error(trigger)}"
    return Cause(CauseKind.PARKED, trigger.name, text, _error(trigger))


def _error(trigger: Trigger) -> BaseException | None:
    return getattr(trigger, "error", None)


def _text(trigger: Trigger) -> str:
    return f"{trigger.name}: {_error(trigger)}"
