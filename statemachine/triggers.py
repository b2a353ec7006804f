"""Define the triggers, that is, what can happen to a shard: plain values with the names that the table uses.

A trigger carries the data that the core needs and cannot read itself. An *event* is always Discord's and is never a trigger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from discorder.statemachine.close_codes import CloseCode, classify
from discorder.statemachine.session import Session
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Task


@dataclass(frozen=True, slots=True)
class Start:
    """Report that the control plane starts the shard."""

    name: ClassVar[Name] = Name.START


@dataclass(frozen=True, slots=True)
class Stop:
    """Request a stop. With ``goodbye`` the Discord session ends too; without it the session can be resumed."""

    goodbye: bool = False
    name: ClassVar[Name] = Name.STOP


@dataclass(frozen=True, slots=True)
class Restart:
    """Request a new connection now, with the same session. ``why``: the reason of the control plane, "" for an operator."""

    why: str = ""
    name: ClassVar[Name] = Name.RESTART


@dataclass(frozen=True, slots=True)
class Pause:
    """Request that the shard closes its connection and does not dial until `Unpause`."""

    name: ClassVar[Name] = Name.PAUSE


@dataclass(frozen=True, slots=True)
class Unpause:
    """Request the end of a pause."""

    name: ClassVar[Name] = Name.UNPAUSE


@dataclass(frozen=True, slots=True)
class Hello:
    """Report Hello (op 10)."""

    name: ClassVar[Name] = Name.HELLO


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """Report that the dial failed before the websocket was open.

    ``retry_after``: seconds that the host asks to wait before the next dial, 0 for none. ``of_address``: the pause applies to
    our address, so it holds for Discord's other hosts too.
    """

    error: BaseException
    retry_after: float = 0.0
    of_address: bool = False
    name: ClassVar[Name] = Name.CONNECT_FAILED


@dataclass(frozen=True, slots=True)
class Timeout:
    """Report that the deadline of the state passed. ``visit`` is the number it was armed with; older ones are ignored."""

    visit: int
    error: BaseException
    name: ClassVar[Name] = Name.TIMEOUT


@dataclass(frozen=True, slots=True)
class Closed:
    """Report that the socket is closed. ``code`` is None without a close frame."""

    code: int | None
    error: BaseException
    name: ClassVar[Name] = Name.CLOSED

    @property
    def close_code(self) -> CloseCode:
        """Return the classification of ``code``."""
        return classify(self.code)


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """Report that a coroutine failed, or was cancelled by code other than the driver."""

    task: Task
    error: BaseException
    name: ClassVar[Name] = Name.TASK_FAILED


@dataclass(frozen=True, slots=True)
class Breach:
    """Report that the peer broke the gateway protocol."""

    error: BaseException
    name: ClassVar[Name] = Name.BREACH


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Report Reconnect (op 7)."""

    name: ClassVar[Name] = Name.RECONNECT


@dataclass(frozen=True, slots=True)
class InvalidSession:
    """Report Invalid Session with ``d`` false (op 9): the session cannot be resumed.

    ``by_us``: the control plane itself has no use for the session, for the reason that ``error`` says.
    """

    error: BaseException
    by_us: bool = False
    name: ClassVar[Name] = Name.INVALID_SESSION


@dataclass(frozen=True, slots=True)
class InvalidResumable:
    """Report Invalid Session with ``d`` true (op 9): reconnect and resume."""

    error: BaseException
    name: ClassVar[Name] = Name.INVALID_RESUMABLE


@dataclass(frozen=True, slots=True)
class IdentifySlot:
    """Report that the gate granted an IDENTIFY."""

    name: ClassVar[Name] = Name.IDENTIFY_SLOT


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """Report that the gate refused. Retry at ``until`` (timezone-aware)."""

    until: datetime
    error: BaseException
    name: ClassVar[Name] = Name.SLOT_REFUSED


@dataclass(frozen=True, slots=True)
class SlotDeferred:
    """Report that other shards identify first. Retry at ``until`` (timezone-aware)."""

    until: datetime
    error: BaseException
    name: ClassVar[Name] = Name.SLOT_DEFERRED


@dataclass(frozen=True, slots=True)
class Ready:
    """Report READY with the session that it opens."""

    session: Session
    name: ClassVar[Name] = Name.READY


@dataclass(frozen=True, slots=True)
class Resumed:
    """Report RESUMED: the replay is complete."""

    name: ClassVar[Name] = Name.RESUMED


@dataclass(frozen=True, slots=True)
class Zombie:
    """Report that heartbeats are not acknowledged."""

    error: BaseException
    name: ClassVar[Name] = Name.ZOMBIE


@dataclass(frozen=True, slots=True)
class Congested:
    """Report that a lossless publisher blocked dispatch for too long. Discord's replay buffer must hold the events."""

    publisher: str
    name: ClassVar[Name] = Name.CONGESTED


@dataclass(frozen=True, slots=True)
class Stable:
    """Report that the shard was Ready long enough to count as stable."""

    name: ClassVar[Name] = Name.STABLE


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """Report that the connection is closed and its cause is known. The table decides what follows."""

    name: ClassVar[Name] = Name.DIAGNOSED


@dataclass(frozen=True, slots=True)
class RestartDue:
    """Report that the back-off is over."""

    name: ClassVar[Name] = Name.RESTART_DUE


@dataclass(frozen=True, slots=True)
class Stopped:
    """Report that the socket is closed, as Stopping requested."""

    name: ClassVar[Name] = Name.STOPPED


Verb = Restart | Pause | Unpause
"""What an operator can ask one shard to do; the names are `table.VERBS`."""

Trigger = (
    Start
    | Stop
    | Restart
    | Pause
    | Unpause
    | Hello
    | ConnectFailed
    | Timeout
    | Closed
    | TaskFailed
    | Breach
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
