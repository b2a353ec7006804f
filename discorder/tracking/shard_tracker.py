"""Hold the visible state of one shard. Its driver writes it; the tracker, the log and the bus read it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from discorder.clock import Clock
from discorder.statemachine import Session, State, Task
from discorder.statemachine.health import Ages, Verdict, judge
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Deadline
from discorder.stats import GatewayStats, listing
from discorder.transport.protocol import Transport
from discorder.wire import Event, session_label

TRANSITIONS_KEPT = 256


class TaskStatus(StrEnum):
    """The status of a task of the current connection."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition. ``target`` equals ``source`` if the state did not change. ``milliseconds``: the time in ``source``."""

    at: datetime
    source: State
    trigger: Name
    target: State
    cause: str | None
    generation: int
    milliseconds: float


class Host(StrEnum):
    """The two hosts that a shard can dial."""

    MAIN = "main"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class ArmedDeadline:
    """A deadline of the present state, and the monotonic second at which it was armed."""

    deadline: Deadline
    at: float


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause before a dial: ``seconds`` were drawn, and it ends at monotonic second ``due``."""

    seconds: float
    due: float


class ShardTracker:
    """The current state of one shard. Fields of a connection are None while there is none."""

    def __init__(self, shard_id: int, shard_count: int, clock: Clock) -> None:
        self.shard_id = shard_id
        self.shard_count = shard_count
        self.state = State.DISCONNECTED
        self.session: Session | None = None
        self.generation = 0
        self.attempts = 0
        self.cause: str | None = None
        self.websocket: Transport | None = None
        self.pulse: Pulse | None = None
        self.tasks: dict[Task, asyncio.Task[None]] = {}
        self.failures: dict[Task, BaseException] = {}
        self.terminate_flag = False
        self.was_ready = False
        self.parked = False  # the identify gate refused until later
        self.armed: ArmedDeadline | None = None
        self.backoff: Backoff | None = None  # while Restarting
        self.paused_since: datetime | None = None  # an operator has paused the shard
        self.transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self.stats = GatewayStats(start_time=clock.now())
        self.read_seq: Callable[[], int | None] = lambda: None
        self.read_ready: Callable[[], Event | None] = lambda: None
        self.read_last_dispatch_at: Callable[[], float | None] = lambda: None
        self.read_holding: Callable[[], Sequence[str]] = tuple
        self.read_host: Callable[[], Host] = lambda: Host.MAIN
        self._clock = clock
        self._entered_at = clock.monotonic()
        self._labelled: Session | None = None  # whose label ``_label`` is
        self._label: str | None = None

    # ---------------------------------------------------------------- Discorder.jl's names

    @property
    def seq(self) -> int | None:
        """The last sequence received, None without a session."""
        return self.read_seq()

    @property
    def ready(self) -> Event | None:
        """The READY that opened the session, None without one."""
        return self.read_ready()

    @property
    def heartbeat_interval_ms(self) -> int | None:
        """The interval of Hello, in milliseconds."""
        return None if self.pulse is None else round(self.pulse.interval * 1000)

    @property
    def heartbeat_task(self) -> asyncio.Task[None] | None:
        """The task of the current connection, None before its start."""
        return self.tasks.get(Task.HEARTBEAT)

    @property
    def processor_task(self) -> asyncio.Task[None] | None:
        """The task of the current connection, None before its start."""
        return self.tasks.get(Task.PROCESSOR)

    @property
    def doctor_task(self) -> asyncio.Task[None] | None:
        """The task of the current connection, None before its start."""
        return self.tasks.get(Task.DOCTOR)

    @property
    def master_task(self) -> asyncio.Task[None] | None:
        """The task of the current connection."""
        return self.tasks.get(Task.MASTER)

    # ---------------------------------------------------------------- Discorder's own

    @property
    def host(self) -> Host:
        """The host of the connection; between two connections that of the next dial."""
        return self.read_host()

    @property
    def entered_at(self) -> float:
        """The monotonic second at which the state was entered."""
        return self._entered_at

    @property
    def restart_due_at(self) -> datetime | None:
        """When the back-off ends, None while none runs."""
        if self.backoff is None:
            return None
        return self._clock.now() + timedelta(seconds=self.backoff.due - self._clock.monotonic())

    @property
    def is_zombie(self) -> bool:
        """Whether a heartbeat has been unanswered for too long."""
        return self.pulse is not None and self.pulse.is_zombie(self._clock.monotonic())

    @property
    def serves(self) -> bool:
        """Whether the shard is Ready and its heartbeats are answered. `diagnose` says why not."""
        return self.state is State.READY and not self.is_zombie

    @property
    def deadline_at(self) -> float | None:
        """The monotonic second at which the state's deadline passes if nothing comes until then; None without one."""
        armed = self.armed
        return None if armed is None else armed.deadline.passes_at(armed.at, self.read_last_dispatch_at())

    @property
    def session_label(self) -> str | None:
        """The label of the session on the bus, None without a session."""
        session = self.session
        if session is not self._labelled:
            self._labelled = session
            self._label = None if session is None else session_label(session.session_id, session.ordinal)
        return self._label

    @property
    def ages(self) -> Ages:
        """The ages of the last events of this connection."""
        now = self._clock.monotonic()
        pulse = self.pulse
        dispatch_at = self.read_last_dispatch_at()
        return Ages(
            in_state=now - self._entered_at,
            last_frame=None if pulse is None else now - pulse.last_frame_at,
            last_ack=None if pulse is None or pulse.last_ack_at is None else now - pulse.last_ack_at,
            last_dispatch=None if dispatch_at is None else now - dispatch_at,
            unanswered_beat=None if pulse is None else pulse.unanswered_for(now),
            unanswered_probe=None if pulse is None else pulse.probed_for(now),
        )

    def age_of(self, at: float | None) -> float | None:
        """Return the seconds since monotonic second ``at``, None for None."""
        return None if at is None else self._clock.monotonic() - at

    def entered(self, state: State) -> float:
        """Store a new state. Return the seconds spent in the previous one."""
        now = self._clock.monotonic()
        spent, self._entered_at, self.state = now - self._entered_at, now, state
        self.was_ready = self.was_ready or state is State.READY
        return spent

    def diagnose(self) -> Verdict:
        """Return the verdict on this shard."""
        cause = self.cause
        if self.pause_reason is not None:
            cause = self.pause_reason
        elif self.state is State.DISCONNECTED:
            cause = "looking up the gateway"
        elif self.state is State.RESTARTING and (holding := self.read_holding()):
            names = ", ".join(holding)
            cause = f"{cause}; reconnects when {names} has room again, at the latest after its hold_off; Discord keeps the events"
        elif self.backoff is not None:
            due_in = self.backoff.due - self._clock.monotonic()
            cause = f"{cause}; next attempt in {max(0.0, due_in):.1f} s"
        return judge(self.state, self.ages, zombie=self.is_zombie, cause=cause)

    @property
    def pause_reason(self) -> str | None:
        """Since when an operator has paused the shard, and the command that ends it; None for a shard that is not paused."""
        if self.paused_since is None:
            return None
        since = self.paused_since.isoformat(timespec="seconds")
        return f"paused by an operator since {since}; goes on with `{unpause_command(self.shard_id)}`"

    def status(self) -> dict[str, TaskStatus]:
        """Return the status of the four tasks."""
        return {name.value: self._task_status(name) for name in _SHOWN}

    def _task_status(self, name: Task) -> TaskStatus:
        task = self.tasks.get(name)
        if task is None:
            return TaskStatus.ABSENT
        if not task.done():
            return TaskStatus.RUNNING
        return TaskStatus.FAILED if name in self.failures else TaskStatus.DONE

    def __repr__(self) -> str:
        return listing("ShardTracker", self.listed())

    def listed(self) -> Iterator[tuple[str, object]]:
        """Yield field names and values in the order of the repr."""
        yield "websocket", self.websocket
        yield "heartbeat_interval_ms", self.heartbeat_interval_ms
        yield "seq", self.seq
        for name, status in self.status().items():
            yield f"{name}_task", status
        yield "terminate_flag", self.terminate_flag
        yield "state", self.state
        yield "shard", (self.shard_id, self.shard_count)
        yield "session", self.session_label
        if self.paused_since is not None:
            yield "paused_since", self.paused_since
        yield "generation", self.generation
        yield "ages", self.ages
        yield "last_transitions", [f"{t.source} → {t.target} ({t.trigger})" for t in list(self.transitions)[-3:]]


def unpause_command(shard_id: int) -> str:
    """Return the command that ends the pause of a shard."""
    return f"discorder shards unpause {shard_id}"


_SHOWN = (Task.HEARTBEAT, Task.PROCESSOR, Task.DOCTOR, Task.MASTER)
