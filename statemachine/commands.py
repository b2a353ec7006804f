"""What the core asks for: plain values, named in the imperative. Carrying them out is somebody else's business."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from discorder.statemachine.backoff import Window
from discorder.statemachine.session import Session
from discorder.statemachine.table import Name, State
from discorder.statemachine.terms import Deadline


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Begin ``generation``: dial ``url``, "" for the gateway's main host. ``resume`` tells what will be sent."""

    generation: int
    url: str
    resume: bool


@dataclass(frozen=True, slots=True)
class SendResume:
    """Send RESUME for ``session``, with the sequence that the driver keeps."""

    session: Session


@dataclass(frozen=True, slots=True)
class RequestSlot:
    """Ask the gate for leave to IDENTIFY."""


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """Withdraw the request, refund a ticket that was not sent. Idempotent."""


@dataclass(frozen=True, slots=True)
class SendIdentify:
    """Send IDENTIFY on ``ticket``."""

    ticket: object


@dataclass(frozen=True, slots=True)
class SaveSession:
    """Keep ``session``: it is what the next connection resumes."""

    session: Session


@dataclass(frozen=True, slots=True)
class DropSession:
    """Forget the session that was kept."""

    why: str


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close with ``code``, do not wait for what hangs, then post ``stopped``."""

    code: int


@dataclass(frozen=True, slots=True)
class AbortSocket:
    """Drop the socket without a word; it is closed when this returns."""


@dataclass(frozen=True, slots=True)
class Diagnose:
    """Post ``diagnosed``: there is nothing left to wait for."""


@dataclass(frozen=True, slots=True)
class ScheduleRestart:
    """Post ``restart_due`` after the longest of the drawn ``windows``, not before ``until``.

    ``again``: it was due already, and could not happen yet.
    """

    windows: tuple[Window, ...]
    until: datetime | None
    again: bool = False


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Send commands at half the rate for ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ArmDeadline:
    """Post ``timeout`` with ``visit`` unless the state is left before ``deadline``. Replaces the one before."""

    deadline: Deadline
    visit: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """The trigger means nothing here, and that is in order: count it."""

    state: State
    trigger: Name
    why: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The trigger must not happen here: the peer broke the protocol, or we have a bug."""

    state: State
    trigger: Name
    why: str


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
    | SlowDown
    | ArmDeadline
    | Ignored
    | Rejected
)
