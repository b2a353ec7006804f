"""`GatewayTracker`: show the state of a control plane, and pass its calls for publishers, tasks and shards to the plane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar, overload

from discorder.config import Config
from discorder.errors import NotRunning, NotSharded
from discorder.guilds import GuildsSnapshot
from discorder.logs import logger
from discorder.publishers.delivery.fanout import FanOut
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.publishers.options import DeliveryOptions, EventSelection, Overflow
from discorder.publishers.protocol import Publisher
from discorder.runtime.loops import on_loop
from discorder.runtime.watchdog import LoopLag
from discorder.sessions import Budget, Health, IdentifyQueue, OtherUse, SavedSessions
from discorder.statemachine import Task
from discorder.statemachine.triggers import Pause, Restart, Unpause, Verb
from discorder.stats import GatewayStats, listing
from discorder.tracking.facade_status import FacadeStatus
from discorder.tracking.gateway_commands import GatewayCommands
from discorder.tracking.guilds import KnownGuilds
from discorder.tracking.notes import (
    Note,
    bots_away,
    bots_behind,
    lagging,
    look_up_fails,
    no_facade,
    no_guilds,
    parked,
    shared_token,
    store_trouble,
)
from discorder.tracking.protocol import Plane
from discorder.tracking.shard_tracker import ShardTracker, TaskStatus, Transition
from discorder.tracking.startup import StartProgress
from discorder.transport import Compression
from discorder.wire import shard_of_guild

T = TypeVar("T")
TransitionWatcher = Callable[[ShardTracker, Transition], None]

NOTED_LAG = 10.0  # seconds without progress after which a required publisher is in `GatewayTracker.notes`


class PerShard(Generic[T]):
    """A field of `ShardTracker` that `GatewayTracker` offers if there is one shard."""

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
    """A running control plane; the same object through all restarts. With one shard it has every field of `ShardTracker`.

    With several shards, reading such a field raises `NotSharded`: read it from ``tracker.shards[i]``.
    """

    def __init__(self, plane: Plane, config: Config, fan_out: FanOut, shards: Sequence[ShardTracker]) -> None:
        self.config = config
        self.shards: tuple[ShardTracker, ...] = tuple(shards)
        self.shard_count = 1  # of the bot, as far as it is known
        super().__init__(plane)
        self._plane = plane
        self._fan_out = fan_out
        self._watchers: tuple[TransitionWatcher, ...] = ()
        self._left: GatewayStats | None = None  # the counts of the shards that have left

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
        """Return the only shard. Raises `NotSharded`, naming ``what``, if there are several."""
        if len(self.shards) != 1:
            count = len(self.shards)
            msg = f"{what} belongs to one shard and this tracker has {count}; read tracker.shards[i].{what}"
            raise NotSharded(msg)
        return self.shards[0]

    def shard_for(self, guild_id: int | str) -> ShardTracker:
        """Return the shard that gets the events of this guild. Raises ValueError if it runs elsewhere, or for an invalid id."""
        return self._shard(shard_of_guild(guild_id, self.shard_count))

    # ---------------------------------------------------------------- all shards together

    @property
    def stats(self) -> GatewayStats:
        """The counts of all shards since the start."""
        total = GatewayStats.total(self.counts)
        total.drop_count, total.gap_count = self.lost
        return total

    @property
    def counts(self) -> list[GatewayStats]:
        """The parts of ``stats``: one per shard, and one for those that were released. Each shard counts its own events only."""
        counts = [shard.stats for shard in self.shards]
        return counts if self._left is None else [self._left, *counts]

    @property
    def gaps_for_all(self) -> int:
        """The gaps that every publisher has: lost sessions, and events that did not come. Part of ``stats.gap_count``."""
        return self._fan_out.gaps_for_all

    @property
    def lost(self) -> tuple[int, int]:
        """The events that publishers dropped since the start, and the gaps: lost sessions and runs of dropped events."""
        return self._fan_out.dropped, self._fan_out.gaps

    @property
    def loop_lag(self) -> LoopLag:
        """The delays of the control plane's event loop: the last, the longest, and the current one."""
        return self._plane.loop_lag

    @property
    def fail_on_error(self) -> bool:
        """`gateway.fail_on_error` of the configuration."""
        return self.config.gateway.fail_on_error

    @property
    def terminate_flag(self) -> bool:
        """True once a stop was requested."""
        return self._plane.is_stopping

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
        """The compression that the gateway is asked for; "auto" is resolved."""
        return self._plane.compression

    @property
    def progress(self) -> StartProgress:
        """How many shards have been Ready, and the estimate for the last one."""
        return self._plane.progress

    @property
    def store(self) -> Health:
        """The state of the session store."""
        return self._plane.store_health

    @property
    def budget(self) -> Budget | None:
        """The current identify budget; None before the look-up of the gateway."""
        return self._plane.budget

    @property
    def notes(self) -> tuple[str, ...]:
        """Problems that affect no session now, one sentence each.

        A required publisher that accepts no events, a parked best-effort publisher, the store, another process with this token,
        a look-up that fails, shards whose guilds are not known, bots of the façade that do not keep up or are not
        connected, or no façade for them.
        """
        return tuple(note.text for note in self.noted)

    @property
    def noted(self) -> tuple[Note, ...]:
        """The `notes` with a kind and a title each."""
        health, store = self.publisher_health, self._plane.store_health
        found = [lagging(one) for one in health if one.required and one.lag > NOTED_LAG]
        found += [parked(one) for one in health if one.state is PublisherState.PARKED]
        if store.reason and self.config.session.store:  # no note if the configuration has no store
            found.append(store_trouble(store))
        if self.other_use is not None:
            found.append(shared_token(self.other_use))
        if self.look_up_trouble is not None:
            found.append(look_up_fails(self.look_up_trouble))
        if shards := self._plane.shards_without_guilds:
            found.append(no_guilds(shards))
        facade = self.facade
        bots = self.config.facade.clients
        found += [*no_facade(facade, bots), *bots_behind(facade), *bots_away(facade, bots)]
        return tuple(found)

    @property
    def other_use(self) -> OtherUse | None:
        """The IDENTIFYs of this bot that no process with this store has paid for; None while none was noticed."""
        return self._plane.other_use

    @property
    def identify_queue(self) -> IdentifyQueue:
        """The shards that wait for an IDENTIFY, with the estimated seconds until each may send it."""
        return self._plane.identify_queue

    @property
    def saved_sessions(self) -> SavedSessions:
        """How many sessions are stored, and when the last one was written."""
        return self._plane.saved_sessions

    @property
    def guilds(self) -> KnownGuilds:
        """The guilds by id, as Discord's GUILD_CREATE would show each of them now. Needs a journal (``facade.journal``)."""
        return KnownGuilds(self._read_guilds)

    @property
    def facade(self) -> FacadeStatus:
        """Where the façade listens, the bots that may connect to it, and their sessions (docs/facade.md)."""
        return self._plane.facade

    @property
    def status_url(self) -> str | None:
        """The address of the status page, with the port that was chosen; None while it is not served."""
        return self._plane.status_url

    @property
    def look_up_trouble(self) -> str | None:
        """Why ``GET /gateway/bot`` has failed so far; None before its first failure and after its answer."""
        return self._plane.look_up_trouble

    def _read_guilds(self) -> list[GuildsSnapshot]:
        read = [self._plane.guilds_of(shard.shard_id) for shard in self.shards]
        return [snapshot for snapshot in read if snapshot is not None]

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

    # ---------------------------------------------------------------- thread-safe calls

    def add_publisher(
        self,
        publisher: Publisher,
        *,
        name: str | None = None,
        required: bool = False,
        overflow: Overflow | str | None = None,
        events: Sequence[str] | EventSelection | None = None,
    ) -> None:
        """Open ``publisher`` in the background and send it every later event. It stays through restarts. Thread-safe.

        ``events``: globs of event names, or an `EventSelection`; None for all events. The other arguments are the
        configuration's keys. If it cannot be opened, ``publisher_health`` shows the error. Raises ValueError for a name
        in use and for an unknown policy, `ConfigError` for options that contradict each other, `NotRunning` after the
        end.
        """
        policy = None if overflow is None else Overflow(overflow)
        options = DeliveryOptions(required=required, overflow=policy, events=_selection(events))
        self._fan_out.add(publisher, options, name=name)

    def remove_publisher(self, name: str) -> None:
        """Close and remove the publisher ``name``. Thread-safe.

        Raises ValueError for an unknown name, `NotRunning` after the end.
        """
        self._fan_out.remove(name)

    def throw_to(self, task: str, error: BaseException, *, shard: int | None = None) -> None:
        """Cancel ``task`` of the current connection and report ``error`` as its failure. Thread-safe.

        ``task``: heartbeat, processor, doctor or master. Raises ValueError for another name, `NotRunning` if that task is
        not running, `NotSharded` without ``shard`` if there are several shards.
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

    def watch(self, watcher: TransitionWatcher) -> Callable[[], None]:
        """Call ``watcher`` on the plane's loop after each transition of a shard. Return the way to end that."""
        self._watchers = (*self._watchers, watcher)

        def end() -> None:
            self._watchers = tuple(one for one in self._watchers if one is not watcher)

        return end

    def transitioned(self, shard: ShardTracker, step: Transition) -> None:
        """Pass a transition to the watchers. The plane calls it."""
        for watcher in self._watchers:
            try:
                watcher(shard, step)
            except Exception:  # noqa: BLE001  # a failure to show a transition must not end the shard
                logger.exception("A transition could not be shown", shard=shard.shard_id)

    def use_layout(self, shards: Iterable[ShardTracker], shard_count: int) -> None:
        """Show these shards, of ``shard_count``. The plane calls it."""
        self.shard_count = shard_count
        self.shards = tuple(sorted(shards, key=lambda shard: shard.shard_id))

    def forget(self, shard: ShardTracker) -> None:
        """Show a shard no more that has ended here; its counts stay in ``stats``. The plane calls it."""
        self._left = GatewayStats.total([shard.stats] if self._left is None else [self._left, shard.stats])
        self.shards = tuple(one for one in self.shards if one is not shard)

    # ---------------------------------------------------------------- one shard: thread-safe, and the answer is awaited

    def restart_shard(self, shard_id: int) -> None:
        """Give up the connection of a shard and resume its session at once; end the back-off of a shard that waits.

        A wait that Discord, its host or the identify gate asked for is not shortened, and no failed attempt is counted.

        Raises ValueError for an unknown shard, `VerbRefused` with the reason where it has no effect, `NotRunning` after the end.
        """
        self._request(shard_id, Restart())

    def pause_shard(self, shard_id: int) -> None:
        """Close the connection of a shard so that its session can be resumed, and do not dial until `unpause_shard`.

        The pause is stored, and holds after a restart of the process, too; `wait_stored` returns once it is on the disk. The
        shard counts as not healthy. `TrackerRef.ready` does not wait for it, unless all shards are paused.

        Raises ValueError for an unknown shard, `VerbRefused` for a shard that is paused or stopping, `NotRunning` after the end.
        """
        self._request(shard_id, Pause())

    def unpause_shard(self, shard_id: int) -> None:
        """Let a paused shard dial again, at once: it resumes its session, or identifies if it has none.

        A wait that Discord, its host or the identify gate asked for is not shortened.

        Raises ValueError for an unknown shard, `VerbRefused` for a shard that is not paused, `NotRunning` after the end.
        """
        self._request(shard_id, Unpause())

    async def release_shard(self, shard_id: int) -> None:
        """Give a shard up: another process with this session store may start it, and resumes its session. On any event loop.

        Closes its connection so that the session is kept, waits up to ``session.drain_timeout`` until the publishers have its
        events, and stores how far they came. The last shard may be released; the control plane then waits for `start_shard`.

        Returns when others may start it; a cancelled call does not end the release. Raises ValueError for an unknown shard,
        `VerbRefused` where it cannot be given up, `NotRunning` when the control plane stops or has ended.
        """
        await on_loop(self._plane.loop, self._plane.release_shard(self._shard(shard_id).shard_id))

    async def start_shard(self, shard_id: int) -> None:
        """Run one more shard of this bot: resume its stored session, or identify if there is none. On any event loop.

        Returns when it connects, or waits for the look-up. Raises ValueError for a number that no shard has, `StoreLocked`, which
        names the process that runs it, `VerbRefused` for a shard that is here, `NotRunning` when the control plane stops or has
        ended.
        """
        await on_loop(self._plane.loop, self._plane.start_shard(shard_id))

    async def wait_stored(self) -> None:
        """Return once what was to be stored is written, or the store has failed, which ``store`` shows. On any event loop.

        Raises `NotRunning` after the end.
        """
        await on_loop(self._plane.loop, self._plane.wait_stored())

    def _request(self, shard_id: int, what: Verb) -> None:
        self._plane.request(self._shard(shard_id).shard_id, what)

    @property
    def plane(self) -> Plane:
        """The control plane of this tracker."""
        return self._plane

    def _shard(self, shard_id: int) -> ShardTracker:
        for shard in self.shards:
            if shard.shard_id == shard_id:
                return shard
        known = ", ".join(str(shard.shard_id) for shard in self.shards)
        msg = f"there is no shard {shard_id} here; there are: {known or 'none'}"
        raise ValueError(msg)


def _selection(events: Sequence[str] | EventSelection | None) -> EventSelection:
    if events is None:
        return EventSelection()
    if isinstance(events, EventSelection):
        return events
    return EventSelection(include=(events,) if isinstance(events, str) else tuple(events))


def get_status(tracker: GatewayTracker) -> dict[str, TaskStatus]:
    """Return the status of heartbeat, processor, doctor and master. Raises `NotSharded` with several shards."""
    return tracker.only_shard("status()").status()
