"""What an operator looks at: the tracker of a control plane, one per plane and the same through all restarts.

`GatewayTracker` shows the whole; each shard has a `ShardTracker`. Nothing in this module acts on a connection except by asking
the plane to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, overload

from discorder.config import Config
from discorder.errors import NotRunning, NotSharded
from discorder.publishers.fanout import FanOut, PublisherHealth
from discorder.publishers.options import DeliveryOptions, EventSelection, Overflow
from discorder.publishers.protocol import Publisher
from discorder.runtime.watchdog import LoopLag
from discorder.sessions import Budget, Health, OtherUse
from discorder.statemachine import Task
from discorder.stats import GatewayStats, listing
from discorder.tracking.gateway_commands import CommandPlane, GatewayCommands
from discorder.tracking.shard_tracker import ShardTracker, TaskStatus
from discorder.tracking.startup import Progress
from discorder.transport import Compression
from discorder.wire import shard_of_guild

T = TypeVar("T")

NOTED_LAG = 10.0  # seconds for which a required publisher may be busy before it is worth a word


class Plane(CommandPlane, Protocol):
    """What the tracker asks of the control plane; callable from any thread, but for the coroutines."""

    @property
    def compression(self) -> Compression: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def store_health(self) -> Health: ...

    @property
    def budget(self) -> Budget | None: ...

    @property
    def other_use(self) -> OtherUse | None: ...

    @property
    def loop_lag(self) -> LoopLag: ...

    def throw_to(self, shard: int, task: Task, error: BaseException) -> None: ...

    def on_loop(self, act: Callable[[], None]) -> None: ...

    def stop(self, *, goodbye: bool) -> None: ...

    def hurry(self) -> None: ...

    async def wait_ready(self) -> None: ...

    async def wait_ended(self) -> None: ...


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


class GatewayTracker(GatewayCommands):
    """A running control plane. With one shard every field of `ShardTracker` can be read here too.

    With several shards, reading such a field raises `NotSharded`: ask ``tracker.shards[i]``.
    """

    def __init__(self, plane: Plane, config: Config, fan_out: FanOut, shards: Sequence[ShardTracker]) -> None:
        self.config = config
        self.shards: tuple[ShardTracker, ...] = tuple(shards)
        super().__init__(plane)
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

    def shard_for(self, guild_id: int | str) -> ShardTracker:
        """The shard that gets the events of this guild. Raises ValueError when it runs elsewhere, or for what is no id."""
        return self._shard(shard_of_guild(guild_id, self.shards[0].shard_count))

    # ---------------------------------------------------------------- the whole

    @property
    def stats(self) -> GatewayStats:
        """The counts of all shards together, cumulative."""
        total = GatewayStats.total([shard.stats for shard in self.shards])
        total.drop_count, total.gap_count = self._fan_out.dropped, self._fan_out.gaps
        return total

    @property
    def loop_lag(self) -> LoopLag:
        """How long the control plane's event loop took to come round: last, worst, and the question that waits right now."""
        return self._plane.loop_lag

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

    @property
    def compression(self) -> Compression:
        """How the gateway is asked to compress; what "auto" has chosen."""
        return self._plane.compression

    @property
    def progress(self) -> Progress:
        """How many shards have been Ready, and when the last one can be."""
        return self._plane.progress

    @property
    def store(self) -> Health:
        """How the session store does."""
        return self._plane.store_health

    @property
    def budget(self) -> Budget | None:
        """What the identify ledger says now; None before the look-up of the gateway."""
        return self._plane.budget

    @property
    def notes(self) -> tuple[str, ...]:
        """What no session suffers from now and deserves a look all the same.

        A required publisher that takes no events, the store, another process with this token.
        """
        notes = [_held_back(health) for health in self.publisher_health if health.required and health.lag > NOTED_LAG]
        health, other = self._plane.store_health, self._plane.other_use
        if health.reason and self.config.session.store:  # without a store on purpose there is nothing to look at
            notes.append(health.reason)
        if other is not None:
            notes.append(
                f"another process uses this token: {other.identifies} IDENTIFYs that were not paid for here, "
                f"last seen at {other.seen_at.isoformat(timespec='seconds')}"
            )
        return tuple(notes)

    def __repr__(self) -> str:
        whole = [("store", self.store), ("compression", self.compression), ("budget", self.budget)]
        whole.append(("loop_lag", self.loop_lag))
        if len(self.shards) == 1:
            listed = list(self.shards[0].listed())
            after_session = [name for name, _ in listed].index("session") + 1
            listed[after_session:after_session] = whole
        else:
            states = Counter(str(shard.state) for shard in self.shards)
            listed = [("shards", dict(states)), ("terminate_flag", self.terminate_flag)]
            listed += [("progress", self.progress), *whole]
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
        overflow: Overflow | str | None = None,
        events: Sequence[str] | EventSelection | None = None,
    ) -> None:
        """Hand every event from now on to ``publisher`` as well; it survives restarts. Opened in the background. Thread-safe.

        ``events``: globs of the names of the events that it gets, or an `EventSelection`; None for all. The others are the
        configuration's keys. A publisher that cannot be opened shows in ``publisher_health``. Raises ValueError for a name
        that is taken and for an unknown policy, `ConfigError` for options that contradict each other, `NotRunning` after the
        end.
        """
        policy = None if overflow is None else Overflow(overflow)
        options = DeliveryOptions(required=required, overflow=policy, events=_selection(events))
        self._fan_out.add(publisher, options, name=name)

    def remove_publisher(self, name: str) -> None:
        """Close the publisher ``name`` and forget it. Thread-safe.

        Raises ValueError for a name that is not there, `NotRunning` after the end.
        """
        self._fan_out.remove(name)

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


def _selection(events: Sequence[str] | EventSelection | None) -> EventSelection:
    if events is None:
        return EventSelection()
    if isinstance(events, EventSelection):
        return events
    return EventSelection(include=(events,) if isinstance(events, str) else tuple(events))


def get_status(tracker: GatewayTracker) -> dict[str, TaskStatus]:
    """heartbeat, processor, doctor and master: running, done, failed or absent. Raises `NotSharded` with several shards."""
    return tracker.only_shard("status()").status()


def _held_back(health: PublisherHealth) -> str:
    why = f", last error: {health.last_error}" if health.last_error else ""
    return (
        f"publisher {health.name} ({health.state}) has not accepted an event for {health.lag:.0f} s{why}; "
        "it is required, so the resume point waits for it"
    )
