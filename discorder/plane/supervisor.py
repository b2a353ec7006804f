"""Start the shards of one control plane, and supervise them together with the look-up and the ticker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from discorder.clock import Clock
from discorder.errors import AttemptsExhausted, DiscorderError, GatewayFailure, VerbRefused
from discorder.logs import logger
from discorder.outbound.outbound import Outbound
from discorder.plane.guild_recovery import GuildRecovery
from discorder.plane.main_host import MainHost
from discorder.plane.session_persistence import Layout, Sessions
from discorder.plane.shard_factory import ShardFactory, make_trackers
from discorder.runtime.ticker import Ticker
from discorder.sessions import StoredSession
from discorder.shard.driver import ShardDriver
from discorder.statemachine import ShardMachine, State, Task
from discorder.statemachine.commands import DropPause, Ignored, SavePause
from discorder.statemachine.triggers import Restart, Verb
from discorder.tracking.shard_tracker import ShardTracker
from discorder.tracking.startup import StartUp
from discorder.tracking.tracker import GatewayTracker


class Supervisor:
    """Owns the drivers and their tasks. ``stopping`` is set when a stop was requested; `run` sets it when something failed."""

    def __init__(
        self,
        tracker: GatewayTracker,
        layout: Layout | None,
        clock: Clock,
        *,
        sessions: Sessions,
        main_host: MainHost,
        recovery: GuildRecovery,
        factory: ShardFactory,
        outbound: Outbound,
        start_up: StartUp,
        stopping: asyncio.Event,
        stop: Callable[[], None],
    ) -> None:
        self._tracker = tracker
        self._layout = layout
        self._clock = clock
        self._sessions = sessions
        self._main_host = main_host
        self._recovery = recovery
        self._factory = factory
        self._outbound = outbound
        self._start_up = start_up
        self._stopping = stopping
        self._stop = stop
        self._drivers: dict[int, ShardDriver] = {}

    async def run(self) -> None:
        """Run the look-up and the shards; the first error ends all of them, and is raised when they have ended."""
        if self._layout is not None:
            self._recovery.use_layout(*self._layout)
        stored = await self._sessions.load(self._layout)
        ticker = Ticker(self._clock, jumped=self._probe, act=self._each_second)
        look_up = asyncio.create_task(self._main_host.ask(), name="look-up")
        ticking = asyncio.create_task(ticker.run(), name="ticker")
        beside: set[asyncio.Task[Any]] = {asyncio.create_task(self._stopping.wait(), name="stopping"), ticking}
        tasks = {look_up, *self._start([shard for shard in self._tracker.shards if shard.shard_id in stored], stored)}
        error: BaseException | None = None
        try:
            while tasks:
                done, _ = await asyncio.wait({*tasks, *beside}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & {*tasks, ticking}:
                    tasks.discard(task)
                    beside.discard(task)
                    error = error or _failure_of(task)
                if error is not None:
                    self._stop()
                elif look_up in done and not self._stopping.is_set():
                    tasks |= await self._start_the_rest()
                if self._stopping.is_set():
                    look_up.cancel()
                    tasks.discard(look_up)
                    beside = {task for task in beside if not task.done()}
        finally:
            for task in (look_up, *tasks, *beside):
                task.cancel()
            await asyncio.gather(look_up, *tasks, *beside, return_exceptions=True)
        if error is not None:
            self._name_stored_sessions(stored, error)
            raise error

    def stop(self, *, goodbye: bool) -> None:
        """Begin a graceful stop of every shard."""
        for driver in self._drivers.values():
            driver.stop(goodbye=goodbye)

    def abort(self) -> None:
        """End every shard that stops at once."""
        for driver in self._drivers.values():
            driver.abort()

    def request(self, shard_id: int, what: Verb) -> None:
        """Take an operator's verb for one shard. Raises `VerbRefused`."""
        shard = next(one for one in self._tracker.shards if one.shard_id == shard_id)
        driver = self._drivers.get(shard_id)
        refused = driver.request(what) if driver is not None else self._before_its_driver(shard, what)
        if refused is not None:
            raise VerbRefused(what.name.value, shard_id, shard.state, refused)

    def _before_its_driver(self, shard: ShardTracker, what: Verb) -> str | None:
        """Take a verb for a shard that waits for the look-up of the gateway. The table decides here, too."""
        if self._stopping.is_set():
            return "the control plane is stopping"
        if self._layout is None and not self._drivers:
            return "the number of shards is not known yet: GET /gateway/bot has not been answered"
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
        self._drivers[shard].throw_to(task, error)

    def _each_second(self) -> None:
        self._sessions.checkpoint()
        for shard_id in self._recovery.due():
            if self._drivers[shard_id].tracker.state is State.READY:
                self._drivers[shard_id].request(Restart("the identify budget allows a session with guilds now"))

    def _probe(self) -> None:
        for driver in self._drivers.values():
            driver.probe()

    async def _start_the_rest(self) -> set[asyncio.Task[None]]:
        """Start the shards without a stored session: the layout is known now, and IDENTIFYs can be paid for."""
        info, stored = self._main_host.info, dict[int, StoredSession]()
        if self._layout is None:
            layout = range(info.shards), info.shards
            self._tracker.shards = tuple(make_trackers(*layout, self._clock))
            self._recovery.use_layout(*layout)
            self._sessions.apply_pauses(self._tracker.shards)
            stored.update(await self._sessions.load(layout))
        shards = self._tracker.shards
        self._sessions.set_limits(info, shards[0].shard_count)
        tasks = self._start([shard for shard in shards if shard.shard_id not in self._drivers], stored)
        self._start_up.announce()
        return tasks

    def _start(self, shards: Sequence[ShardTracker], stored: Mapping[int, StoredSession]) -> set[asyncio.Task[None]]:
        tasks: set[asyncio.Task[None]] = set()
        if self._stopping.is_set():  # while the publishers were opened, or the store was read
            return tasks
        for shard in shards:
            driver = self._drivers[shard.shard_id] = self._factory.driver(shard, stored.get(shard.shard_id))
            self._outbound.add((shard.shard_id, shard.shard_count), driver.sender)
            tasks.add(asyncio.create_task(driver.run(), name=f"shard-{shard.shard_id}"))
        return tasks

    def _name_stored_sessions(self, stored: Mapping[int, StoredSession], error: BaseException) -> None:
        """Log which stored sessions this start could not resume, and how to drop them: the next start would try them again."""
        if not isinstance(error, GatewayFailure | AttemptsExhausted):
            return
        for shard in self._tracker.shards:
            session = stored.get(shard.shard_id)
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
