"""The states of one shard's life cycle, and what belongs to each: its coroutines and its deadline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a shard is. Flat: waiting for an identify slot happens in Identifying, backing off is Restarting."""

    DISCONNECTED = "Disconnected"
    CONNECTING = "Connecting"
    IDENTIFYING = "Identifying"
    RESUMING = "Resuming"
    READY = "Ready"
    UNHEALTHY = "Unhealthy"
    RESTARTING = "Restarting"
    STOPPING = "Stopping"
    EXITED = "Exited"


MEANINGS: Mapping[State, str] = MappingProxyType(
    {
        State.DISCONNECTED: "never started; no socket",
        State.CONNECTING: "dial, TLS, upgrade, then Hello",
        State.IDENTIFYING: "Hello seen; waits for an identify slot, sends IDENTIFY, waits for READY",
        State.RESUMING: "RESUME sent; the replay runs",
        State.READY: "dispatching",
        State.UNHEALTHY: "something ended this connection; the doctor closes it, the verdict follows",
        State.RESTARTING: "back-off runs; the old socket must be gone; a parked shard waits here",
        State.STOPPING: "reading has stopped; the socket is closed so that the session survives (goodbye: ends)",
        State.EXITED: "final: no task, no socket",
    }
)

LIVE = frozenset({State.CONNECTING, State.IDENTIFYING, State.RESUMING, State.READY})
FINAL = State.EXITED
INITIAL = State.DISCONNECTED


class Task(StrEnum):
    """The coroutines of a generation; the names are the seed's."""

    MASTER = "master"
    PROCESSOR = "processor"
    HEARTBEAT = "heartbeat"
    DOCTOR = "doctor"


_HANDSHAKE = frozenset({Task.MASTER, Task.PROCESSOR, Task.DOCTOR})
_SESSION = _HANDSHAKE | {Task.HEARTBEAT}

RUNS: Mapping[State, frozenset[Task]] = MappingProxyType(
    {
        State.DISCONNECTED: frozenset(),
        State.CONNECTING: _HANDSHAKE,
        State.IDENTIFYING: _SESSION,
        State.RESUMING: _SESSION,
        State.READY: _SESSION,
        State.UNHEALTHY: frozenset({Task.MASTER, Task.DOCTOR}),
        State.RESTARTING: frozenset(),
        State.STOPPING: frozenset(),
        State.EXITED: frozenset(),
    }
)
"""The tasks that run in each state; the driver makes it so after every transition."""


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


DIAL_SECONDS = 10.0  # DNS, TCP, TLS and the upgrade together; the rest of Connecting's deadline is Hello's

DEADLINES: Mapping[State, Deadline] = MappingProxyType(
    {
        State.CONNECTING: Deadline(15.0, Keeper.DOCTOR, "Hello"),
        State.IDENTIFYING: Deadline(65.0, Keeper.DOCTOR, "an identify slot"),  # the gate answers within 60 s
        State.RESUMING: Deadline(30.0, Keeper.DOCTOR, "RESUMED or a replayed event"),
        State.UNHEALTHY: Deadline(6.0, Keeper.DRIVER, "the close of the socket"),
        State.STOPPING: Deadline(0.5, Keeper.DRIVER, "the close of the socket"),
    }
)
"""Restarting's deadline is its back-off (`commands.ScheduleRestart`); Ready's is the zombie rule (`heartbeat.Pulse`)."""

READY_DEADLINE = Deadline(60.0, Keeper.DOCTOR, "READY")  # replaces Identifying's when IDENTIFY has been sent
STABLE_SECONDS = 120.0  # in Ready: proof of stability, after which attempts and ladders start anew
