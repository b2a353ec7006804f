"""Start and release the shards of one control plane, and supervise them together with the look-up and the ticker.

A released shard leaves in this order: its socket is closed resumably, the tracker shows it no more, the publishers get what they
lack of it, how far they came is stored, and its lock is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from discorder.clock import Clock
from discorder.errors import AttemptsExhausted, DiscorderError, GatewayFailure, NotRunning, VerbRefused
from discorder.logs import logger
from discorder.outbound.outbound import Outbound
from discorder.plane.guild_recovery import GuildRecovery
from discorder.plane.main_host import MOST_SHARDS, MainHost
from discorder.plane.session_persistence import Layout, Sessions
from discorder.plane.shard_factory import ShardFactory, make_trackers
from discorder.publishers.delivery.fanout import FanOut
from discorder.runtime.ticker import Ticker
from discorder.sessions import StoredSession, StoreState
from discorder.shard.driver import ShardDriver
from discorder.statemachine import ShardMachine, State, Task
from discorder.statemachine.commands import DropPause, Ignored, SavePause
from discorder.statemachine.triggers import Restart, Verb
from discorder.tracking.shard_tracker import ShardTracker
from discorder.tracking.startup import StartUp
from discorder.tracking.tracker import GatewayTracker

T = TypeVar("T")

STOPPING: Final = "the control plane is stopping"
COUNT_UNKNOWN: Final = "the number of shards is not known yet: GET /gateway/bot has not been answered"
NOT_HERE: Final = "not here"


class Supervisor:
    """Owns the drivers and their tasks. ``stopping`` is set when a stop was requested; `run` sets it when something failed."""

    def __init__(
        self,
        tracker: GatewayTracker,
        layout: Layout | None,
        clock: Clock,
        *,
        drain_timeout: float,
        sessions: Sessions,
        main_host: MainHost,
        recovery: GuildRecovery,
        factory: ShardFactory,
        fan_out: FanOut,
        outbound: Outbound,
        start_up: StartUp,
        stopping: asyncio.Event,
        stop: Callable[[], None],
    ) -> None:
        self._tracker = tracker
        self._layout = layout
        self._clock = clock
        self._drain_timeout = drain_timeout
        self._sessions = sessions
        self._main_host = main_host
        self._recovery = recovery
        self._factory = factory
        self._fan_out = fan_out
        self._outbound = outbound
        self._start_up = start_up
        self._stopping = stopping
        self._stop = stop
        self._count = None if layout is None else layout[1]  # of shards; None until the look-up has answered
        self._drivers: dict[int, ShardDriver] = {}
        self._stored: dict[int, StoredSession] = {}  # with which the present shards began
        self._running: dict[int, asyncio.Task[None]] = {}  # the drivers
        self._moves: dict[int, asyncio.Task[None]] = {}  # shards that are being started or released
        self._moved = False  # a shard was started or released
        self._may_identify = False  # the look-up has answered
        self._tasks: set[asyncio.Task[Any]] = set()  # those that run until the end, and whose failure is the end
        self._looking_up: asyncio.Task[None] | None = None
        self._error: BaseException | None = None  # the first
        self._woken = asyncio.Event()

    @property
    def own_layout(self) -> Layout | None:
        """Return the shards that are here, and the count; None for all while they are not known, or all are."""
        if self._layout is None and not self._moved:
            return None
        return [shard.shard_id for shard in self._tracker.shards], self._tracker.shard_count

    async def run(self) -> None:
        """Run the look-up and the shards until a stop; the first error ends all of them, and is raised when they have ended."""
        if self._layout is not None:
            self._use_layout(self._layout)
        self._stored.update(await self._sessions.load(self._layout))
        ticker = Ticker(self._clock, jumped=self._probe, act=self._each_second)
        ticking = self._watch(asyncio.create_task(ticker.run(), name="ticker"))
        self._start([shard for shard in self._tracker.shards if shard.shard_id in self._stored])
        looking_up = self._looking_up = self._watch(asyncio.create_task(self._main_host.ask(), name="look-up"))
        looking_up.add_done_callback(self._looked_up)
        if self._stopping.is_set():
            self._end_look_up()
        try:
            while self._tasks - {ticking} or self._moves or not self._stopping.is_set():
                await self._woken.wait()
                self._woken.clear()
        finally:
            left = {looking_up, ticking, *self._tasks, *self._moves.values()}
            self._tasks.clear()
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._error is not None:
            self._name_stored_sessions(self._error)
            raise self._error

    def _watch(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Note the end of a task; if it failed, all must end."""
        if task not in self._tasks:
            return
        self._tasks.discard(task)
        self._error = self._error or _failure_of(task)
        if self._error is not None:
            self._stop()
        self._woken.set()

    def _looked_up(self, looking_up: asyncio.Task[None]) -> None:
        if not looking_up.cancelled() and looking_up.exception() is None and not self._stopping.is_set():
            self._watch(asyncio.create_task(self._start_the_rest(), name="start-the-rest"))

    def _end_look_up(self) -> None:
        if self._looking_up is not None:
            self._tasks.discard(self._looking_up)
            self._looking_up.cancel()
        self._woken.set()

    def stop(self, *, goodbye: bool) -> None:
        """Begin a graceful stop of every shard."""
        for driver in self._drivers.values():
            driver.stop(goodbye=goodbye)
        self._end_look_up()

    def abort(self) -> None:
        """End every shard that stops at once."""
        for driver in self._drivers.values():
            driver.abort()
        for move in self._moves.values():
            move.cancel()

    def request(self, shard_id: int, what: Verb) -> None:
        """Take an operator's verb for one shard. Raises `VerbRefused`."""
        shard = self._here(shard_id, what.name.value)
        driver = self._drivers.get(shard_id)
        refused = driver.request(what) if driver is not None else self._before_its_driver(shard, what)
        if refused is not None:
            raise VerbRefused(what.name.value, shard_id, shard.state, refused)

    def _before_its_driver(self, shard: ShardTracker, what: Verb) -> str | None:
        """Take a verb for a shard that waits for the look-up of the gateway. The table decides here, too."""
        if self._stopping.is_set():
            return STOPPING
        if self._count is None:
            return COUNT_UNKNOWN
        machine = ShardMachine(paused=shard.paused_since is not None)
        try:
            commands = machine.handle(what)
        finally:
            machine.retire()
        identity = shard.shard_id, shard.shard_count
        for wanted in commands:
            match wanted:
                case Ignored(why=why):
                    return why
                case SavePause():
                    shard.paused_since = self._clock.now()
                    self._sessions.pause(identity, shard.paused_since)
                case DropPause():
                    shard.paused_since = None
                    self._sessions.unpause(identity)
        return None

    def throw_to(self, shard: int, task: Task, error: BaseException) -> None:
        """See `GatewayTracker.throw_to`."""
        driver = self._drivers.get(shard)
        if driver is not None:  # it has not left since
            driver.throw_to(task, error)

    def _each_second(self) -> None:
        self._sessions.checkpoint()
        for shard_id in self._recovery.due():
            if self._drivers[shard_id].tracker.state is State.READY:
                self._drivers[shard_id].request(Restart("the identify budget allows a session with guilds now"))

    def _probe(self) -> None:
        for driver in self._drivers.values():
            driver.probe()

    async def _start_the_rest(self) -> None:
        """Start the shards without a stored session: the layout is known now, and IDENTIFYs can be paid for."""
        info = self._main_host.info
        if self._layout is None:
            layout = range(info.shards), info.shards
            trackers = make_trackers(*layout, self._clock)
            self._sessions.apply_pauses(trackers)
            self._stored.update(await self._sessions.load(layout))
            self._tracker.use_layout(trackers, info.shards)
            self._use_layout(layout)
        self._may_identify = True
        self._sessions.set_limits(info, self._tracker.shard_count)
        self._start(self._tracker.shards)
        self._start_up.announce()

    def _use_layout(self, layout: Layout) -> None:
        ids, self._count = layout
        self._recovery.use_layout(ids, self._count)
        if not ids:
            self._outbound.use_layout(self._count)

    def _start(self, shards: Sequence[ShardTracker]) -> None:
        """Start those of ``shards`` that have no driver yet."""
        if self._stopping.is_set():  # while the publishers were opened, or the store was read
            return
        for shard in shards:
            if shard.shard_id in self._drivers:
                continue
            driver = self._drivers[shard.shard_id] = self._factory.driver(shard, self._stored.get(shard.shard_id))
            self._outbound.add((shard.shard_id, shard.shard_count), driver.sender)
            task = asyncio.create_task(driver.run(), name=f"shard-{shard.shard_id}")
            self._running[shard.shard_id] = self._watch(task)

    # ---------------------------------------------------------------- shards that come and go

    def start_shard(self, shard_id: int) -> asyncio.Task[None]:
        """Begin to run one more shard; the task ends when it has a driver or waits for the look-up. See `GatewayTracker`."""
        count = self._known_count("start", shard_id, NOT_HERE)
        if not 0 <= shard_id < count:
            msg = f"there is no shard {shard_id} of {count}; they are 0 to {count - 1}"
            raise ValueError(msg)
        for shard in self._tracker.shards:
            if shard.shard_id == shard_id:
                raise VerbRefused("start", shard_id, shard.state, "it is here already")
        if len(self._tracker.shards) >= MOST_SHARDS:
            raise VerbRefused("start", shard_id, NOT_HERE, f"one process runs {MOST_SHARDS} shards at most")
        return self._move(shard_id, self._take((shard_id, count)), f"start-shard-{shard_id}")

    def release_shard(self, shard_id: int) -> asyncio.Task[None]:
        """Begin to give a shard up; the task ends when another process may take it. See `GatewayTracker`."""
        shard = self._here(shard_id, "release")
        self._known_count("release", shard_id, shard.state)
        health = self._sessions.health
        if health.state in {StoreState.FAILING, StoreState.UNUSABLE}:
            why = f"the session store cannot hand its session on: {health.reason}"
            raise VerbRefused("release", shard_id, shard.state, why)
        return self._move(shard_id, self._give_up(shard), f"release-shard-{shard_id}")

    def _here(self, shard_id: int, verb: str) -> ShardTracker:
        for shard in self._tracker.shards:
            if shard.shard_id == shard_id:
                return shard
        raise VerbRefused(verb, shard_id, NOT_HERE, "it has left this process")

    def _known_count(self, verb: str, shard_id: int, state: str) -> int:
        """Return the number of shards. Raises `VerbRefused` and `NotRunning` while no shard can come or go."""
        if self._stopping.is_set():
            raise NotRunning(STOPPING)
        if self._count is None:
            raise VerbRefused(verb, shard_id, state, COUNT_UNKNOWN)
        if shard_id in self._moves:
            raise VerbRefused(verb, shard_id, state, "it is being started or released")
        if self._recovery.keeps_guilds:
            raise VerbRefused(verb, shard_id, state, "the journal of the façade does not move with a shard")
        return self._count

    def _move(self, shard_id: int, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        move = self._moves[shard_id] = asyncio.create_task(work, name=name)
        self._moved = True

        def ended(_: asyncio.Task[None]) -> None:
            del self._moves[shard_id]
            if not move.cancelled() and (error := move.exception()) is not None:
                logger.warning("A shard was not started or released", shard=shard_id, reason=str(error))
            self._woken.set()

        move.add_done_callback(ended)
        return move

    async def _take(self, identity: tuple[int, int]) -> None:
        """Hold a shard, and run it."""
        shard_id, count = identity
        await self._sessions.acquire(identity)
        stored = await self._sessions.load(([shard_id], count))
        if self._stopping.is_set():  # the end of the process gives the lock back
            raise NotRunning(STOPPING)
        (shard,) = make_trackers([shard_id], count, self._clock)
        self._sessions.apply_pauses([shard])
        self._stored.update(stored)
        self._tracker.use_layout((*self._tracker.shards, shard), count)
        logger.info("The shard is held by this process now", shard=shard_id, to_resume=shard_id in stored)
        if stored or self._may_identify:
            self._start([shard])

    async def _give_up(self, shard: ShardTracker) -> None:
        """Let a shard end, and another process hold it."""
        shard_id = shard.shard_id
        identity = shard_id, shard.shard_count
        running = self._running.get(shard_id)
        if running is not None:
            self._drivers[shard_id].stop(goodbye=False)
            await asyncio.wait([running])
            if running.cancelled() or running.exception() is not None:
                raise NotRunning(STOPPING)
        if self._stopping.is_set():  # the stop of the control plane hands it on with all others
            raise NotRunning(STOPPING)
        self._tracker.forget(shard)
        self._outbound.remove(shard_id)
        for kept in (self._drivers, self._running, self._stored):
            kept.pop(shard_id, None)
        drain = self._fan_out.drain(self._drain_timeout, shard_id)
        await self._unless_stopping(drain, f"drain-shard-{shard_id}")
        if self._stopping.is_set():
            raise NotRunning(STOPPING)
        self._sessions.leave(identity)
        self._fan_out.forget(shard_id)
        others = [(one.shard_id, one.shard_count) for one in self._tracker.shards]
        await self._unless_stopping(self._sessions.give_back(identity, others), f"give-back-shard-{shard_id}")
        logger.info("The shard is released: another process may start it", shard=shard_id)

    async def _unless_stopping(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Await ``work``. A stop cancels it: then `NotRunning` is raised, and the stop hands on what is left."""
        working = asyncio.create_task(work, name=name)
        stopping = asyncio.create_task(self._stopping.wait(), name="stopping")
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)
        if working.cancelled():
            raise NotRunning(STOPPING)
        working.result()

    def _name_stored_sessions(self, error: BaseException) -> None:
        """Log which stored sessions this start could not resume, and how to drop them: the next start would try them again."""
        if not isinstance(error, GatewayFailure | AttemptsExhausted):
            return
        for shard in self._tracker.shards:
            session = self._stored.get(shard.shard_id)
            if session is None or shard.was_ready or shard.session is None:
                continue
            note = (
                f"shard {shard.shard_id} began with the stored session {session.label} "
                f"of {session.updated_at.isoformat(timespec='seconds')}, and neither its resume host nor the main host "
                "took it; the next start tries it again, unless it is dropped with `discorder sessions drop`"
            )
            logger.error(
                "A stored session could not be resumed", shard=shard.shard_id, session=session.label, note=note
            )
            error.add_note(note)


def _failure_of(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():
        return DiscorderError(f"{task.get_name()} was cancelled by somebody other than the control plane")
    return task.exception()
