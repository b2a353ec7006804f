"""Starts control planes on simulated hosts, stops and kills them, and starts them again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from discorder.config import load_config
from discorder.config.schema import Config
from discorder.errors import DiscorderError, FatalCloseError, HTTPError, NoAnswer, RateLimited
from discorder.plane import ControlPlane, PlaneDependencies
from discorder.publishers.options import DeliveryOptions, EventSelection
from discorder.publishers.protocol import Publisher
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.sessions import StoredSession
from discorder.statemachine import State
from discorder.tracking.tracker import GatewayTracker
from tests.simulation.clock import VirtualClock, Wall
from tests.simulation.disk import Disk, DiskStore
from tests.simulation.faults import Kind, Weather
from tests.simulation.gateway import Gateway
from tests.simulation.life import Host, Life
from tests.simulation.loop import Process, VirtualLoop, VirtualTask
from tests.simulation.network import MAIN_HOST, Network
from tests.simulation.sinks import FILTER, Book, Judge, LiveSink, SimulatedSink, Sink

TOKEN = "MTIz.simulated.not-a-secret"
PATH = "/gateway/bot"
QUEUE_BYTES = 4_194_304
STOPS_WITHIN = 2.5
EXITED_WITHIN = 1.0


class StagedConfig(Config, frozen=True, kw_only=True):
    """A configuration whose publishers are made by the simulation, besides those of its tables."""

    staged: tuple[tuple[Publisher, DeliveryOptions], ...] = ()

    def build_publishers(self) -> list[tuple[Publisher, DeliveryOptions]]:
        return [*super().build_publishers(), *self.staged]


class SimulatedClient(BotClient):
    """A REST client of the simulated gateway, for the look-up only."""

    def __init__(self, life: Life, gateway: Gateway, weather: Weather, clock: VirtualClock, rng: random.Random) -> None:
        super().__init__(TOKEN, clock=clock)
        self._life = life
        self._gateway = gateway
        self._weather = weather
        self._rng = rng

    async def gateway_bot(self, *, tries: int = 1, waits: bool = True) -> GatewayInfo:
        await asyncio.sleep(self._rng.uniform(0.01, 0.3))
        now = self._gateway.loop.time()
        if self._weather.anywhere(Kind.LOOKUP_5XX, now):
            raise HTTPError(status=503, code=0, message="unavailable", method="GET", path=PATH)
        if self._weather.anywhere(Kind.LOOKUP_429, now):
            raise RateLimited(retry_after=2.0, scope="user", method="GET", path=PATH)
        if self._weather.anywhere(Kind.LOOKUP_HANGS, now):
            await asyncio.sleep(30.0)
            raise NoAnswer(method="GET", path=PATH, reason="timeout")
        self._life.looked_up_at = now
        limit = SessionStartLimit(**self._gateway.start_limit())
        return GatewayInfo(url=f"wss://{MAIN_HOST}", shards=self._gateway.measures.shards, session_start_limit=limit)


class Hosting:
    """``lives`` holds every process of the run; `ended` is called with each that ended by itself."""

    def __init__(
        self,
        loop: VirtualLoop,
        gateway: Gateway,
        network: Network,
        weather: Weather,
        rng: random.Random,
        lives: dict[Process, Life],
        violate: Callable[[str], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._gateway = gateway
        self._network = network
        self._weather = weather
        self._rng = rng
        self._lives = lives
        self._violate = violate
        self._note = note
        self.running: tuple[Life, ...] = ()
        self._graveyard: list[VirtualTask] = []
        self._base = load_config(None, self._settings())
        self.judge: Judge
        self.saved: Callable[[Process, StoredSession, bool], None]
        self.found: Callable[[Life, list[StoredSession]], None]

    def _settings(self) -> list[str]:
        measures = self._gateway.measures
        shards = '"auto"' if measures.auto else str(measures.shards)
        channel = f"publishers.unread.max_events={measures.queue}"
        return ["publishers.unread.kind=channel", channel, "session.store=", "http.bind=", f"gateway.shards={shards}"]

    def host(self, name: str) -> Host:
        """Add a machine with an empty disk."""
        disk = Disk(self._loop, self._rng, self._weather)
        disk.saved = self.saved
        return Host(name, Wall(), disk, {sink: Book(sink) for sink in Sink})

    # ---------------------------------------------------------------- start

    def start(self, host: Host) -> Life:
        """Start a process on ``host``."""
        host.started_at.append(self._loop.time())
        process = Process(f"{host.name}#{len(host.started_at)}")
        life = self._lives[process] = Life(process, host, self._loop, self._loop.time())
        life.paused = {shard for (shard, _), since in host.disk.pauses.items() if since is not None}
        self._note(process.name, "starts")
        self.found(life, list(host.disk.sessions.values()))
        task = self._loop.create_task(self._main(life), name=process.name, context=self._loop.within(process))
        assert isinstance(task, VirtualTask)
        life.task = task
        self.running = (*self.running, life)
        return life

    async def _main(self, life: Life) -> None:
        clock = VirtualClock(self._loop, life.process, life.host.wall)
        client = SimulatedClient(life, self._gateway, self._weather, clock, self._rng)
        around = PlaneDependencies(
            clock=clock,
            rng=self._rng,
            dial=lambda shard: self._network.dial(life.process, shard[0]),
            store=DiskStore(life.host.disk, life.process),
            watchdog=False,  # a thread, and real time
        )
        life.plane = ControlPlane(self._config(life, clock), client, around)

        def filled(tracker: GatewayTracker) -> None:
            life.tracker = tracker

        await life.plane.run(filled)

    def _config(self, life: Life, clock: VirtualClock) -> StagedConfig:
        base, queue = self._base, self._gateway.measures.queue
        staged: list[tuple[Publisher, DeliveryOptions]] = []
        for sink in Sink:
            kind = LiveSink if sink is Sink.LIVE else SimulatedSink
            selection = EventSelection(include=(FILTER,)) if sink is Sink.FILTERED else EventSelection()
            options = DeliveryOptions(required=sink.required, max_events=queue, max_bytes=QUEUE_BYTES, events=selection)
            staged.append((kind(life.host.books[sink], life.process, clock, self._weather, self.judge), options))
        return StagedConfig(
            gateway=base.gateway,
            log=base.log,
            session=base.session,
            http=base.http,
            publishers=base.publishers,
            staged=tuple(staged),
        )

    # ---------------------------------------------------------------- end

    def stop(self, life: Life, *, goodbye: bool) -> bool:
        """Request a graceful stop, as SIGTERM does; False if it was requested before."""
        if not life.running or life.stop_at is not None or life.plane is None:
            return False
        life.stop_at, life.goodbye = self._loop.time(), goodbye
        self._note(life.process.name, f"is asked to stop{', goodbye' if goodbye else ''}")
        plane = life.plane
        self._loop.call_soon(lambda: plane.stop(goodbye=goodbye), context=self._loop.within(life.process))
        self._loop.call_later(EXITED_WITHIN, lambda: self._check_exited(life), context=self._loop.outside)
        self._loop.call_later(STOPS_WITHIN, lambda: self._check_stopped(life), context=self._loop.outside)
        return True

    def _check_exited(self, life: Life) -> None:
        shards = () if life.tracker is None else life.tracker.shards
        late = [shard for shard in shards if shard.state not in {State.EXITED, State.DISCONNECTED}]
        if late and life.running and not self._slept(life):
            self._violate(f"shard {late[0].shard_id} is {late[0].state} {EXITED_WITHIN} s after a stop")

    def _check_stopped(self, life: Life) -> None:
        if life.running and not self._slept(life):
            self._violate(f"{life.process.name} has not ended {STOPS_WITHIN} s after it was asked to stop")

    def _slept(self, life: Life) -> bool:
        return life.stop_at is not None and life.process.frozen_until > life.stop_at

    def kill(self, life: Life) -> None:
        """Kill a process as SIGKILL does."""
        if life.running:
            self._note(life.process.name, "is killed")
            life.killed, life.ended_at = True, self._loop.time()
            self._graveyard.extend(self._loop.kill(life.process))
            self._leave(life)

    def ended(self, life: Life) -> None:
        """Handle a process that ended by itself: check that it may."""
        task = life.task
        assert task is not None
        life.ended_at = self._loop.time()
        error = None if task.cancelled() else task.exception()
        self._note(life.process.name, f"ends: {error!r}")
        if isinstance(error, FatalCloseError) and life.fatal:
            pass
        elif error is not None or life.stop_at is None:
            self._violate(f"{life.process.name} ended by itself: {_told(error)}")
        left = [one for one in self._loop.kill(life.process) if not one.done()]
        if left:
            self._violate(f"{life.process.name} ended and left {', '.join(one.get_name() for one in left)} behind")
        self._leave(life)

    def _leave(self, life: Life) -> None:
        self._network.killed(life.process)
        self.running = tuple(one for one in self.running if one is not life)

    def bury(self) -> None:
        """Discard the killed processes; nothing in their ``finally`` clauses may have an effect."""
        self._loop.discard_all()
        self._graveyard.clear()


def _told(error: BaseException | None) -> str:
    if error is None:
        return "nobody asked it to"
    return f"{error!r}" if isinstance(error, DiscorderError) else f"{type(error).__name__}: {error}"
