"""Define the terms of the transition table except states and triggers: tasks, deadlines, guards, actions, kinds of cells.

To add a guard or an action, add its name here and a method of that name to the machine; `discorder verify` checks both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """List the coroutines of a connection. The names come from Discorder.jl."""

    MASTER = "master"
    PROCESSOR = "processor"
    HEARTBEAT = "heartbeat"
    DOCTOR = "doctor"


class Keeper(StrEnum):
    """List the keepers of deadlines. The driver keeps those that must fire even if the doctor hangs."""

    DOCTOR = "doctor"
    DRIVER = "driver"


@dataclass(frozen=True, slots=True)
class Deadline:
    """Limit the time in a state: ``seconds`` after entry the keeper posts ``timeout``.

    ``extended_by_dispatch``: each new event on the connection restarts the deadline.
    """

    seconds: float
    keeper: Keeper
    awaited: str
    extended_by_dispatch: bool = False

    def passes_at(self, armed_at: float, dispatch_at: float | None) -> float:
        """Return when it passes if no event comes after ``dispatch_at``, the last one (None: there was none)."""
        if dispatch_at is not None and self.extended_by_dispatch:
            armed_at = max(armed_at, dispatch_at)
        return armed_at + self.seconds

    @property
    def missed(self) -> str:
        """Return the text to report when the deadline has passed."""
        return f"{self.awaited} did not come within {self.seconds:g} s"


class Guard(StrEnum):
    """List the guards. Each is a method of the machine without side effects."""

    RESUMABLE = "resumable"
    PLANNED = "planned"
    FATAL = "fatal"
    PARKED = "parked"
    FAIL_ON_ERROR = "fail_on_error"
    ATTEMPTS_LEFT = "attempts_left"
    SOCKET_CLOSED = "socket_closed"
    MAY_OPEN = "may_open"
    PAUSED = "paused"


GUARD_MEANINGS = {
    Guard.RESUMABLE: "a session is held",
    Guard.PLANNED: "the interruption was asked for, it is no failure",
    Guard.FATAL: "no redial can mend the cause",
    Guard.PARKED: "the identify gate refused until later",
    Guard.FAIL_ON_ERROR: "gateway.fail_on_error is set",
    Guard.ATTEMPTS_LEFT: "gateway.max_attempts is not reached",
    Guard.SOCKET_CLOSED: "the old socket is gone",
    Guard.MAY_OPEN: "no congested publisher asks to wait",
    Guard.PAUSED: "an operator has paused the shard",
}

EXCLUSIVE = frozenset({Guard.PLANNED, Guard.FATAL, Guard.PARKED})
"""Guards over the single value `cause`. At most one of them is true."""


class Action(StrEnum):
    """List the actions of transitions. Each is a method of the machine. Some only update its data, others return commands."""

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
    NOTE_HOST_FAILURE = "note_host_failure"
    NOTE_PLANNED = "note_planned"
    NOTE_REFUSAL = "note_refusal"
    NOTE_UNTIL = "note_until"
    NOTE_STOP = "note_stop"
    NOTE_PAUSE = "note_pause"
    NOTE_UNPAUSE = "note_unpause"
    ABORT_SOCKET = "abort_socket"
    DIAGNOSE = "diagnose"
    CLIMB = "climb"
    COUNT_ATTEMPT = "count_attempt"
    SCHEDULE_RESTART = "schedule_restart"
    REARM_RESTART = "rearm_restart"
    WAKE_RESTART = "wake_restart"
    RESET_ATTEMPTS = "reset_attempts"
    CLOSE_SOCKET = "close_socket"
    OPEN_OUTBOX = "open_outbox"
    SHUT_OUTBOX = "shut_outbox"
    SAVE_PROGRESS = "save_progress"
    END_ON_REQUEST = "end_on_request"
    END_FATALLY = "end_fatally"
    END_ON_FAILURE = "end_on_failure"
    END_EXHAUSTED = "end_exhausted"


class Kind(StrEnum):
    """Classify a state x trigger pair without a transition."""

    IGNORE = "ignore"
    REJECT = "reject"
    BREACH = "breach"  # the peer broke the protocol; the trigger `breach` follows
