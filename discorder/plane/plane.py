"""The control plane of one bot as an object: open store and publishers, run the shards, drain, close."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial

from discorder.config import Config, Log
from discorder.config.schema import EVENT_LOG
from discorder.errors import NO_JOURNAL, GuildsNotKept, NotRunning
from discorder.facade.clients import bot_id_of
from discorder.facade.journal_setup import JOURNAL_OPTIONS, make_journal
from discorder.facade.opening import Facade
from discorder.facade.reports import FacadeReports
from discorder.guilds import GuildsSnapshot
from discorder.http.server import HttpServer
from discorder.http.site import PlaneSite
from discorder.logs import logger
from discorder.outbound.outbound import Outbound
from discorder.plane.bus_api import PlaneBusApi
from discorder.plane.guild_recovery import GuildRecovery
from discorder.plane.main_host import MainHost
from discorder.plane.run_handle import RunHandle, finish_gracefully
from discorder.plane.session_persistence import NO_CLAIM, Claim, Sessions, open_sessions
from discorder.plane.shard_factory import PlaneDependencies, ShardFactory, configured_layout, make_trackers
from discorder.plane.supervisor import Supervisor
from discorder.publishers import registry
from discorder.publishers.delivery.fanout import FanOut
from discorder.publishers.protocol import RefillingPublisher
from discorder.rest import BotClient
from discorder.rest.hosts import check_api
from discorder.runtime.watchdog import LoopLag, Watchdog
from discorder.sessions import (
    Budget,
    Health,
    IdentifyQueue,
    OtherUse,
    SavedSessions,
)
from discorder.statemachine import Task
from discorder.statemachine.triggers import Verb
from discorder.tracking.facade_status import FacadeStatus
from discorder.tracking.shard_tracker import ShardTracker, Transition
from discorder.tracking.startup import StartProgress, StartUp
from discorder.tracking.tracker import GatewayTracker
from discorder.transport import Compression, choose_compression
from discorder.transport.inflate import library_of

__all__ = ["ControlPlane", "PlaneDependencies"]


class ControlPlane:
    """One bot's control plane. Made on the loop that it runs on; `run` is called once.

    `stop` may come at any time and from any thread. ``claim``: what to do about shards that another process holds.
    """

    def __init__(
        self,
        config: Config,
        client: BotClient,
        dependencies: PlaneDependencies | None = None,
        *,
        claim: Claim = NO_CLAIM,
    ) -> None:
        self._config = config
        self._client = client
        self._around = dependencies or PlaneDependencies()
        self._claim = claim
        check_api(client.base_url, insecure=config.gateway.insecure_api)
        self._layout = configured_layout(config)  # None until the look-up has answered
        self._compression = choose_compression(config.gateway.compress)
        self.outbound = Outbound(config.gateway.intents_value, self._around.clock)
        self.journal = make_journal(config, client.token, self._layout, self._around.clock)
        self._reports = FacadeReports(self._around.clock)
        self._fan_out = FanOut(
            self._around.clock,
            PlaneBusApi(self.outbound, self._shards, self.journal, self._reports),
            bot_id_of(client.token.reveal()),
        )
        for publisher, options in config.build_publishers():
            self._fan_out.add(publisher, options)
        if self.journal is not None:
            self._fan_out.add(self.journal, JOURNAL_OPTIONS)
            for publisher in self._fan_out.publishers:
                if isinstance(publisher, RefillingPublisher):
                    publisher.refill_from(self.journal.history)
        self._recovery = GuildRecovery(self.journal, lambda: self.budget)
        self._facade = Facade(config, self.journal, client, self.outbound, self._around.clock)
        self._supervisor: Supervisor | None = None
        self._watchdog = Watchdog()
        self._handle = RunHandle()
        self._main_host = MainHost(
            config,
            client,
            self._around.clock,
            asked=self._around.look_up,
            judged=self._around.dial is None,
            shards=self._shards,
        )
        self._stop_asked: bool | None = None  # the value is ``goodbye``
        self._hurried = False
        self._draining: asyncio.Task[None] | None = None
        self._tracker: GatewayTracker | None = None
        self._http: HttpServer | None = None

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
            self._main_host.close()
            self.outbound.close()
            self._handle.ended.set()

    async def _work(self, filled: Callable[[GatewayTracker], None] | None) -> None:
        served = True  # also if it was stopped before it could
        try:
            sessions = await open_sessions(
                self._config,
                self._client.token,
                self._around.clock,
                store=self._around.store,
                look_up=self._around.look_up or partial(self._client.gateway_bot, waits=False),
                claim=self._claim,
            )
            try:
                hold = sessions.hold(self._layout, self._claim)
                await self._handle.unless_stopped(asyncio.create_task(hold, name="hold-shards"))
                if self._stop_asked is None:
                    self._log_choices()
                    await self._serve(sessions, filled)
            finally:
                await sessions.close()
        except Exception as error:
            served = self._handle.opened.is_set()
            if not served:
                logger.error("This start failed, and the process served nothing", pid=os.getpid(), error=str(error))
            raise
        finally:
            # the log file may be that of the process that holds the shards, and must not say that it stopped
            if served:
                logger.info("Shut down completely")

    def _log_choices(self) -> None:
        """Log what a process uses that holds its shards; one whose start is refused uses nothing."""
        gateway = self._config.gateway
        logger.info(
            "Transport compression",
            chosen=self._compression.value,
            asked=gateway.compress.value,
            library=library_of(self._compression),
        )
        if gateway.proxy or gateway.trust_env:
            logger.info("Proxy", chosen=gateway.proxies.describe())

    async def _serve(self, sessions: Sessions, filled: Callable[[GatewayTracker], None] | None) -> None:
        """Serve the status page while the shards, which are held, run."""
        ids, count = self._layout or (range(1), 1)  # one shard, until the look-up gives the number
        trackers = make_trackers(ids, count, self._around.clock)
        if self._layout is not None:
            sessions.apply_pauses(trackers)
        tracker = self._tracker = GatewayTracker(self, self._config, self._fan_out, trackers)
        self._sessions = sessions
        tracker.use_layout(trackers, count)
        self._start_up = StartUp(self._around.clock, lambda: tracker.shards, sessions.seconds_to_identify)
        factory = ShardFactory(
            self._config,
            self._client.token,
            self._around,
            compression=self._compression,
            fan_out=self._fan_out,
            sessions=sessions,
            main_host=self._main_host,
            recovery=self._recovery,
            changed=self._shard_changed,
            log_heartbeats=lambda: self._config.log.heartbeat,
        )
        self._supervisor = Supervisor(
            tracker,
            self._layout,
            self._around.clock,
            drain_timeout=self._config.session.drain_timeout,
            sessions=sessions,
            main_host=self._main_host,
            recovery=self._recovery,
            factory=factory,
            fan_out=self._fan_out,
            outbound=self.outbound,
            start_up=self._start_up,
            stopping=self._handle.stopping,
            stop=lambda: self._stop(goodbye=False),
        )
        http = self._http = HttpServer(self._config, PlaneSite(tracker, self._around.clock))
        await http.start()
        try:
            await self._facade.bind()
            await self._run_shards(self._supervisor, sessions, lambda: filled(tracker) if filled is not None else None)
        finally:
            await self._facade.close(hurried=True)
            await http.close()

    async def _run_shards(self, supervisor: Supervisor, sessions: Sessions, filled: Callable[[], None]) -> None:
        """Open the publishers, run the shards, and drain. ``filled`` is called before the first dial."""
        opening = asyncio.create_task(self._fan_out.open(), name="open-publishers")
        await self._handle.unless_stopped(opening)  # a stop must not wait for a broker that does not answer
        if self._around.watchdog:
            self._watchdog.start()
        try:
            await self._facade.start()
            self._handle.opened.set()
            filled()
            self._check_ready()  # without a shard there is nothing to wait for
            await supervisor.run()
            if self._stop_asked:
                await sessions.forget_what_never_began(supervisor.own_layout)
        finally:
            self._start_up.close()
            await self._drain()
            await self._facade.close(hurried=self._hurried)
            sessions.checkpoint()
            await self._fan_out.close()
            self._watchdog.stop()

    async def _drain(self) -> None:
        """Give the publishers `session.drain_timeout` for what they have not sent; `hurry` ends it at any time."""
        seconds = 0.0 if self._hurried else self._config.session.drain_timeout
        self._draining = asyncio.create_task(self._fan_out.drain(seconds), name="drain")
        await asyncio.wait([self._draining])
        if not self._draining.cancelled():
            self._draining.result()

    # ---------------------------------------------------------------- for the tracker (tracking.protocol.Plane)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that `run` runs on."""
        return self._handle.loop

    @property
    def compression(self) -> Compression:
        """Return the compression that the gateway is asked for."""
        return self._compression

    @property
    def progress(self) -> StartProgress:
        """Return how many shards have been Ready."""
        return self._start_up.progress

    @property
    def store_health(self) -> Health:
        """Return the health of the session store."""
        return self._sessions.health

    @property
    def budget(self) -> Budget | None:
        """Return the identify budget by the ledger; None before the look-up."""
        return self._sessions.budget

    @property
    def other_use(self) -> OtherUse | None:
        """Return the IDENTIFYs of this bot that no process with this store has paid for."""
        return self._sessions.other_use

    @property
    def look_up_trouble(self) -> str | None:
        """Return why the look-up has no answer; None before its first failure and after its answer."""
        return self._main_host.trouble

    @property
    def shards_without_guilds(self) -> Sequence[int]:
        """Return the shards that the façade cannot serve, because the identify budget does not allow a new session."""
        return self._recovery.refused

    def guilds_of(self, shard: int) -> GuildsSnapshot | None:
        """Return the guilds of a shard, None before its first READY. Thread-safe. Raises `GuildsNotKept` and `NotRunning`."""
        journal = self.journal
        if journal is None:
            raise GuildsNotKept(NO_JOURNAL)
        snapshot = self._handle.call(lambda: journal.snapshot(shard))
        return None if snapshot is None else snapshot.guilds

    @property
    def identify_queue(self) -> IdentifyQueue:
        """Return the shards that wait for an IDENTIFY."""
        return self._sessions.identify_queue

    @property
    def saved_sessions(self) -> SavedSessions:
        """Return how many sessions are stored, and when the last one was written."""
        return self._sessions.saved

    def redact(self, text: str) -> str:
        """Return ``text`` without the token."""
        return self._client.token.redact(text)

    @property
    def facade(self) -> FacadeStatus:
        """See `GatewayTracker.facade`."""
        return self._reports.joined_to(self._facade.status())

    @property
    def status_url(self) -> str | None:
        """See `GatewayTracker.status_url`."""
        return None if self._http is None else self._http.url

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
        supervisor = self._supervisor
        if supervisor is not None:
            self.on_loop(lambda: supervisor.throw_to(shard, task, error))

    def request(self, shard: int, what: Verb) -> None:
        """Take an operator's verb for one shard. Thread-safe. Raises `VerbRefused` and `NotRunning`."""
        supervisor = self._supervisor
        if supervisor is None:
            msg = "the control plane is starting"
            raise NotRunning(msg)

        def take() -> None:
            supervisor.request(shard, what)
            self._check_ready()

        self._handle.call(take)

    async def start_shard(self, shard: int) -> None:
        """See `GatewayTracker.start_shard`. On the loop."""
        await self._move(lambda supervisor: supervisor.start_shard(shard))

    async def release_shard(self, shard: int) -> None:
        """See `GatewayTracker.release_shard`. On the loop."""
        await self._move(lambda supervisor: supervisor.release_shard(shard))

    async def _move(self, begin: Callable[[Supervisor], asyncio.Task[None]]) -> None:
        """Wait until a shard was started or released. A caller that is cancelled does not end that."""
        supervisor = self._supervisor
        if supervisor is None or not self._handle.opened.is_set():
            msg = "the control plane is starting"
            raise NotRunning(msg)
        moving = begin(supervisor)
        moving.add_done_callback(lambda _: self._check_ready())
        await asyncio.wait([moving])
        if moving.cancelled():
            msg = "the control plane is stopping"
            raise NotRunning(msg)
        moving.result()

    def on_loop(self, act: Callable[[], None]) -> None:
        """See `RunHandle.on_loop`."""
        self._handle.on_loop(act)

    async def wait_ready(self) -> None:
        """See `RunHandle.wait_ready`."""
        await self._handle.wait_ready()

    @property
    def is_open(self) -> bool:
        """Return whether the shards run: publishers are open, and no stop was requested."""
        return self._handle.opened.is_set() and not self._handle.stopping.is_set()

    async def wait_open(self) -> GatewayTracker:
        """Wait until publishers are open and the shards run, and return the tracker. Waits for ever if the run ends before."""
        await self._handle.opened.wait()
        assert self._tracker is not None  # noqa: S101  # made before
        return self._tracker

    @property
    def is_stopping(self) -> bool:
        """Return whether a stop was requested."""
        return self._handle.stopping.is_set()

    @property
    def ends_sessions(self) -> bool:
        """Return whether a stop was requested that ends the sessions."""
        return self._stop_asked is True

    async def wait_stopping(self) -> None:
        """Wait until a stop is requested."""
        await self._handle.stopping.wait()

    async def wait_stored(self) -> None:
        """See `GatewayTracker.wait_stored`."""
        await self._sessions.flush()

    async def wait_ended(self) -> None:
        """Wait until `run` has ended, for whatever reason."""
        await self._handle.ended.wait()

    # ---------------------------------------------------------------- on the loop

    def use_log(self, log: Log) -> None:
        """Follow a change of ``[log]``: the lines of heartbeats, and the publisher of events."""
        had = EVENT_LOG in self._config.publisher_tables()
        self._config = self._config.with_log(log)
        if self._tracker is not None:
            self._tracker.config = self._config
        table = self._config.publisher_tables().get(EVENT_LOG)
        # the plane ends; or the program has added or removed it itself
        with contextlib.suppress(NotRunning, ValueError):
            if table is not None and not had:
                publisher, options = registry.build(EVENT_LOG, table)
                self._fan_out.add(publisher, options)
            elif had and table is None:
                self._fan_out.remove(EVENT_LOG)

    def _stop(self, *, goodbye: bool) -> None:
        if self._stop_asked is not None:
            return
        self._stop_asked = goodbye
        self._handle.stopping.set()
        tracker = self._tracker
        if tracker is not None:
            for shard in tracker.shards:
                shard.terminate_flag = True
        if self._supervisor is not None:
            self._supervisor.stop(goodbye=goodbye)

    def _hurry(self) -> None:
        self._hurried = True
        self._stop(goodbye=False)
        if self._supervisor is not None:
            self._supervisor.abort()
        if self._draining is not None:
            self._draining.cancel()

    def _shard_changed(self, shard: ShardTracker, step: Transition) -> None:
        self._check_ready()
        if self._tracker is not None:
            self._tracker.transitioned(shard, step)

    def _check_ready(self) -> None:
        if not self._handle.ready.is_set() and self._start_up.changed():
            self._handle.ready.set()

    def _shards(self) -> Sequence[ShardTracker]:
        return () if self._tracker is None else self._tracker.shards
