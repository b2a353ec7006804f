"""What an operator looks at: the tracker of a control plane, one per plane and the same through all restarts.

A `ShardTracker` is written by its driver and read by anybody; `GatewayTracker` shows the whole. Health is judged here from
ages, on request; nothing in this module acts on a connection except by asking the plane to.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar, overload

from discorder.clock import Clock
from discorder.config import Config
from discorder.errors import NotRunning, NotSharded
from discorder.publishers.fanout import FanOut, PublisherHealth
from discorder.publishers.options import DeliveryOptions, EventSelection, Overflow
from discorder.publishers.protocol import Publisher
from discorder.publishers.registry import check_delivery
from discorder.statemachine import Session, State, Task
from discorder.statemachine.health import Ages, Verdict, judge
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.triggers import Name
from discorder.stats import GatewayStats, listing
from discorder.transport.protocol import Transport
from discorder.wire import session_label

TRANSITIONS_KEPT = 256

T = TypeVar("T")


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


class Plane(Protocol):
    """What the tracker asks of the control plane; callable from any thread, but for the coroutines."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def throw_to(self, shard: int, task: Task, error: BaseException) -> None: ...

    def on_loop(self, act: Callable[[], None]) -> None: ...

    def stop(self, *, goodbye: bool) -> None: ...

    def hurry(self) -> None: ...

    async def wait_ready(self) -> None: ...

    async def wait_ended(self) -> None: ...


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
        self.read_last_dispatch_at: Callable[[], float | None] = lambda: None
        self._clock = clock
        self._entered_at = clock.monotonic()

    # ---------------------------------------------------------------- the seed's names

    @property
    def seq(self) -> int | None:
        """The last sequence received, None without a session."""
        return self.read_seq()

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


class PerShard(Generic[T]):
    """A field of the only shard, readable on the whole tracker too."""

    def __init__(self, read: Callable[[ShardTracker], T]) -> None:
        self._read = read
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, tracker: None, owner: type) -> PerShard[T]: ...

    @overload
    def __get__(self, tracker: GatewayTracker, owner: type) -> T: ...

    def __get__(self, tracker: GatewayTracker | None, owner: type) -> T | PerShard[T]:
        if tracker is None:
            return self
        return self._read(tracker.only_shard(self._name))


class GatewayTracker:
    """A running control plane. With one shard every field of `ShardTracker` can be read here too.

    With several shards, reading such a field raises `NotSharded`: ask ``tracker.shards[i]``.
    """

    def __init__(self, plane: Plane, config: Config, fan_out: FanOut, shards: Sequence[ShardTracker]) -> None:
        self.config = config
        self.shards: tuple[ShardTracker, ...] = tuple(shards)
        self._plane = plane
        self._fan_out = fan_out

    websocket = PerShard(lambda shard: shard.websocket)
    heartbeat_interval_ms = PerShard(lambda shard: shard.heartbeat_interval_ms)
    seq = PerShard(lambda shard: shard.seq)
    heartbeat_task = PerShard(lambda shard: shard.heartbeat_task)
    processor_task = PerShard(lambda shard: shard.processor_task)
    doctor_task = PerShard(lambda shard: shard.doctor_task)
    master_task = PerShard(lambda shard: shard.master_task)
    state = PerShard(lambda shard: shard.state)
    session = PerShard(lambda shard: shard.session)
    session_label = PerShard(lambda shard: shard.session_label)
    generation = PerShard(lambda shard: shard.generation)
    ages = PerShard(lambda shard: shard.ages)
    transitions = PerShard(lambda shard: shard.transitions)

    def only_shard(self, what: str) -> ShardTracker:
        """The one shard there is. Raises `NotSharded`, naming ``what``, when there are several."""
        if len(self.shards) != 1:
            count = len(self.shards)
            msg = f"{what} belongs to one shard and this tracker has {count}; read tracker.shards[i].{what}"
            raise NotSharded(msg)
        return self.shards[0]

    # ---------------------------------------------------------------- the whole

    @property
    def stats(self) -> GatewayStats:
        """The counts of all shards together, cumulative."""
        total = GatewayStats.total([shard.stats for shard in self.shards])
        total.drop_count = sum(health.dropped for health in self._fan_out.health)
        return total

    @property
    def fail_on_error(self) -> bool:
        """`gateway.fail_on_error` of the configuration."""
        return self.config.gateway.fail_on_error

    @property
    def terminate_flag(self) -> bool:
        """True once a stop was asked for."""
        return any(shard.terminate_flag for shard in self.shards)

    @property
    def publishers(self) -> tuple[Publisher, ...]:
        """The publishers, those of the configuration first."""
        return self._fan_out.publishers

    @property
    def publisher_health(self) -> tuple[PublisherHealth, ...]:
        """State, queue, drops and last error of each publisher."""
        return self._fan_out.health

    def __repr__(self) -> str:
        if len(self.shards) == 1:
            listed = list(self.shards[0].listed())
        else:
            states = Counter(str(shard.state) for shard in self.shards)
            listed = [("shards", dict(states)), ("terminate_flag", self.terminate_flag)]
        place = [name for name, _ in listed].index("terminate_flag") + 1
        listed[place:place] = [
            ("fail_on_error", self.fail_on_error),
            ("config", type(self.config).__name__),
            ("stats", type(self.stats).__name__),
            ("publishers", [publisher.name for publisher in self.publishers]),
        ]
        return listing("GatewayTracker", listed)

    # ---------------------------------------------------------------- what may be asked for, from any thread

    def add_publisher(
        self,
        publisher: Publisher,
        *,
        name: str | None = None,
        required: bool = False,
        overflow: Overflow | None = None,
        events: Sequence[str] | None = None,
    ) -> None:
        """Hand every event from now on to ``publisher`` as well; it survives restarts. Opened in the background.

        ``events``: globs of the event names that it gets, None for all. The others are the configuration's keys. A publisher
        that cannot be opened shows in ``publisher_health``. Raises ValueError for a name that is taken, `ConfigError` for
        options that contradict each other.
        """
        chosen = name or publisher.name
        if chosen in {health.name for health in self._fan_out.health}:
            msg = f"there is a publisher named {chosen!r} already; pass another name="
            raise ValueError(msg)
        selection = EventSelection() if events is None else EventSelection(include=tuple(events))
        options = DeliveryOptions(required=required, overflow=overflow, events=selection)
        check_delivery(publisher, options, f"publishers.{chosen}")
        self._plane.on_loop(lambda: self._fan_out.add(publisher, options, name=chosen))

    def remove_publisher(self, name: str) -> None:
        """Close the publisher ``name`` and forget it. Raises ValueError for a name that is not there."""
        known = [health.name for health in self._fan_out.health]
        if name not in known:
            msg = f"there is no publisher named {name!r}; there are: {', '.join(known) or 'none'}"
            raise ValueError(msg)
        self._plane.on_loop(lambda: self._fan_out.remove(name))

    def throw_to(self, task: str, error: BaseException, *, shard: int | None = None) -> None:
        """Cancel ``task`` of the present generation and have ``error`` reported as its failure. Thread-safe.

        ``task``: heartbeat, processor, doctor or master. Raises ValueError for another name, `NotRunning` when that task does
        not run right now, `NotSharded` without ``shard`` when there are several.
        """
        try:
            name = Task(task)
        except ValueError:
            msg = f"there is no task {task!r}; there are: {', '.join(Task)}"
            raise ValueError(msg) from None
        tracker = self.only_shard("throw_to") if shard is None else self._shard(shard)
        running = tracker.tasks.get(name)
        if running is None or running.done():
            msg = f"the {name} of shard {tracker.shard_id} is not running (state {tracker.state})"
            raise NotRunning(msg)
        self._plane.throw_to(tracker.shard_id, name, error)

    @property
    def plane(self) -> Plane:
        """The control plane behind this tracker, as far as callers may use it."""
        return self._plane

    def _shard(self, shard_id: int) -> ShardTracker:
        for shard in self.shards:
            if shard.shard_id == shard_id:
                return shard
        msg = f"there is no shard {shard_id} here; there are: {', '.join(str(s.shard_id) for s in self.shards)}"
        raise ValueError(msg)


def is_operational(tracker: GatewayTracker) -> bool:
    """True when every shard is Ready and answers its heartbeats."""
    return diagnose(tracker).healthy


def diagnose(tracker: GatewayTracker) -> Verdict:
    """The verdict on all shards together; with several, each reason names its shard and the ages are the oldest ones."""
    verdicts = [(shard.shard_id, shard.diagnose()) for shard in tracker.shards]
    if len(verdicts) == 1:
        return verdicts[0][1]
    reasons = tuple(f"shard {shard}: {reason}" for shard, verdict in verdicts for reason in verdict.reasons)
    return Verdict(all(verdict.healthy for _, verdict in verdicts), reasons, _oldest([v.ages for _, v in verdicts]))


def get_status(tracker: GatewayTracker) -> dict[str, TaskStatus]:
    """heartbeat, processor, doctor and master: running, done, failed or absent. Raises `NotSharded` with several shards."""
    return tracker.only_shard("status()").status()


def _oldest(ages: Sequence[Ages]) -> Ages:
    oldest: dict[str, float | None] = {}
    for name in (f.name for f in fields(Ages)):
        present = [value for value in (getattr(age, name) for age in ages) if value is not None]
        oldest[name] = max(present, default=None)
    return Ages(oldest.pop("in_state") or 0.0, **oldest)
