"""What can happen to a shard: plain values, named in the past tense, in the words of the transition table.

They carry what the core needs and cannot ask for. An *event* is Discord's and never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from discorder.statemachine.session import Session
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Task


@dataclass(frozen=True, slots=True)
class Start:
    """The control plane begins."""

    name: ClassVar[Name] = Name.START


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody asked to stop. ``goodbye`` ends the Discord session too; without it the session can be resumed."""

    goodbye: bool = False
    name: ClassVar[Name] = Name.STOP


@dataclass(frozen=True, slots=True)
class Hello:
    """Op 10."""

    name: ClassVar[Name] = Name.HELLO


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """The dial did not reach an open websocket."""

    error: BaseException
    name: ClassVar[Name] = Name.CONNECT_FAILED


@dataclass(frozen=True, slots=True)
class Timeout:
    """The state's deadline passed. ``visit`` numbers what it was armed for; older ones are dropped."""

    visit: int
    error: BaseException
    name: ClassVar[Name] = Name.TIMEOUT


@dataclass(frozen=True, slots=True)
class Closed:
    """The socket is closed; ``code`` is None without a close frame."""

    code: int | None
    error: BaseException
    name: ClassVar[Name] = Name.CLOSED


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A coroutine ended by an error, or was cancelled by somebody other than the driver."""

    task: Task
    error: BaseException
    name: ClassVar[Name] = Name.TASK_FAILED


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Op 7."""

    name: ClassVar[Name] = Name.RECONNECT


@dataclass(frozen=True, slots=True)
class InvalidSession:
    """Op 9 with ``d`` false: the session is gone."""

    error: BaseException
    name: ClassVar[Name] = Name.INVALID_SESSION


@dataclass(frozen=True, slots=True)
class InvalidResumable:
    """Op 9 with ``d`` true: reconnect and resume."""

    error: BaseException
    name: ClassVar[Name] = Name.INVALID_RESUMABLE


@dataclass(frozen=True, slots=True)
class IdentifySlot:
    """The gate grants an IDENTIFY. ``ticket`` is opaque here; whoever acts hands it back to the gate."""

    ticket: object
    name: ClassVar[Name] = Name.IDENTIFY_SLOT


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """The gate refuses; asking again makes sense at ``until`` (aware)."""

    until: datetime
    error: BaseException
    name: ClassVar[Name] = Name.SLOT_REFUSED


@dataclass(frozen=True, slots=True)
class SlotDeferred:
    """The gate has so many others to serve first that asking again makes sense only at ``until`` (aware)."""

    until: datetime
    error: BaseException
    name: ClassVar[Name] = Name.SLOT_DEFERRED


@dataclass(frozen=True, slots=True)
class Ready:
    """READY came, with the session it opens."""

    session: Session
    name: ClassVar[Name] = Name.READY


@dataclass(frozen=True, slots=True)
class Resumed:
    """RESUMED came: the replay is complete."""

    name: ClassVar[Name] = Name.RESUMED


@dataclass(frozen=True, slots=True)
class Zombie:
    """Heartbeats are not acknowledged."""

    error: BaseException
    name: ClassVar[Name] = Name.ZOMBIE


@dataclass(frozen=True, slots=True)
class Congested:
    """A publisher that blocks has held up dispatch for too long; Discord's replay buffer is to keep the events."""

    publisher: str
    name: ClassVar[Name] = Name.CONGESTED


@dataclass(frozen=True, slots=True)
class Stable:
    """Ready for long enough to call it stable."""

    name: ClassVar[Name] = Name.STABLE


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """The connection is closed and its cause is known: the verdict may follow."""

    name: ClassVar[Name] = Name.DIAGNOSED


@dataclass(frozen=True, slots=True)
class RestartDue:
    """The back-off is over."""

    name: ClassVar[Name] = Name.RESTART_DUE


@dataclass(frozen=True, slots=True)
class Stopped:
    """The socket is closed as Stopping asked."""

    name: ClassVar[Name] = Name.STOPPED


Trigger = (
    Start
    | Stop
    | Hello
    | ConnectFailed
    | Timeout
    | Closed
    | TaskFailed
    | Reconnect
    | InvalidSession
    | InvalidResumable
    | IdentifySlot
    | SlotRefused
    | SlotDeferred
    | Ready
    | Resumed
    | Zombie
    | Congested
    | Stable
    | Diagnosed
    | RestartDue
    | Stopped
)
