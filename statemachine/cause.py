"""Why a connection ended, as a value, and how a trigger becomes one. It decides nothing: the verdict is the table's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from discorder.statemachine.backoff import FLOOR, INVALIDATED, RATE_LIMITED, Window
from discorder.statemachine.close_codes import CloseClass, classify
from discorder.statemachine.table import Name
from discorder.statemachine.triggers import Closed, Congested, InvalidResumable, InvalidSession, SlotDeferred, Trigger


class CauseKind(Enum):
    """What kind of end a connection came to; exactly one of them."""

    PLANNED = "planned"
    FAILURE = "failure"
    FATAL = "fatal"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a connection ended. The first one of a connection decides; it is cleared when the next socket is opened."""

    kind: CauseKind
    trigger: Name
    text: str
    error: BaseException | None = None
    pause: Window = FLOOR  # waited at least, whatever the ladder says


INTERRUPTIONS = {
    Name.RECONNECT: "op 7: Discord asked for a new connection",
    Name.INVALID_RESUMABLE: "op 9 true: Discord asked to resume on a new connection",
    Name.INVALID_SESSION: "op 9 false: Discord refused to resume the session",
    Name.CONGESTED: "a publisher that must not lose is full",
    Name.SLOT_DEFERRED: "other shards identify first",
}
"""What an operator reads of a planned end. Each trigger whose row has `note_planned` is here; `check.py` asks for it."""


def failure(trigger: Trigger) -> Cause:
    """The cause of a connection that failed; fatal for a close code that no redial can mend."""
    kind, pause = CauseKind.FAILURE, FLOOR
    if isinstance(trigger, InvalidSession | InvalidResumable):
        pause = INVALIDATED
    elif isinstance(trigger, Closed):
        code_class = classify(trigger.code).kind
        if code_class is CloseClass.FATAL:
            kind = CauseKind.FATAL
        elif code_class is CloseClass.SLOW_DOWN:
            pause = RATE_LIMITED
    return Cause(kind, trigger.name, _text(trigger), _error(trigger), pause)


def interruption(trigger: Trigger) -> Cause:
    """The cause of a connection that somebody asked us to give up."""
    pause = INVALIDATED if isinstance(trigger, InvalidSession) else FLOOR
    text = INTERRUPTIONS[trigger.name]
    if isinstance(trigger, Congested):
        text = f"{text}: {trigger.publisher}"
    elif isinstance(trigger, SlotDeferred):
        text = f"{text}: {trigger.error}"
    return Cause(CauseKind.PLANNED, trigger.name, text, _error(trigger), pause)


def refusal(trigger: Trigger) -> Cause:
    """The cause of a connection that was given up because the identify gate refused."""
    text = f"parked by the identify gate, without a socket: {_error(trigger)}"
    return Cause(CauseKind.PARKED, trigger.name, text, _error(trigger))


def _error(trigger: Trigger) -> BaseException | None:
    return getattr(trigger, "error", None)


def _text(trigger: Trigger) -> str:
    return f"{trigger.name}: {_error(trigger)}"
