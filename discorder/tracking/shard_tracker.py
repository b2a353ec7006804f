"""One shard, as an operator sees it: written by its driver, read by anybody. Health is judged here from ages, on request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from discorder.clock import Clock
from discorder.statemachine import Session, State, Task
from discorder.statemachine.health import Ages, Verdict, judge
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.table import Name
from discorder.stats import GatewayStats, listing
from discorder.transport.protocol import Transport
from discorder.wire import Event, session_label

TRANSITIONS_KEPT = 256


class TaskStatus(StrEnum):
    """What a task of the present generation is doing."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of the machine. ``target`` equals ``source`` for a row that stays; ``milliseconds`` were spent in source."""

    at: datetime
    source: State
    trigger: Name
    target: State
    cause: str | None
    generation: int
    milliseconds: float


class ShardTracker:
    """One shard, as it is now. Fields of a connection are None while there is none."""

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
        self.restart_due_at: datetime | None = None
        self.transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self.stats = GatewayStats(start_time=clock.now())
        self.read_seq: Callable[[], int | None] = lambda: None
        self.read_ready: Callable[[], Event | None] = lambda: None
        self.read_last_dispatch_at: Callable[[], float | None] = lambda: None
        self.read_holding: Callable[[], Sequence[str]] = tuple
        self._clock = clock
        self._entered_at = clock.monotonic()

    # ---------------------------------------------------------------- the seed's names

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
        """As Hello asked, in milliseconds."""
        return None if self.pulse is None else round(self.pulse.interval * 1000)

    @property
    def heartbeat_task(self) -> asyncio.Task[None] | None:
        """The task of the present generation, None before it started."""
        return self.tasks.get(Task.HEARTBEAT)

    @property
    def processor_task(self) -> asyncio.Task[None] | None:
        """The task of the present generation, None before it started."""
        return self.tasks.get(Task.PROCESSOR)

    @property
    def doctor_task(self) -> asyncio.Task[None] | None:
        """The task of the present generation, None before it started."""
        return self.tasks.get(Task.DOCTOR)

    @property
    def master_task(self) -> asyncio.Task[None] | None:
        """The task of the present generation; a new one with each."""
        return self.tasks.get(Task.MASTER)

    # ---------------------------------------------------------------- more

    @property
    def session_label(self) -> str | None:
        """The name under which the session appears on the bus, None without one."""
        return None if self.session is None else session_label(self.session.session_id)

    @property
    def ages(self) -> Ages:
        """How long ago things happened on this connection."""
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

    def entered(self, state: State) -> float:
        """Written by the driver: the state changed. Returns the seconds spent in the one before."""
        now = self._clock.monotonic()
        spent, self._entered_at, self.state = now - self._entered_at, now, state
        self.was_ready = self.was_ready or state is State.READY
        return spent

    def diagnose(self) -> Verdict:
        """The verdict on this shard."""
        zombie = self.pulse is not None and self.pulse.is_zombie(self._clock.monotonic())
        cause = self.cause
        if self.state is State.DISCONNECTED:
            cause = "looking up the gateway"
        elif self.state is State.RESTARTING and (holding := self.read_holding()):
            names = ", ".join(holding)
            cause = f"{cause}; goes on when {names} has room again, at the latest after its hold_off; Discord keeps the events"
        elif self.restart_due_at is not None:
            due_in = (self.restart_due_at - self._clock.now()).total_seconds()
            cause = f"{cause}; next attempt in {max(0.0, due_in):.1f} s"
        return judge(self.state, self.ages, zombie=zombie, cause=cause)

    def status(self) -> dict[str, TaskStatus]:
        """The four tasks of the present generation."""
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
        """Field names and values in the order of the listing."""
        yield "websocket", self.websocket
        yield "heartbeat_interval_ms", self.heartbeat_interval_ms
        yield "seq", self.seq
        for name, status in self.status().items():
            yield f"{name}_task", status
        yield "terminate_flag", self.terminate_flag
        yield "state", self.state
        yield "shard", (self.shard_id, self.shard_count)
        yield "session", self.session_label
        yield "generation", self.generation
        yield "ages", self.ages
        yield "last_transitions", [f"{t.source} → {t.target} ({t.trigger})" for t in list(self.transitions)[-3:]]


_SHOWN = (Task.HEARTBEAT, Task.PROCESSOR, Task.DOCTOR, Task.MASTER)
