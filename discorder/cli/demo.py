"""Run `discorder demo`: events flow, the connection is cut, the session is resumed, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

import typer
from rich.console import Console

from discorder.cli.demo_narrator import START_SECONDS, STEP, Narrator, Outcome, demo_config, progress, unless_over
from discorder.cli.demo_subscriber import SHOWN_PER_SECOND, Subscriber
from discorder.control_plane import TrackerRef, serve_config, shutdown
from discorder.plane import PlaneDependencies
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.rest import BotClient, GatewayInfo
from discorder.simulator import Simulator
from discorder.tracking.tracker import GatewayTracker

CATCH_UP_SECONDS = 5.0  # for the last events to reach the other process
CUT_AFTER = 0.4  # share of the time


def run_demo(seconds: float, rate: float, overrides: Sequence[str]) -> Outcome:
    """Run the demo: ``seconds`` with a session, of which recovering may take more. ``rate`` in events per second."""
    return asyncio.run(_run_demo(seconds, rate, overrides))


async def _run_demo(seconds: float, rate: float, overrides: Sequence[str]) -> Outcome:
    console = Console()
    with progress(console, "Starting a simulated Discord"):
        sim = Simulator(guilds=3, rate=rate)
        await sim.start()
    try:
        config = demo_config(sim, overrides)
        ref, client = TrackerRef(), BotClient(sim.token)
        subscribed = asyncio.Event()

        async def look_up() -> GatewayInfo:
            await subscribed.wait()  # the subscriber shall see the first event, too
            return await client.gateway_bot()

        around = PlaneDependencies(look_up=look_up)
        plane = asyncio.create_task(serve_config(lambda: config, client=client, tracker_ref=ref, dependencies=around))
        try:
            with progress(console, "Starting the control plane"):
                tracker = await unless_over(plane, asyncio.to_thread(ref.wait))
            async with Subscriber(_zmq(tracker), console) as subscriber:
                with progress(console, "Starting a subscriber in a process of its own"):
                    await unless_over(plane, subscriber.subscribed())
                story = _Story(sim, Narrator(tracker, console), subscriber, console)
                story.say_addresses(_zmq(tracker))
                subscribed.set()
                await unless_over(plane, story.narrator.until(asyncio.ensure_future(ref.ready(timeout=START_SECONDS))))
                await unless_over(plane, story.run(seconds))
                await shutdown(tracker)
                return await story.outcome()
        finally:
            plane.cancel()
            await asyncio.gather(plane, return_exceptions=True)
    finally:
        await sim.stop()


class _Story:
    """Plays the acts."""

    def __init__(self, sim: Simulator, narrator: Narrator, subscriber: Subscriber, console: Console) -> None:
        self.narrator = narrator
        self._sim = sim
        self._tracker = narrator.tracker
        self._subscriber = subscriber
        self._console = console

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

    async def run(self, seconds: float) -> None:
        """Let events flow, cut the connection, recover, let events flow until ``seconds`` have passed."""
        end = time.monotonic() + seconds
        await self.narrator.watch(seconds * CUT_AFTER)
        await self._cut()
        await self.narrator.watch(end - time.monotonic())
        self.narrator.say("Enough seen. The simulated Discord falls silent, and the control plane is asked to stop.")
        await self._sim.set_rate(0.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while self._tracker.stats.published_event_count < len(self._sim.sent):
                    await self.narrator.watch(STEP)

    async def outcome(self) -> Outcome:
        """Return the counts, once all has arrived or `CATCH_UP_SECONDS` have passed."""
        published = self._tracker.stats.published_event_count
        happened = len(self._sim.sent)  # at Discord, with a connection or without
        await self._subscriber.catch_up(max(published, happened), CATCH_UP_SECONDS)
        received = self._subscriber.received
        self.narrator.say_transitions()
        lost = max(published, happened) - received
        if not lost:
            spent = self._sim.identifies
            self.narrator.say(f"Nothing was lost. IDENTIFYs spent: {spent}, of 1,000 that Discord allows in a day.")
        return Outcome(published, received, lost)

    async def _cut(self) -> None:
        before, resumes = len(self._sim.sent), self._tracker.stats.resume_count
        self.narrator.say(
            "Now the connection is cut: the socket is reset without a word, as by a router that restarts."
        )
        seconds = await self.narrator.recovered(self._sim.drop)
        if seconds is None:
            return
        missed = sum(kind != "RESUMED" for _, _, kind in self._sim.sent[before:])
        how = "by RESUME" if self._tracker.stats.resume_count > resumes else "with a new session"
        self.narrator.say(
            f"Back after {seconds:.1f} s {how}. {missed} events happened at Discord meanwhile; all of them come."
        )


def _zmq(tracker: GatewayTracker) -> ZmqPublisher:
    for publisher in tracker.publishers:
        if isinstance(publisher, ZmqPublisher):
            return publisher
    msg = "the demo needs a publisher of kind zmq"
    raise typer.BadParameter(msg)
