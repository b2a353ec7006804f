"""Define the life cycle of a shard as data. To add a state, trigger or transition, start here.

The machine, the checks, the diagrams and the tables in the docs use `State`, `Name`, `ROWS` and `CELLS`. Every state x trigger
pair is exactly one of four (`check.py`): a transition (a row), or a cell that says why the trigger has no effect in the state
(ignore), must not happen there (reject), or must not be sent there by the peer (breach).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from discorder.statemachine.terms import Action, Deadline, Guard, Keeper, Kind, Task

_HANDSHAKE = frozenset({Task.MASTER, Task.PROCESSOR, Task.DOCTOR})
_SESSION = _HANDSHAKE | {Task.HEARTBEAT}

_HELLO = Deadline(15.0, Keeper.DOCTOR, "Hello")
_SLOT = Deadline(65.0, Keeper.DOCTOR, "an identify slot")  # the gate answers within 60 s
_REPLAY = Deadline(30.0, Keeper.DOCTOR, "RESUMED or a replayed event", extended_by_dispatch=True)
_CLOSE = Deadline(6.0, Keeper.DRIVER, "the close of the socket")
_STOP = Deadline(0.5, Keeper.DRIVER, "the close of the socket")

DIAL_SECONDS = 10.0  # DNS, TCP, TLS and the upgrade together; the rest of Connecting's deadline is for Hello
READY_DEADLINE = Deadline(60.0, Keeper.DOCTOR, "READY")  # replaces Identifying's deadline after IDENTIFY


class Name(StrEnum):
    """List the names of the triggers."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    HELLO = "hello"
    CONNECT_FAILED = "connect_failed"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    TASK_FAILED = "task_failed"
    BREACH = "breach"
    RECONNECT = "reconnect"
    INVALID_SESSION = "invalid_session"
    INVALID_RESUMABLE = "invalid_resumable"
    IDENTIFY_SLOT = "identify_slot"
    SLOT_REFUSED = "slot_refused"
    SLOT_DEFERRED = "slot_deferred"
    READY = "ready"
    RESUMED = "resumed"
    ZOMBIE = "zombie"
    CONGESTED = "congested"
    STABLE = "stable"
    DIAGNOSED = "diagnosed"
    RESTART_DUE = "restart_due"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Closing:
    """Close the socket on entry to a state. Abort it after ``seconds``, then post ``then``."""

    seconds: float
    then: Name


@dataclass(frozen=True, slots=True)
class Traits:
    """Hold the properties of a state: its coroutines, its deadline, and the seconds after which the connection is stable.

    ``entry`` and ``exit``: actions to run on entry and on exit, after the actions of the row.
    """

    runs: frozenset[Task] = frozenset()
    deadline: Deadline | None = None
    stable_after: float | None = None
    closing: Closing | None = None
    entry: tuple[Action, ...] = ()
    exit: tuple[Action, ...] = ()


class State(StrEnum):
    """List the states of a shard, without substates. Identifying includes the wait for a slot; Restarting is the back-off.

    Each line declares one state completely: its name, its meaning, its traits.
    """

    meaning: str
    traits: Traits

    def __new__(cls, name: str, meaning: str = "", traits: Traits = Traits()) -> State:
        state = str.__new__(cls, name)
        state._value_ = name
        state.meaning, state.traits = meaning, traits
        return state

    DISCONNECTED = "Disconnected", "never started; no socket"
    CONNECTING = "Connecting", "dial, TLS, upgrade, then Hello", Traits(_HANDSHAKE, _HELLO)
    IDENTIFYING = "Identifying", "Hello seen; waits for an identify slot, then for READY", Traits(_SESSION, _SLOT)
    RESUMING = "Resuming", "RESUME sent; the replay runs", Traits(_SESSION, _REPLAY)
    READY = (
        "Ready",
        "dispatching",
        Traits(
            _SESSION,
            stable_after=120.0,  # seconds; then attempts and ladders are reset
            entry=(Action.OPEN_OUTBOX, Action.SAVE_PROGRESS),
            exit=(Action.SHUT_OUTBOX,),
        ),
    )
    UNHEALTHY = (
        "Unhealthy",
        "the connection ended; the socket is closed, the verdict follows",
        Traits(deadline=_CLOSE, closing=Closing(1.0, Name.DIAGNOSED), entry=(Action.CLOSE_SOCKET,)),
    )
    RESTARTING = "Restarting", "back-off runs; the old socket must be gone; a parked or paused shard waits here"
    STOPPING = (
        "Stopping",
        "the socket is closed so that the session survives (goodbye: ends)",
        Traits(deadline=_STOP, closing=Closing(0.25, Name.STOPPED), entry=(Action.CLOSE_SOCKET,)),
    )
    EXITED = "Exited", "final: no task, no socket"


LIVE = frozenset({State.CONNECTING, State.IDENTIFYING, State.RESUMING, State.READY})
FINAL = State.EXITED
INITIAL = State.DISCONNECTED

T = TypeVar("T")


def _by_state(trait: Callable[[Traits], T | None]) -> Mapping[State, T]:
    values = ((state, trait(state.traits)) for state in State)
    return MappingProxyType({state: value for state, value in values if value})


RUNS: Mapping[State, frozenset[Task]] = MappingProxyType({state: state.traits.runs for state in State})
"""The tasks of each state. The driver starts and cancels tasks accordingly after every transition."""

DEADLINES = _by_state(lambda traits: traits.deadline)
"""The deadlines. Restarting has its back-off instead (`commands.ScheduleRestart`), Ready the zombie rule (`heartbeat.Pulse`)."""

STABLE_AFTER = _by_state(lambda traits: traits.stable_after)
"""Seconds in a state after which the doctor posts ``stable``, once per connection."""

CLOSINGS = _by_state(lambda traits: traits.closing)
"""The states in which `CLOSE_SOCKET` closes the socket, with the time limit and the trigger that follows."""

ENTRY = _by_state(lambda traits: traits.entry)
"""Actions to run after the actions of each row that enters the state."""

EXIT = _by_state(lambda traits: traits.exit)
"""Actions to run after the actions of each row that leaves the state."""

WIRE = frozenset(
    {Name.HELLO, Name.RECONNECT, Name.INVALID_SESSION, Name.INVALID_RESUMABLE, Name.READY, Name.RESUMED, Name.CLOSED}
)
"""Triggers that the peer causes. On a connection, such a trigger in the wrong state is a breach of the protocol."""

VERBS = frozenset({Name.RESTART, Name.PAUSE, Name.UNPAUSE})
"""Triggers that an operator requests of one shard. The machine takes them at once, and says why one has no effect."""


@dataclass(frozen=True, slots=True)
class Row:
    """Describe one transition from each of ``sources``. ``target`` None stays in the state.

    The row is enabled when every guard in ``when`` is true and every guard in ``unless`` is false. A row without target and
    actions is a cell (ignore) that depends on guards: the trigger has no effect, and no transition is recorded.
    """

    sources: tuple[State, ...]
    trigger: Name
    target: State | None
    actions: tuple[Action, ...]
    why: str
    when: tuple[Guard, ...] = ()
    unless: tuple[Guard, ...] = ()

    @property
    def idle(self) -> bool:
        """Return whether the trigger has no effect."""
        return self.target is None and not self.actions


@dataclass(frozen=True, slots=True)
class Cell:
    """Describe a state x trigger pair without a transition, and the reason."""

    kind: Kind
    why: str


_DISCONNECTED, _CONNECTING, _IDENTIFYING = State.DISCONNECTED, State.CONNECTING, State.IDENTIFYING
_RESUMING, _READY, _UNHEALTHY = State.RESUMING, State.READY, State.UNHEALTHY
_RESTARTING, _STOPPING, _EXITED = State.RESTARTING, State.STOPPING, State.EXITED

_LOST = (Name.CLOSED, Name.TIMEOUT)


def _rows(
    sources: tuple[State, ...],
    triggers: Iterable[Name],
    target: State | None,
    actions: tuple[Action, ...],
    why: str,
    when: tuple[Guard, ...] = (),
    unless: tuple[Guard, ...] = (),
) -> list[Row]:
    return [Row(sources, trigger, target, actions, why, when, unless) for trigger in triggers]


ROWS: tuple[Row, ...] = (
    # ------------------------------------------------------------------ start
    Row(
        (_DISCONNECTED,),
        Name.START,
        _CONNECTING,
        (Action.OPEN_SOCKET,),
        "the control plane begins",
        unless=(Guard.PAUSED,),
    ),
    Row(
        (_DISCONNECTED,),
        Name.START,
        _RESTARTING,
        (Action.NOTE_PLANNED, Action.CLIMB, Action.SCHEDULE_RESTART),
        "paused before the start: no dial until unpause",
        when=(Guard.PAUSED,),
    ),
    Row((_DISCONNECTED,), Name.STOP, _STOPPING, (Action.NOTE_STOP,), "stopped before the first dial"),
    # ------------------------------------------------------------------ Connecting
    Row(
        (_CONNECTING,),
        Name.HELLO,
        _RESUMING,
        (Action.SEND_RESUME,),
        "a session is held: RESUME is free and loses nothing",
        when=(Guard.RESUMABLE,),
    ),
    Row(
        (_CONNECTING,),
        Name.HELLO,
        _IDENTIFYING,
        (Action.REQUEST_SLOT,),
        "no session: an IDENTIFY is needed, and the gate decides when",
        unless=(Guard.RESUMABLE,),
    ),
    *_rows(
        (_CONNECTING,),
        (Name.CONNECT_FAILED, *_LOST, Name.BREACH),
        _UNHEALTHY,
        (Action.NOTE_HOST_FAILURE, Action.DEMOTE_HOST),
        "this host refuses, is silent, closes or breaks the protocol before Hello: try the other one, with the same session",
    ),
    Row(
        (_CONNECTING,),
        Name.RECONNECT,
        _UNHEALTHY,
        (Action.NOTE_PLANNED, Action.DEMOTE_HOST),
        "op 7 is legal instead of Hello: this host does not want us",
    ),
    Row(
        (_CONNECTING, _READY),
        Name.TASK_FAILED,
        _UNHEALTHY,
        (Action.NOTE_CAUSE,),
        "one of our coroutines died: the generation is over",
    ),
    # ------------------------------------------------------------------ Identifying
    Row((_IDENTIFYING,), Name.IDENTIFY_SLOT, None, (Action.SEND_IDENTIFY,), "the gate granted an IDENTIFY"),
    Row(
        (_IDENTIFYING,),
        Name.SLOT_REFUSED,
        _UNHEALTHY,
        (Action.NOTE_REFUSAL, Action.RELEASE_SLOT),
        "no budget: the shard is parked until the gate will talk again, without an idle socket",
    ),
    Row(
        (_IDENTIFYING,),
        Name.SLOT_DEFERRED,
        _UNHEALTHY,
        (Action.NOTE_UNTIL, Action.NOTE_PLANNED, Action.RELEASE_SLOT),
        "other shards go first for longer than a socket may idle: not a failure, the shard comes back for its turn",
    ),
    Row((_IDENTIFYING,), Name.READY, _READY, (Action.SAVE_SESSION,), "READY opens the session"),
    *_rows(
        (_IDENTIFYING,),
        (*_LOST, Name.ZOMBIE, Name.TASK_FAILED, Name.BREACH),
        _UNHEALTHY,
        (Action.NOTE_CAUSE, Action.RELEASE_SLOT),
        "the connection ended before READY",
    ),
    Row(
        (_IDENTIFYING,),
        Name.RECONNECT,
        _UNHEALTHY,
        (Action.NOTE_PLANNED, Action.RELEASE_SLOT),
        "op 7 may come at any time",
    ),
    *_rows(
        (_IDENTIFYING,),
        (Name.INVALID_SESSION, Name.INVALID_RESUMABLE),
        _UNHEALTHY,
        (Action.DROP_SESSION, Action.NOTE_CAUSE, Action.RELEASE_SLOT),
        "op 9 as the answer to IDENTIFY: no session could be opened",
    ),
    # ------------------------------------------------------------------ Resuming
    Row((_RESUMING,), Name.RESUMED, _READY, (Action.TRUST_SESSION,), "the replay is complete"),
    *_rows(
        (_RESUMING,),
        (*_LOST, Name.ZOMBIE, Name.TASK_FAILED, Name.BREACH),
        _UNHEALTHY,
        (Action.NOTE_HOST_FAILURE, Action.SUSPECT_SESSION, Action.DEMOTE_HOST),
        "RESUME was not answered, or by nonsense: the host or the session is at fault, and the other host will show which",
    ),
    Row(
        (_RESUMING,),
        Name.INVALID_SESSION,
        _UNHEALTHY,
        (Action.DROP_SESSION, Action.NOTE_PLANNED),
        "op 9 false as the answer to RESUME: a new session is needed; an answer, not a failure",
    ),
    *_rows(
        (_RESUMING,),
        (Name.INVALID_RESUMABLE, Name.RECONNECT),
        _UNHEALTHY,
        (Action.NOTE_PLANNED, Action.SUSPECT_SESSION),
        "asked to connect again and resume",
    ),
    Row(
        (_RESUMING, _READY),
        Name.CONGESTED,
        _UNHEALTHY,
        (Action.NOTE_PLANNED,),
        "a publisher that must not lose is full: Discord's replay buffer is the spool",
    ),
    # ------------------------------------------------------------------ Ready
    Row((_READY,), Name.STABLE, None, (Action.RESET_ATTEMPTS,), "proof of stability: back-off starts anew"),
    *_rows(
        (_READY,),
        (Name.RECONNECT, Name.INVALID_RESUMABLE),
        _UNHEALTHY,
        (Action.NOTE_PLANNED,),
        "asked to connect again and resume",
    ),
    Row(
        (_READY,),
        Name.INVALID_SESSION,
        _UNHEALTHY,
        (Action.DROP_SESSION, Action.NOTE_CAUSE),
        "op 9 false in a live session: it is gone",
    ),
    *_rows(
        (_READY,),
        (Name.CLOSED, Name.ZOMBIE),
        _UNHEALTHY,
        (Action.NOTE_CAUSE,),
        "the connection was lost; the session is not",
    ),
    Row(
        (_READY,),
        Name.BREACH,
        _UNHEALTHY,
        (Action.NOTE_CAUSE,),
        "the peer breaks the protocol: the connection is given up, the session is not",
    ),
    # ------------------------------------------------------------------ Unhealthy: close, then the verdict
    Row(
        (_UNHEALTHY,),
        Name.TIMEOUT,
        None,
        (Action.ABORT_SOCKET, Action.DIAGNOSE),
        "the close hangs: drop the socket and judge without it",
    ),
    *_rows(
        (_UNHEALTHY,),
        (Name.SLOT_REFUSED, Name.SLOT_DEFERRED),
        None,
        (Action.NOTE_UNTIL,),
        "an answer of the gate that was under way still counts",
    ),
    Row(
        (_UNHEALTHY, _STOPPING),
        Name.READY,
        None,
        (Action.SAVE_SESSION,),
        "its IDENTIFY is spent: keep the session",
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _RESTARTING,
        (Action.CLIMB, Action.SCHEDULE_RESTART),
        "a planned interruption is no failure and restarts even under fail_on_error",
        when=(Guard.PLANNED,),
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _EXITED,
        (Action.ABORT_SOCKET, Action.END_FATALLY),
        "a redial would be refused for ever, and would spend the identify budget",
        when=(Guard.FATAL,),
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _EXITED,
        (Action.ABORT_SOCKET, Action.END_ON_FAILURE),
        "fail_on_error: the failure is to reach the developer",
        when=(Guard.FAIL_ON_ERROR,),
        unless=(Guard.PLANNED, Guard.FATAL),
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _RESTARTING,
        (Action.SCHEDULE_RESTART,),
        "parked: waits for the gate, and is no failed attempt",
        when=(Guard.PARKED,),
        unless=(Guard.FAIL_ON_ERROR,),
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _EXITED,
        (Action.ABORT_SOCKET, Action.END_EXHAUSTED),
        "max_attempts consecutive failures",
        unless=(Guard.PLANNED, Guard.FATAL, Guard.FAIL_ON_ERROR, Guard.PARKED, Guard.ATTEMPTS_LEFT),
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _RESTARTING,
        (Action.COUNT_ATTEMPT, Action.CLIMB, Action.SCHEDULE_RESTART),
        "a failure that a new connection may mend",
        when=(Guard.ATTEMPTS_LEFT,),
        unless=(Guard.PLANNED, Guard.FATAL, Guard.FAIL_ON_ERROR, Guard.PARKED),
    ),
    # ------------------------------------------------------------------ Restarting
    Row(
        (_RESTARTING,),
        Name.RESTART_DUE,
        _CONNECTING,
        (Action.OPEN_SOCKET,),
        "the back-off is over and the old socket is gone",
        when=(Guard.SOCKET_CLOSED, Guard.MAY_OPEN),
        unless=(Guard.PAUSED,),
    ),
    Row(
        (_RESTARTING,),
        Name.RESTART_DUE,
        None,
        (Action.ABORT_SOCKET, Action.REARM_RESTART),
        "never two sockets",
        unless=(Guard.SOCKET_CLOSED,),
    ),
    Row(
        (_RESTARTING,),
        Name.RESTART_DUE,
        None,
        (Action.REARM_RESTART,),
        "a congested publisher has not drained yet",
        when=(Guard.SOCKET_CLOSED,),
        unless=(Guard.MAY_OPEN, Guard.PAUSED),
    ),
    Row(
        (_RESTARTING,),
        Name.RESTART_DUE,
        None,
        (),
        "the shard is paused: the dial waits for unpause",
        when=(Guard.SOCKET_CLOSED, Guard.PAUSED),
    ),
    # ------------------------------------------------------------------ restart, pause, unpause: the operator
    Row(
        (_CONNECTING, _RESUMING, _READY),
        Name.RESTART,
        _UNHEALTHY,
        (Action.NOTE_PLANNED,),
        "the operator wants a new connection: it resumes the session, and no attempt is counted",
    ),
    Row(
        (_RESTARTING,),
        Name.RESTART,
        None,
        (Action.WAKE_RESTART,),
        "the operator ends the back-off; a wait that Discord, its host or the gate asked for goes on",
        unless=(Guard.PAUSED,),
    ),
    Row((_RESTARTING,), Name.RESTART, None, (), "it is paused: unpause it", when=(Guard.PAUSED,)),
    Row(
        (_CONNECTING, _RESUMING, _READY),
        Name.PAUSE,
        _UNHEALTHY,
        (Action.NOTE_PAUSE, Action.NOTE_PLANNED),
        "the operator pauses the shard: the connection is closed so that the session can be resumed",
    ),
    Row(
        (_IDENTIFYING,),
        Name.PAUSE,
        _UNHEALTHY,
        (Action.NOTE_PAUSE, Action.NOTE_PLANNED, Action.RELEASE_SLOT),
        "the operator pauses the shard; a ticket that was not used goes back",
    ),
    Row(
        (_DISCONNECTED, _UNHEALTHY, _RESTARTING),
        Name.PAUSE,
        None,
        (Action.NOTE_PAUSE,),
        "the operator pauses the shard: no dial until unpause",
        unless=(Guard.PAUSED,),
    ),
    Row((_DISCONNECTED, _UNHEALTHY, _RESTARTING), Name.PAUSE, None, (), "it is paused already", when=(Guard.PAUSED,)),
    Row(
        (_DISCONNECTED, _UNHEALTHY),
        Name.UNPAUSE,
        None,
        (Action.NOTE_UNPAUSE,),
        "the operator ends the pause before the dial was due",
        when=(Guard.PAUSED,),
    ),
    Row(
        (_RESTARTING,),
        Name.UNPAUSE,
        None,
        (Action.NOTE_UNPAUSE, Action.WAKE_RESTART),
        "the operator ends the pause; a wait that Discord, its host or the gate asked for goes on",
        when=(Guard.PAUSED,),
    ),
    Row((_DISCONNECTED, _UNHEALTHY, _RESTARTING), Name.UNPAUSE, None, (), "it is not paused", unless=(Guard.PAUSED,)),
    # ------------------------------------------------------------------ stop
    Row(
        (_CONNECTING, _RESUMING, _READY, _UNHEALTHY, _RESTARTING),
        Name.STOP,
        _STOPPING,
        (Action.NOTE_STOP,),
        "asked to stop; the session is kept unless goodbye was asked for",
    ),
    Row(
        (_IDENTIFYING,),
        Name.STOP,
        _STOPPING,
        (Action.NOTE_STOP, Action.RELEASE_SLOT),
        "asked to stop; a ticket that was not used goes back",
    ),
    *_rows(
        (_STOPPING,),
        (Name.STOPPED, Name.TIMEOUT),
        _EXITED,
        (Action.ABORT_SOCKET, Action.END_ON_REQUEST),
        "the socket is closed, or time is up",
    ),
)

_FROM_THE_WIRE_OR_A_TASK = (
    Name.HELLO,
    Name.READY,
    Name.RESUMED,
    Name.RECONNECT,
    Name.INVALID_SESSION,
    Name.INVALID_RESUMABLE,
    Name.CLOSED,
    Name.CONNECT_FAILED,
    Name.ZOMBIE,
    Name.TIMEOUT,
    Name.TASK_FAILED,
    Name.BREACH,
    Name.STABLE,
)
_GATE = (Name.IDENTIFY_SLOT, Name.SLOT_REFUSED, Name.SLOT_DEFERRED)
_LIVE = tuple(state for state in State if state in LIVE)
_AFTER = (_UNHEALTHY, _RESTARTING, _STOPPING)

# (states, triggers, kind, why). In _LATE, a row for the same pair takes precedence over the cell.
_LATE: tuple[tuple[tuple[State, ...], tuple[Name, ...], Kind, str], ...] = (
    (_AFTER, _FROM_THE_WIRE_OR_A_TASK, Kind.IGNORE, "late: this connection is given up already"),
    (_AFTER, _GATE, Kind.IGNORE, "the request was withdrawn on leaving Identifying"),
)
_OTHERS: tuple[tuple[tuple[State, ...], tuple[Name, ...], Kind, str], ...] = (
    ((_EXITED,), tuple(Name), Kind.IGNORE, "final"),
    ((_RESTARTING, _STOPPING), (Name.DIAGNOSED,), Kind.IGNORE, "a second verdict, or overtaken by stop"),
    ((_STOPPING,), (Name.RESTART_DUE, Name.STOP), Kind.IGNORE, "stop overtook the timer; asked already"),
    ((_DISCONNECTED,), (Name.RESTART,), Kind.IGNORE, "it has not been started yet"),
    ((_IDENTIFYING,), (Name.RESTART,), Kind.IGNORE, "it holds no session, and a restart could cost another IDENTIFY"),
    ((_UNHEALTHY,), (Name.RESTART,), Kind.IGNORE, "its connection is being closed already, and the restart follows"),
    (_LIVE, (Name.UNPAUSE,), Kind.IGNORE, "it is not paused"),
    ((_STOPPING,), (Name.RESTART, Name.PAUSE, Name.UNPAUSE), Kind.IGNORE, "it is being stopped"),
    ((*_LIVE, *_AFTER), (Name.START,), Kind.IGNORE, "already started"),
    (
        (_DISCONNECTED, _CONNECTING, _IDENTIFYING, *_AFTER),
        (Name.CONGESTED,),
        Kind.IGNORE,
        "nothing is dispatched here",
    ),
    ((_READY,), (Name.TIMEOUT,), Kind.IGNORE, "the handshake's deadline raced with READY or RESUMED"),
    (
        (_DISCONNECTED,),
        (*_FROM_THE_WIRE_OR_A_TASK, *_GATE, Name.DIAGNOSED, Name.RESTART_DUE, Name.STOPPED),
        Kind.REJECT,
        "there is no connection",
    ),
    (
        _LIVE,
        (Name.DIAGNOSED, Name.RESTART_DUE, Name.STOPPED),
        Kind.REJECT,
        "belongs to Unhealthy, Restarting or Stopping",
    ),
    ((_UNHEALTHY,), (Name.RESTART_DUE, Name.STOPPED), Kind.REJECT, "belongs to Restarting or Stopping"),
    ((_RESTARTING,), (Name.STOPPED,), Kind.REJECT, "belongs to Stopping"),
    ((_CONNECTING,), (*_GATE, Name.ZOMBIE), Kind.REJECT, "not before Hello"),
    (
        (_CONNECTING,),
        (Name.READY, Name.RESUMED, Name.INVALID_SESSION, Name.INVALID_RESUMABLE),
        Kind.BREACH,
        "Hello comes first",
    ),
    ((_CONNECTING, _IDENTIFYING, _RESUMING), (Name.STABLE,), Kind.REJECT, "only Ready can be stable"),
    ((_IDENTIFYING, _RESUMING, _READY), (Name.CONNECT_FAILED,), Kind.REJECT, "the handshake is over"),
    ((_IDENTIFYING, _RESUMING, _READY), (Name.HELLO,), Kind.BREACH, "Hello came already"),
    ((_IDENTIFYING,), (Name.RESUMED,), Kind.BREACH, "nothing was resumed"),
    ((_RESUMING,), (Name.READY,), Kind.BREACH, "RESUME is not answered by READY"),
    ((_RESUMING,), _GATE, Kind.REJECT, "a resume does not identify"),
    ((_READY,), (Name.READY, Name.RESUMED), Kind.BREACH, "the session is open already"),
    ((_READY,), _GATE, Kind.REJECT, "already ready"),
)


def _written() -> Iterator[tuple[tuple[State, Name], Cell]]:
    with_a_row = {(source, row.trigger) for row in ROWS for source in row.sources}
    for entries, yields_to_rows in ((_LATE, True), (_OTHERS, False)):
        for states, triggers, kind, why in entries:
            for pair in itertools.product(states, triggers):
                if not (yields_to_rows and pair in with_a_row):
                    yield pair, Cell(kind, why)


WRITTEN = tuple(_written())
"""The cells in the order of the source. `check.py` reports a pair that occurs twice or also has a row."""

CELLS = dict(WRITTEN)
"""The cell of every state x trigger pair without a transition."""


def idle_rows(rows: Iterable[Row]) -> Mapping[tuple[State, Name], tuple[Row, ...]]:
    """Return the rows in which the trigger has no effect, by their pairs."""
    found: dict[tuple[State, Name], tuple[Row, ...]] = {}
    for row in rows:
        for source in row.sources if row.idle else ():
            found[source, row.trigger] = (*found.get((source, row.trigger), ()), row)
    return MappingProxyType(found)


IDLE_ROWS = idle_rows(ROWS)
"""The rows of a pair in which the trigger has no effect."""


def rows_for(state: State, trigger: Name) -> tuple[Row, ...]:
    """Return the rows of one state x trigger pair, in the order of the table."""
    return tuple(row for row in ROWS if row.trigger is trigger and state in row.sources)
