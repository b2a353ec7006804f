"""Tell the story of `discorder demo`: events flow, the connection is cut, the session is resumed, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import typer
from rich.console import Console

from discorder.cli.demo_subscriber import SHOWN_PER_SECOND, Subscriber
from discorder.config import Config, load_config
from discorder.control_plane import TrackerRef, serve_config, shutdown
from discorder.plane import PlaneDependencies
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.rest import BotClient, GatewayInfo
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.shard_tracker import Transition
from discorder.tracking.tracker import GatewayTracker

EVENTS_LOST = 3  # exit code of this command alone
START_SECONDS = 20.0  # for READY
RECOVERY_SECONDS = 30.0  # for the session to be Ready again; a back-off and a RESUME take about two
CATCH_UP_SECONDS = 5.0  # for the last events to reach the other process
CUT_AFTER = 0.4  # share of the time
STEP = 0.05  # seconds between two looks at the state machine
SETTINGS = (  # before those of the user
    "log.level=error",  # the story is told here instead
    'gateway.intents=["default", "message_content"]',
)

_MEANING = {
    State.CONNECTING: "dials the gateway",
    State.IDENTIFYING: "opens a session: IDENTIFY",
    State.RESUMING: "asks Discord to go on with the session and to send what was missed: RESUME",
    State.UNHEALTHY: "notices that the connection is gone, stops its tasks and keeps the session",
    State.RESTARTING: "waits a moment before it dials again (back-off)",
    State.STOPPING: "stops: delivers what is queued and keeps the session",
    State.EXITED: "has ended",
}
_READY = "has its session: events flow"
_RESUMED = "has its session back, without an IDENTIFY: events flow again"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many events were published, and how many different ones the subscriber received. ``lost``: never received."""

    published: int
    received: int
    lost: int

    def __str__(self) -> str:
        return f"published={self.published} received={self.received} lost={self.lost}"


def run_demo(seconds: float, rate: float, overrides: Sequence[str]) -> Outcome:
    """Run the demo: ``seconds`` with a session, of which recovering may take more. ``rate`` in events per second."""
    return asyncio.run(_run_demo(seconds, rate, overrides))


async def _run_demo(seconds: float, rate: float, overrides: Sequence[str]) -> Outcome:
    console = Console()
    with _progress(console, "Starting a simulated Discord"):
        sim = Simulator(guilds=3, rate=rate)
        await sim.start()
    try:
        config = _config(sim, overrides)
        ref, client = TrackerRef(), BotClient(sim.token)
        subscribed = asyncio.Event()

        async def look_up() -> GatewayInfo:
            await subscribed.wait()  # the subscriber shall see the first event, too
            return await client.gateway_bot()

        around = PlaneDependencies(look_up=look_up)
        plane = asyncio.create_task(serve_config(lambda: config, client=client, tracker_ref=ref, dependencies=around))
        try:
            with _progress(console, "Starting the control plane"):
                tracker = await _unless_over(plane, asyncio.to_thread(ref.wait))
            async with Subscriber(_zmq(tracker), console) as subscriber:
                with _progress(console, "Starting a subscriber in a process of its own"):
                    await _unless_over(plane, subscriber.subscribed())
                story = _Story(sim, tracker, subscriber, console)
                story.say_addresses(_zmq(tracker))
                subscribed.set()
                await _unless_over(plane, story.begin(ref.ready(timeout=START_SECONDS)))
                await _unless_over(plane, story.tell(seconds))
                await shutdown(tracker)
                return await story.outcome()
        finally:
            plane.cancel()
            await asyncio.gather(plane, return_exceptions=True)
    finally:
        await sim.stop()


class _Story:
    """Plays the acts, and says in plain words what the state machine does."""

    def __init__(self, sim: Simulator, tracker: GatewayTracker, subscriber: Subscriber, console: Console) -> None:
        self._sim = sim
        self._tracker = tracker
        self._subscriber = subscriber
        self._console = console
        self._began = time.monotonic()
        self._told: dict[int, int] = {}  # transitions of each shard

    def say_addresses(self, publisher: ZmqPublisher) -> None:
        """Say where what is running can be reached."""
        page = self._tracker.status_url or "not served: the address of http.bind is taken, or it is off"
        self._console.print(
            f"  status page        {page}\n"
            f"  simulated Discord  {self._sim.gateway_url}\n"
            f"  events             {publisher.endpoints[0]} ({SHOWN_PER_SECOND} per second are shown here; all are counted)",
            highlight=False,
            soft_wrap=True,
        )

    async def begin(self, ready: Coroutine[Any, Any, object]) -> None:
        """Say what happens until ``ready`` has ended; raise its error."""
        waiting = asyncio.ensure_future(ready)
        try:
            while not waiting.done():
                await self._watch(STEP)
            waiting.result()
        finally:
            waiting.cancel()

    async def tell(self, seconds: float) -> None:
        """Let events flow, cut the connection, recover, let events flow until ``seconds`` have passed."""
        end = time.monotonic() + seconds
        await self._watch(seconds * CUT_AFTER)
        await self._cut()
        await self._watch(end - time.monotonic())
        self._say("Enough seen. The simulated Discord falls silent, and the control plane is asked to stop.")
        await self._sim.set_rate(0.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while self._tracker.stats.published_event_count < len(self._sim.sent):
                    await self._watch(STEP)

    async def outcome(self) -> Outcome:
        """Return the counts, once all has arrived or `CATCH_UP_SECONDS` have passed."""
        published = self._tracker.stats.published_event_count
        happened = len(self._sim.sent)  # at Discord, with a connection or without
        await self._subscriber.catch_up(max(published, happened), CATCH_UP_SECONDS)
        received = self._subscriber.received
        self._say_transitions()
        lost = max(published, happened) - received
        if not lost:
            spent = self._sim.identifies
            self._say(f"Nothing was lost. IDENTIFYs spent: {spent}, of 1,000 that Discord allows in a day.")
        return Outcome(published, received, lost)

    async def _cut(self) -> None:
        before, cut_at = len(self._sim.sent), time.monotonic()
        resumes, restarts = self._tracker.stats.resume_count, self._tracker.stats.restart_count
        self._say("Now the connection is cut: the socket is reset without a word, as by a router that restarts.")
        await self._sim.drop()
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while self._tracker.stats.restart_count == restarts or not self._is_ready():
                    await self._watch(STEP)
        except TimeoutError:
            self._say(f"The session did not come back within {RECOVERY_SECONDS:g} s.")
            return
        self._say_transitions()
        seconds = time.monotonic() - cut_at
        missed = sum(kind != "RESUMED" for _, _, kind in self._sim.sent[before:])
        how = "by RESUME" if self._tracker.stats.resume_count > resumes else "with a new session"
        self._say(f"Back after {seconds:.1f} s {how}. {missed} events happened at Discord meanwhile; all of them come.")

    def _is_ready(self) -> bool:
        return all(shard.state is State.READY for shard in self._tracker.shards)

    async def _watch(self, seconds: float) -> None:
        """Say what the state machine does, for ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            self._say_transitions()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, STEP))

    def _say_transitions(self) -> None:
        several = len(self._tracker.shards) > 1
        for shard in self._tracker.shards:
            steps = list(shard.transitions)
            for step in steps[self._told.get(shard.shard_id, 0) :]:
                if step.source is not step.target:
                    who = f"shard {shard.shard_id}" if several else "it"
                    self._say(f"[bold]{step.source} → {step.target}[/]  {who} {_meaning(step)}")
            self._told[shard.shard_id] = len(steps)

    def _say(self, text: str) -> None:
        self._console.print(
            f"[cyan]{time.monotonic() - self._began:5.1f} s[/]  {text}", highlight=False, soft_wrap=True
        )


def _meaning(step: Transition) -> str:
    if step.target is State.READY:
        return _RESUMED if step.source is State.RESUMING else _READY
    return _MEANING.get(step.target, step.target.meaning)


@contextlib.contextmanager
def _progress(console: Console, what: str) -> Iterator[None]:
    """Say what is being set up, and how long it took."""
    began = time.monotonic()
    console.print(f"{what} … ", end="", highlight=False)
    yield
    console.print(f"{time.monotonic() - began:.1f} s", highlight=False)


def _config(sim: Simulator, overrides: Sequence[str]) -> Config:
    sample = importlib.resources.files("discorder") / "etc" / "demo.toml"
    with importlib.resources.as_file(sample) as path:
        return load_config(path, [f"gateway.api={sim.api_url}", *SETTINGS, *overrides])


def _zmq(tracker: GatewayTracker) -> ZmqPublisher:
    for publisher in tracker.publishers:
        if isinstance(publisher, ZmqPublisher):
            return publisher
    msg = "the demo needs a publisher of kind zmq"
    raise typer.BadParameter(msg)


async def _unless_over(plane: asyncio.Task[None], wanted: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``wanted``. If the plane ends first, raise its error."""
    task = asyncio.create_task(wanted)
    try:
        await asyncio.wait([plane, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await plane
        return await task
    finally:
        task.cancel()
