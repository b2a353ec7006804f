"""The words of the transition table, but for states and triggers: tasks, deadlines, guards, actions, kinds of cells.

Who adds a guard or an action adds its name here and a method of that name to the machine; `discorder verify` asks for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """The coroutines of a generation; the names are the seed's."""

    MASTER = "master"
    PROCESSOR = "processor"
    HEARTBEAT = "heartbeat"
    DOCTOR = "doctor"


class Keeper(StrEnum):
    """Who watches a deadline. What must fire even when the doctor hangs is the driver's."""

    DOCTOR = "doctor"
    DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A state must be left ``seconds`` after it was entered, else its keeper posts ``timeout``."""

    seconds: float
    keeper: Keeper
    awaited: str


class Guard(StrEnum):
    """Atoms, pure, over data; each is a method of the machine."""

    RESUMABLE = "resumable"
    PLANNED = "planned"
    FATAL = "fatal"
    PARKED = "parked"
    FAIL_ON_ERROR = "fail_on_error"
    ATTEMPTS_LEFT = "attempts_left"
    SOCKET_CLOSED = "socket_closed"
    MAY_OPEN = "may_open"


GUARD_MEANINGS = {
    Guard.RESUMABLE: "a session is held",
    Guard.PLANNED: "the interruption was asked for, it is no failure",
    Guard.FATAL: "no redial can mend the cause",
    Guard.PARKED: "the identify gate refused until later",
    Guard.FAIL_ON_ERROR: "gateway.fail_on_error is set",
    Guard.ATTEMPTS_LEFT: "gateway.max_attempts is not reached",
    Guard.SOCKET_CLOSED: "the old socket is gone",
    Guard.MAY_OPEN: "no congested publisher asks to wait",
}

EXCLUSIVE = frozenset({Guard.PLANNED, Guard.FATAL, Guard.PARKED})
"""Functions of the one value `cause`: at most one of them is true."""


class Action(StrEnum):
    """What a transition does; each is a method of the machine. Some only note, others give commands."""

    OPEN_SOCKET = "open_socket"
    SEND_RESUME = "send_resume"
    REQUEST_SLOT = "request_slot"
    RELEASE_SLOT = "release_slot"
    SEND_IDENTIFY = "send_identify"
    SAVE_SESSION = "save_session"
    DROP_SESSION = "drop_session"
    TRUST_SESSION = "trust_session"
    SUSPECT_SESSION = "suspect_session"
    DEMOTE_HOST = "demote_host"
    NOTE_CAUSE = "note_cause"
    NOTE_PLANNED = "note_planned"
    NOTE_REFUSAL = "note_refusal"
    NOTE_UNTIL = "note_until"
    NOTE_STOP = "note_stop"
    ABORT_SOCKET = "abort_socket"
    DIAGNOSE = "diagnose"
    CLIMB = "climb"
    COUNT_ATTEMPT = "count_attempt"
    SCHEDULE_RESTART = "schedule_restart"
    REARM_RESTART = "rearm_restart"
    RESET_ATTEMPTS = "reset_attempts"


class Kind(StrEnum):
    """What a state x trigger pair is, when it is no transition."""

    IGNORE = "ignore"
    REJECT = "reject"
