"""Define the commands that the core returns: plain values, named in the imperative. The driver executes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from discorder.statemachine.backoff import Window
from discorder.statemachine.cause import Ended
from discorder.statemachine.session import Session
from discorder.statemachine.table import Name, State
from discorder.statemachine.terms import Deadline
from discorder.statemachine.triggers import Diagnosed, Stopped


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Dial ``url`` ("" = the gateway's main host) as connection number ``generation``."""

    generation: int
    url: str


@dataclass(frozen=True, slots=True)
class SendResume:
    """Send RESUME for ``session``, with the sequence that the driver stores."""

    session: Session


@dataclass(frozen=True, slots=True)
class RequestSlot:
    """Request permission to IDENTIFY from the gate."""


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """Cancel the identify request and refund a ticket that was not sent. Idempotent."""


@dataclass(frozen=True, slots=True)
class SendIdentify:
    """Send IDENTIFY with the ticket that the gate granted."""


@dataclass(frozen=True, slots=True)
class SaveSession:
    """Store ``session``. The next connection resumes it."""

    session: Session


@dataclass(frozen=True, slots=True)
class DropSession:
    """Drop the stored session."""

    why: str


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close with a code that keeps or ends the session. Abort a close that takes longer than ``seconds``. Then post ``then``."""

    keeps_session: bool
    seconds: float
    then: Diagnosed | Stopped


@dataclass(frozen=True, slots=True)
class AbortSocket:
    """Abort the socket without a close frame. It is closed when this command returns."""


@dataclass(frozen=True, slots=True)
class Diagnose:
    """Post ``diagnosed`` without waiting for the close any longer."""


@dataclass(frozen=True, slots=True)
class ScheduleRestart:
    """Post ``restart_due`` after the longest of the drawn ``windows``, not before ``until``.

    The last window is the wait that `WakeRestart` does not shorten: what Discord or a host asked for, or the floor. ``again``:
    the restart was due already, but was not allowed yet.
    """

    windows: tuple[Window, ...]
    until: datetime | None
    again: bool = False


@dataclass(frozen=True, slots=True)
class WakeRestart:
    """Post ``restart_due`` now, or as soon as the last window of `ScheduleRestart` and ``until`` have passed."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class SavePause:
    """Store that an operator has paused the shard."""


@dataclass(frozen=True, slots=True)
class DropPause:
    """Store that the shard is not paused any more."""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Send commands at half the rate for ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class OpenOutbox:
    """Allow commands to Discord. In a new session, repeat the requests that the old session has not answered."""

    new_session: bool


@dataclass(frozen=True, slots=True)
class ShutOutbox:
    """Hold back commands to Discord."""


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Store the delivered position now, and once more at the next delivery."""


@dataclass(frozen=True, slots=True)
class End:
    """Announce the events that no later session will deliver. Then return to the caller or raise, as ``ended`` says."""

    ended: Ended


@dataclass(frozen=True, slots=True)
class ArmDeadline:
    """Post ``timeout`` with ``visit`` unless the state is left before ``deadline``. Replaces the previous deadline."""

    deadline: Deadline
    visit: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """Count a trigger that is expected in this state and has no effect."""

    state: State
    trigger: Name
    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Report a trigger that must not happen in this state: a bug in Discorder."""

    state: State
    trigger: Name
    why: str


@dataclass(frozen=True, slots=True)
class ReportBreach:
    """Post ``breach``: the peer sent a message that the protocol forbids in this state."""

    state: State
    trigger: Name
    why: str


PassedOver = Ignored | Rejected | ReportBreach

Command = (
    OpenSocket
    | SendResume
    | RequestSlot
    | ReleaseSlot
    | SendIdentify
    | SaveSession
    | DropSession
    | CloseSocket
    | AbortSocket
    | Diagnose
    | ScheduleRestart
    | WakeRestart
    | SavePause
    | DropPause
    | SlowDown
    | OpenOutbox
    | ShutOutbox
    | SaveProgress
    | End
    | ArmDeadline
    | Ignored
    | Rejected
    | ReportBreach
)
