"""`discorder demo`: simulator, control plane and a subscriber in a process of its own, without a token."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import sys
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from discorder.cli.serve import Overrides
from discorder.cli.tail import readable
from discorder.config import Config, load_config
from discorder.control_plane import TrackerRef, serve_config, shutdown
from discorder.plane import Surroundings
from discorder.publishers.zeromq import ZmqPublisher
from discorder.rest import BotClient, GatewayInfo
from discorder.simulator import Simulator
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import decode_document

EVENTS_LOST = 3  # exit code of this command alone
LINES_PER_SECOND = 20.0  # printed at most; counted are all
START_SECONDS = 20.0  # for the other process to start and subscribe, and for READY
CATCH_UP_SECONDS = 5.0  # for the last events to reach the other process

T = TypeVar("T")


def demo(
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to run once the session is up.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0.0, help="Events per second that the simulator plays.")] = 25.0,
    overrides: Overrides = None,
) -> None:
    """Watch the whole way of an event, without a token and without leaving this machine.

    A simulated Discord gateway, a control plane that connects to it, and a subscriber in a process of its own that receives
    the events over ZeroMQ on port 6000. Ends with published=… received=… lost=…; exit code 3 if anything was lost.
    """
    published, received = asyncio.run(_demo(seconds, rate, overrides or []))
    lost = published - received
    typer.echo(f"published={published} received={received} lost={lost}")
    if lost:
        raise typer.Exit(EVENTS_LOST)


async def _demo(seconds: float, rate: float, overrides: list[str]) -> tuple[int, int]:
    """Counts of events published and received."""
    ref = TrackerRef()
    console = Console()
    async with Simulator(guilds=3, rate=rate) as sim:
        config = _config(sim, overrides)
        client = BotClient(sim.token)
        subscribed = asyncio.Event()

        async def look_up() -> GatewayInfo:
            await subscribed.wait()
            return await client.gateway_bot()

        with console.status("starting") as status:
            around = Surroundings(look_up=look_up)
            serving = serve_config(lambda: config, client=client, tracker_ref=ref, surroundings=around)
            plane = asyncio.create_task(serving)
            try:
                tracker = await _unless_over(plane, _tracker(ref))
                async with Subscriber(_zmq(tracker), console) as subscriber:
                    await _unless_over(plane, subscriber.subscribed(_zmq(tracker)))
                    subscribed.set()
                    await _unless_over(plane, ref.ready(timeout=START_SECONDS))
                    await _unless_over(plane, _count(tracker, subscriber, seconds, status))
                    await shutdown(tracker)
                    published = tracker.stats.published_event_count
                    await subscriber.catch_up(published)
                    return published, subscriber.received
            finally:
                plane.cancel()
                await asyncio.gather(plane, return_exceptions=True)


def _config(sim: Simulator, overrides: list[str]) -> Config:
    sample = importlib.resources.files("discorder") / "etc" / "demo.toml"
    with importlib.resources.as_file(sample) as path:
        return load_config(path, [f"gateway.api={sim.api_url}", *overrides])


async def _tracker(ref: TrackerRef) -> GatewayTracker:
    return await asyncio.to_thread(ref.wait)


def _zmq(tracker: GatewayTracker) -> ZmqPublisher:
    for publisher in tracker.publishers:
        if isinstance(publisher, ZmqPublisher):
            return publisher
    msg = "the demo needs a publisher of kind zmq"
    raise typer.BadParameter(msg)


async def _unless_over(plane: asyncio.Task[None], wanted: Coroutine[Any, Any, T]) -> T:
    """The result of ``wanted``; the plane's error instead when that ends first."""
    task = asyncio.create_task(wanted)
    try:
        await asyncio.wait([plane, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await plane
        return await task
    finally:
        task.cancel()


async def _count(tracker: GatewayTracker, subscriber: Subscriber, seconds: float, status: Status) -> None:
    end = time.monotonic() + seconds
    shown = 0
    while (left := end - time.monotonic()) > 0:
        stats = tracker.stats
        for step in list(tracker.transitions)[shown:]:
            status.console.print(f"[bold]{step.source} → {step.target}[/] ({step.trigger})", highlight=False)
            shown += 1
        status.update(
            f"{tracker.state}, {left:.0f} s left: published {stats.published_event_count}, received {subscriber.received}, "
            f"heartbeats {stats.heartbeat_received_count} of {stats.heartbeat_sent_count} acknowledged"
        )
        await asyncio.sleep(min(left, 0.25))


class Subscriber:
    """`discorder tail --json` in a process of its own; what it prints is what it received."""

    def __init__(self, publisher: ZmqPublisher, console: Console) -> None:
        self.received = 0
        self._address = publisher.endpoints[0]
        self._console = console
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Subscriber:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "tail", "--json", self._address),
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,  # a guild of some megabytes is one line
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        await asyncio.gather(self._process.wait(), self._reading)

    async def subscribed(self, publisher: ZmqPublisher) -> None:
        """Wait until the subscription has reached the publisher."""
        async with asyncio.timeout(START_SECONDS):
            while publisher.subscriptions == 0:  # noqa: ASYNC110  # ZeroMQ tells of a subscription when asked
                await asyncio.sleep(0.02)

    async def catch_up(self, published: int) -> None:
        """Wait until as many events have come as were published, or nothing more can be expected."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while self.received < published:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  # asked for with PIPE
        printed_at = 0.0
        async for line in self._process.stdout:
            event = decode_document(line)
            if event.seq is not None:  # not one of the control plane's own records
                self.received += 1
                self._arrived.set()
            if time.monotonic() - printed_at >= 1 / LINES_PER_SECOND:
                printed_at = time.monotonic()
                self._console.print(escape(readable(event)), highlight=False, soft_wrap=True)
