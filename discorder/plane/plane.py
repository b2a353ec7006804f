"""The control plane as an object: the shards of one bot, the publishers they share, and how all of it starts and ends.

It supervises; how a shard is put together stands in assembly.py, and what a shard does is its driver's affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from discorder.config import Config
from discorder.errors import ConfigError, DiscorderError
from discorder.logs import logger
from discorder.outbound.outbound import Outbound
from discorder.plane.assembly import Assembly, Surroundings, configured_layout, make_trackers
from discorder.plane.desk import PlaneDesk
from discorder.plane.keeping import NO_CLAIM, Claim, Sessions
from discorder.plane.lifeline import Lifeline, finish_gracefully
from discorder.publishers.fanout import FanOut
from discorder.rest import BotClient, GatewayInfo, look_up
from discorder.runtime.ticker import Ticker
from discorder.runtime.watchdog import LoopLag, Watchdog
from discorder.sessions import Budget, Health, OtherUse, StoredSession, bot_key, open_store, token_key
from discorder.shard.driver import ShardDriver
from discorder.statemachine import Task
from discorder.tracking.shard_tracker import ShardTracker
from discorder.tracking.startup import Progress, StartUp
from discorder.tracking.tracker import GatewayTracker
from discorder.transport import Compression, choose_compression

__all__ = ["ControlPlane", "Surroundings"]

LOOK_UP_TRIES_UNDER_FAIL_ON_ERROR = 5


class ControlPlane:
    """One bot's control plane. Made on the loop that it runs on; `run` is called once.

    `stop` may come at any time and from any thread. ``claim``: what to do about shards that another process holds.
    """

    def __init__(
        self,
        config: Config,
        client: BotClient,
        surroundings: Surroundings | None = None,
        *,
        claim: Claim = NO_CLAIM,
    ) -> None:
        self._config = config
        self._client = client
        self._around = surroundings or Surroundings()
        self._claim = claim
        self._layout = configured_layout(config)  # None until the look-up tells
        self._compression = choose_compression(config.gateway.compress)
        logger.info("Transport compression", chosen=self._compression.value, asked=config.gateway.compress.value)
        self.outbound = Outbound(config.gateway.intents_value, self._around.clock)
        self._fan_out = FanOut(self._around.clock, PlaneDesk(self.outbound, self._shards))
        for publisher, options in config.build_publishers():
            self._fan_out.add(publisher, options)
        self._drivers: dict[int, ShardDriver] = {}
        self._ticker = Ticker(self._around.clock, jumped=self._probe, act=self._checkpoint)
        self._watchdog = Watchdog()
        self._lifeline = Lifeline()
        self._gateway: asyncio.Future[GatewayInfo] = self.loop.create_future()
        self._stop_asked: bool | None = None  # the value is ``goodbye``
        self._hurried = False
        self._draining: asyncio.Task[None] | None = None
        self._tracker: GatewayTracker | None = None

    # ---------------------------------------------------------------- life

    async def run(self, filled: Callable[[GatewayTracker], None] | None = None) -> None:
        """Open the publishers, look up the gateway, run the shards until a stop or a fatal end; then drain and close.

        ``filled`` gets the tracker before the first dial. Returns after `stop`; raises whatever else ended a shard. Being
        cancelled is a graceful stop, after which CancelledError is raised.
        """
        work: asyncio.Task[None] = asyncio.create_task(self._work(filled), name="control-plane")
        try:
            await finish_gracefully(work, lambda: self.stop(goodbye=False), self.hurry)
        finally:
            if self._gateway.done() and not self._gateway.cancelled():
                self._gateway.exception()  # seen: whoever waited for it has reported it
            self.outbound.close()
            self._lifeline.ended.set()

    async def _work(self, filled: Callable[[GatewayTracker], None] | None) -> None:
        try:
            sessions = await self._open_sessions()
            try:
                hold = sessions.hold(self._layout, self._claim)
                await self._lifeline.unless_stopped(asyncio.create_task(hold, name="hold-shards"))
                if self._stop_asked is None:
                    await self._serve(sessions, filled)
            finally:
                await sessions.close()
        finally:
            logger.info("Shut down completely")

    async def _open_sessions(self) -> Sessions:
        around, config, token = self._around, self._config, self._client.token
        if self._claim != NO_CLAIM and not config.session.store:
            msg = (
                "taking over and waiting need a session store: the processes that share one know of each other by it; "
                'set [session] store (it is ""), or start without --take-over and --wait'
            )
            raise ConfigError(msg)
        bot = bot_key(token.reveal())  # no frame keeps the token itself in a variable: error reporters show them
        return Sessions(
            around.store or await open_store(config.session.store, bot=bot, clock=around.clock),
            look_up=around.look_up or self._client.gateway_bot,
            intents=config.gateway.intents_value,
            token=token_key(token.reveal()),
            clock=around.clock,
        )

    async def _serve(self, sessions: Sessions, filled: Callable[[GatewayTracker], None] | None) -> None:
        """With the shards held: from open publishers to drained ones."""
        ids, count = self._layout or (range(1), 1)  # one shard, until the look-up says otherwise
        trackers = make_trackers(ids, count, self._around.clock)
        tracker = self._tracker = GatewayTracker(self, self._config, self._fan_out, trackers)
        self._sessions = sessions
        self._start_up = StartUp(self._around.clock, lambda: tracker.shards, sessions.seconds_to_identify)
        self._assembly = Assembly(
            self._config,
            self._client.token,
            self._around,
            compression=self._compression,
            fan_out=self._fan_out,
            sessions=sessions,
            gateway=lambda: asyncio.shield(self._gateway),
            changed=self._shard_changed,
        )
        await self._fan_out.open()
        if self._around.watchdog:
            self._watchdog.start()
        try:
            if filled is not None:
                filled(tracker)
            await self._supervise(tracker)
            if self._stop_asked:
                await sessions.forget_what_never_began(self._layout)
        finally:
            self._start_up.close()
            await self._drain()
            sessions.checkpoint()
            await self._fan_out.close()
            self._watchdog.stop()

    async def _drain(self) -> None:
        """Give the publishers `session.drain_timeout` for what they have not sent; `hurry` cuts it short, at any time."""
        seconds = 0.0 if self._hurried else self._config.session.drain_timeout
        self._draining = asyncio.create_task(self._fan_out.drain(seconds), name="drain")
        await asyncio.wait([self._draining])
        if not self._draining.cancelled():
            self._draining.result()

    async def _supervise(self, tracker: GatewayTracker) -> None:
        """Run the look-up and the shards; the first error ends all of them, and is raised when they have ended."""
        stored = await self._sessions.load(self._layout)
        look_up = asyncio.create_task(self._look_up(), name="look-up")
        ticker = asyncio.create_task(self._ticker.run(), name="ticker")
        beside: set[asyncio.Task[Any]] = {asyncio.create_task(self._lifeline.stopping.wait(), name="stopping"), ticker}
        tasks = {look_up, *self._start([shard for shard in tracker.shards if shard.shard_id in stored], stored)}
        error: BaseException | None = None
        try:
            while tasks:
                done, _ = await asyncio.wait({*tasks, *beside}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & {*tasks, ticker}:
                    tasks.discard(task)
                    beside.discard(task)
                    error = error or _failure_of(task)
                if error is not None:
                    self._stop(goodbye=False)
                elif look_up in done and self._stop_asked is None:
                    tasks |= await self._start_the_rest(tracker)
                if self._stop_asked is not None:
                    look_up.cancel()
                    tasks.discard(look_up)
                    beside = {task for task in beside if not task.done()}
        finally:
            for task in (look_up, *tasks, *beside):
                task.cancel()
            await asyncio.gather(look_up, *tasks, *beside, return_exceptions=True)
        if error is not None:
            raise error

    def _checkpoint(self) -> None:
        self._sessions.checkpoint()

    def _probe(self) -> None:
        for driver in self._drivers.values():
            driver.probe()

    # ---------------------------------------------------------------- look-up and layout

    async def _look_up(self) -> None:
        around, gateway = self._around, self._config.gateway
        if around.look_up is not None:
            info = await around.look_up()
        else:
            tries = LOOK_UP_TRIES_UNDER_FAIL_ON_ERROR if gateway.fail_on_error else None
            info = await look_up(self._client, tries=tries, clock=around.clock)
        self._gateway.set_result(info)

    async def _start_the_rest(self, tracker: GatewayTracker) -> set[asyncio.Task[None]]:
        """The look-up has answered: the layout is known, and IDENTIFYs can be paid for."""
        info = self._gateway.result()
        if self._layout is None:
            layout = range(info.shards), info.shards
            tracker.shards = tuple(make_trackers(*layout, self._around.clock))
            stored = await self._sessions.load(layout)
        else:
            stored = {}
        self._sessions.set_limits(info, tracker.shards[0].shard_count)
        tasks = self._start([shard for shard in tracker.shards if shard.shard_id not in self._drivers], stored)
        self._start_up.announce()
        return tasks

    def _start(self, shards: Sequence[ShardTracker], stored: Mapping[int, StoredSession]) -> set[asyncio.Task[None]]:
        tasks: set[asyncio.Task[None]] = set()
        if self._stop_asked is not None:  # it came while the publishers were opened or the store was read
            return tasks
        for shard in shards:
            driver = self._drivers[shard.shard_id] = self._assembly.driver(shard, stored.get(shard.shard_id))
            self.outbound.add((shard.shard_id, shard.shard_count), driver.sender)
            tasks.add(asyncio.create_task(driver.run(), name=f"shard-{shard.shard_id}"))
        return tasks

    # ---------------------------------------------------------------- asked by the tracker (tracker.Plane)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that `run` runs on."""
        return self._lifeline.loop

    @property
    def compression(self) -> Compression:
        """How the gateway is asked to compress."""
        return self._compression

    @property
    def progress(self) -> Progress:
        """How many shards have been Ready."""
        return self._start_up.progress

    @property
    def store_health(self) -> Health:
        """How the session store does."""
        return self._sessions.health

    @property
    def budget(self) -> Budget | None:
        """What the identify ledger says now; None before the look-up."""
        return self._sessions.budget

    @property
    def other_use(self) -> OtherUse | None:
        """IDENTIFYs of this bot that nobody with this store has paid for."""
        return self._sessions.other_use

    @property
    def loop_lag(self) -> LoopLag:
        """See `GatewayTracker.loop_lag`."""
        return self._watchdog.lag

    def stop(self, *, goodbye: bool) -> None:
        """Begin a graceful stop; a second call changes nothing. Thread-safe."""
        self.on_loop(lambda: self._stop(goodbye=goodbye))

    def hurry(self) -> None:
        """Stop at once: every deadline of a stop is zero from now on. Thread-safe."""
        self.on_loop(self._hurry)

    def throw_to(self, shard: int, task: Task, error: BaseException) -> None:
        """See `GatewayTracker.throw_to`."""
        self.on_loop(lambda: self._drivers[shard].throw_to(task, error))

    def on_loop(self, act: Callable[[], None]) -> None:
        """See `Lifeline.on_loop`."""
        self._lifeline.on_loop(act)

    async def wait_ready(self) -> None:
        """See `Lifeline.wait_ready`."""
        await self._lifeline.wait_ready()

    async def wait_ended(self) -> None:
        """Wait until `run` has ended, for whatever reason."""
        await self._lifeline.ended.wait()

    # ---------------------------------------------------------------- on the loop

    def _stop(self, *, goodbye: bool) -> None:
        if self._stop_asked is not None:
            return
        self._stop_asked = goodbye
        self._lifeline.stopping.set()
        tracker = self._tracker
        if tracker is not None:
            for shard in tracker.shards:
                shard.terminate_flag = True
        for driver in self._drivers.values():
            driver.stop(goodbye=goodbye)

    def _hurry(self) -> None:
        self._hurried = True
        self._stop(goodbye=False)
        for driver in self._drivers.values():
            driver.abort()
        if self._draining is not None:
            self._draining.cancel()

    def _shard_changed(self) -> None:
        if not self._lifeline.ready.is_set() and self._start_up.changed():
            self._lifeline.ready.set()

    def _shards(self) -> Sequence[ShardTracker]:
        return () if self._tracker is None else self._tracker.shards


def _failure_of(task: asyncio.Task[Any]) -> BaseException | None:
    if task.cancelled():
        return DiscorderError(f"{task.get_name()} was cancelled by somebody other than the control plane")
    return task.exception()
