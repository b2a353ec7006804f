"""The life cycle of a shard, as data. The only place where it is written: a new state, trigger or transition begins here.

The running machine, the checks, the diagrams and the tables in the docs are all read off `State`, `Name`, `ROWS` and `CELLS`. A
row is a transition; a cell says why a trigger means nothing in a state (ignore) or must not happen there (reject). Every
state x trigger pair is exactly one of the three (`check.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from discorder.statemachine.terms import Action, Deadline, Guard, Keeper, Kind, Task

_NOTHING: frozenset[Task] = frozenset()
_CLOSING = frozenset({Task.MASTER, Task.DOCTOR})
_HANDSHAKE = frozenset({Task.MASTER, Task.PROCESSOR, Task.DOCTOR})
_SESSION = _HANDSHAKE | {Task.HEARTBEAT}

_HELLO = Deadline(15.0, Keeper.DOCTOR, "Hello")
_SLOT = Deadline(65.0, Keeper.DOCTOR, "an identify slot")  # the gate answers within 60 s
_REPLAY = Deadline(30.0, Keeper.DOCTOR, "RESUMED or a replayed event")
_CLOSE = Deadline(6.0, Keeper.DRIVER, "the close of the socket")
_STOP = Deadline(0.5, Keeper.DRIVER, "the close of the socket")

DIAL_SECONDS = 10.0  # DNS, TCP, TLS and the upgrade together; the rest of Connecting's deadline is Hello's
READY_DEADLINE = Deadline(60.0, Keeper.DOCTOR, "READY")  # replaces Identifying's when IDENTIFY has been sent
STABLE_SECONDS = 120.0  # in Ready: proof of stability, after which attempts and ladders start anew


class State(StrEnum):
    """Where a shard is. Flat: waiting for an identify slot happens in Identifying, backing off is Restarting.

    Each line is a state's whole declaration: its name, what it means, which coroutines run in it, when it must be left.
    """

    meaning: str
    runs: frozenset[Task]
    deadline: Deadline | None

    def __new__(
        cls, name: str, meaning: str = "", runs: frozenset[Task] = _NOTHING, deadline: Deadline | None = None
    ) -> State:
        state = str.__new__(cls, name)
        state._value_ = name
        state.meaning, state.runs, state.deadline = meaning, runs, deadline
        return state

    DISCONNECTED = "Disconnected", "never started; no socket", _NOTHING, None
    CONNECTING = "Connecting", "dial, TLS, upgrade, then Hello", _HANDSHAKE, _HELLO
    IDENTIFYING = "Identifying", "Hello seen; waits for an identify slot, then for READY", _SESSION, _SLOT
    RESUMING = "Resuming", "RESUME sent; the replay runs", _SESSION, _REPLAY
    READY = "Ready", "dispatching", _SESSION, None
    UNHEALTHY = "Unhealthy", "the connection ended; the doctor closes it, the verdict follows", _CLOSING, _CLOSE
    RESTARTING = "Restarting", "back-off runs; the old socket must be gone; a parked shard waits here", _NOTHING, None
    STOPPING = "Stopping", "the socket is closed so that the session survives (goodbye: ends)", _NOTHING, _STOP
    EXITED = "Exited", "final: no task, no socket", _NOTHING, None


LIVE = frozenset({State.CONNECTING, State.IDENTIFYING, State.RESUMING, State.READY})
FINAL = State.EXITED
INITIAL = State.DISCONNECTED

RUNS: Mapping[State, frozenset[Task]] = MappingProxyType({state: state.runs for state in State})
"""The tasks that run in each state; the driver makes it so after every transition."""

DEADLINES: Mapping[State, Deadline] = MappingProxyType(
    {state: state.deadline for state in State if state.deadline is not None}
)
"""Restarting's deadline is its back-off (`commands.ScheduleRestart`); Ready's is the zombie rule (`heartbeat.Pulse`)."""


class Name(StrEnum):
    """The names of the triggers, as the table writes them."""

    START = "start"
    STOP = "stop"
    HELLO = "hello"
    CONNECT_FAILED = "connect_failed"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    TASK_FAILED = "task_failed"
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


WIRE = frozenset(
    {Name.HELLO, Name.RECONNECT, Name.INVALID_SESSION, Name.INVALID_RESUMABLE, Name.READY, Name.RESUMED, Name.CLOSED}
)
"""Triggers that the peer causes: one of them in a state that rejects it is a breach of protocol."""


@dataclass(frozen=True, slots=True)
class Row:
    """One transition from each of ``sources``; ``target`` None stays in the state.

    The row is enabled when every guard in ``when`` is true and every one in ``unless`` false.
    """

    sources: tuple[State, ...]
    trigger: Name
    target: State | None
    actions: tuple[Action, ...]
    why: str
    when: tuple[Guard, ...] = ()
    unless: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair without a transition, and why."""

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
    Row((_DISCONNECTED,), Name.START, _CONNECTING, (Action.OPEN_SOCKET,), "the control plane begins"),
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
        (Name.CONNECT_FAILED, *_LOST),
        _UNHEALTHY,
        (Action.NOTE_CAUSE, Action.DEMOTE_HOST),
        "this host refuses, is silent or closes before Hello: try the other one, with the same session",
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
        (*_LOST, Name.ZOMBIE, Name.TASK_FAILED),
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
        (*_LOST, Name.ZOMBIE, Name.TASK_FAILED),
        _UNHEALTHY,
        (Action.NOTE_CAUSE, Action.SUSPECT_SESSION, Action.DEMOTE_HOST),
        "RESUME was not answered, or by nonsense: the host or the session is at fault, and the other host will tell which",
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
    # ------------------------------------------------------------------ Unhealthy: close, then the verdict
    *_rows(
        (_UNHEALTHY,),
        (Name.TIMEOUT, Name.TASK_FAILED),
        None,
        (Action.ABORT_SOCKET, Action.DIAGNOSE),
        "the doctor hangs or died: drop the socket and judge without it",
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
        (Action.ABORT_SOCKET,),
        "a redial would be refused for ever, and would spend the identify budget",
        when=(Guard.FATAL,),
    ),
    Row(
        (_UNHEALTHY,),
        Name.DIAGNOSED,
        _EXITED,
        (Action.ABORT_SOCKET,),
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
        (Action.ABORT_SOCKET,),
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
        unless=(Guard.MAY_OPEN,),
    ),
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
        (Action.ABORT_SOCKET,),
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
    Name.STABLE,
)
_GATE = (Name.IDENTIFY_SLOT, Name.SLOT_REFUSED, Name.SLOT_DEFERRED)
_LIVE = tuple(state for state in State if state in LIVE)
_AFTER = (_UNHEALTHY, _RESTARTING, _STOPPING)

# (states, triggers, kind, why): where a row exists for a pair of the first three entries, the row holds.
_LATE: tuple[tuple[tuple[State, ...], tuple[Name, ...], Kind, str], ...] = (
    (_AFTER, _FROM_THE_WIRE_OR_A_TASK, Kind.IGNORE, "late: this connection is given up already"),
    (_AFTER, _GATE, Kind.IGNORE, "the request was withdrawn on leaving Identifying"),
)
_OTHERS: tuple[tuple[tuple[State, ...], tuple[Name, ...], Kind, str], ...] = (
    ((_EXITED,), tuple(Name), Kind.IGNORE, "final"),
    ((_RESTARTING, _STOPPING), (Name.DIAGNOSED,), Kind.IGNORE, "a second verdict, or overtaken by stop"),
    ((_STOPPING,), (Name.RESTART_DUE, Name.STOP), Kind.IGNORE, "stop overtook the timer; asked already"),
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
    (
        (_CONNECTING,),
        (*_GATE, Name.READY, Name.RESUMED, Name.INVALID_SESSION, Name.INVALID_RESUMABLE, Name.ZOMBIE),
        Kind.REJECT,
        "not before Hello",
    ),
    ((_CONNECTING, _IDENTIFYING, _RESUMING), (Name.STABLE,), Kind.REJECT, "only Ready can be stable"),
    (
        (_IDENTIFYING, _RESUMING, _READY),
        (Name.HELLO, Name.CONNECT_FAILED),
        Kind.REJECT,
        "the handshake is over",
    ),
    ((_IDENTIFYING,), (Name.RESUMED,), Kind.REJECT, "nothing was resumed"),
    ((_RESUMING,), (Name.READY, *_GATE), Kind.REJECT, "a resume does not identify"),
    ((_READY,), (Name.READY, Name.RESUMED, *_GATE), Kind.REJECT, "already ready"),
)


def _written() -> Iterator[tuple[tuple[State, Name], Cell]]:
    with_a_row = {(source, row.trigger) for row in ROWS for source in row.sources}
    for entries, yields_to_rows in ((_LATE, True), (_OTHERS, False)):
        for states, triggers, kind, why in entries:
            for pair in itertools.product(states, triggers):
                if not (yields_to_rows and pair in with_a_row):
                    yield pair, Cell(kind, why)


WRITTEN = tuple(_written())
"""The cells as they are written. A pair that is there twice, or has a row as well, is a finding of `check.py`."""

CELLS = dict(WRITTEN)
"""Every state x trigger pair that is no transition."""


def rows_for(state: State, trigger: Name) -> tuple[Row, ...]:
    """The rows of one pair, in the order of the table."""
    return tuple(row for row in ROWS if row.trigger is trigger and state in row.sources)
