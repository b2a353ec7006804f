"""Narrate the demos: say what the state machine of a control plane does, in plain words."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console

from discorder.config import Config, load_config
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.shard_tracker import Transition
from discorder.tracking.tracker import GatewayTracker

EVENTS_LOST = 3  # exit code of this command alone
START_SECONDS = 20.0  # for READY
RECOVERY_SECONDS = 30.0  # for the session to be Ready again; a back-off and a RESUME take about two
STEP = 0.05  # seconds between two looks at the state machine
SETTINGS = (  # before those of the user
    "log.level=error",  # the narrator prints instead
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
    """How many events were published, and how many different ones were received. ``lost``: never received."""

    published: int
    received: int
    lost: int

    def __str__(self) -> str:
        return f"published={self.published} received={self.received} lost={self.lost}"


class Narrator:
    """Says what happens, each line with the seconds since the beginning."""

    def __init__(self, tracker: GatewayTracker, console: Console) -> None:
        self.tracker = tracker
        self._console = console
        self._began = time.monotonic()
        self._printed: dict[int, int] = {}  # transitions of each shard

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(
            f"[cyan]{time.monotonic() - self._began:5.1f} s[/]  {text}", highlight=False, soft_wrap=True
        )

    async def until(self, waiting: asyncio.Future[Any]) -> None:
        """Say what the state machine does until ``waiting`` has ended; raise its error."""
        try:
            while not waiting.done():
                await self.watch(STEP)
            waiting.result()
        finally:
            waiting.cancel()

    async def watch(self, seconds: float) -> None:
        """Say what the state machine does, for ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            self.say_transitions()
            left = end - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, STEP))

    async def recovered(self, cut: Callable[[], Coroutine[Any, Any, object]]) -> float | None:
        """Cut the connection, and return the seconds until all shards are Ready again; None if they are not in time."""
        restarts, cut_at = self.tracker.stats.restart_count, time.monotonic()
        await cut()
        try:
            async with asyncio.timeout(RECOVERY_SECONDS):
                while self.tracker.stats.restart_count == restarts or not self._is_ready():
                    await self.watch(STEP)
        except TimeoutError:
            self.say(f"The session did not come back within {RECOVERY_SECONDS:g} s.")
            return None
        self.say_transitions()
        return time.monotonic() - cut_at

    def say_transitions(self) -> None:
        """Say which transitions there were since the last time."""
        several = len(self.tracker.shards) > 1
        for shard in self.tracker.shards:
            steps = list(shard.transitions)
            for step in steps[self._printed.get(shard.shard_id, 0) :]:
                if step.source is not step.target:
                    who = f"shard {shard.shard_id}" if several else "it"
                    self.say(f"[bold]{step.source} → {step.target}[/]  {who} {_meaning(step)}")
            self._printed[shard.shard_id] = len(steps)

    def _is_ready(self) -> bool:
        return all(shard.state is State.READY for shard in self.tracker.shards)


def _meaning(step: Transition) -> str:
    if step.target is State.READY:
        return _RESUMED if step.source is State.RESUMING else _READY
    return _MEANING.get(step.target, step.target.meaning)


@contextlib.contextmanager
def progress(console: Console, what: str) -> Iterator[None]:
    """Say what is being set up, and how long it took."""
    began = time.monotonic()
    console.print(f"{what} … ", end="", highlight=False)
    yield
    console.print(f"{time.monotonic() - began:.1f} s", highlight=False)


def demo_config(sim: Simulator, overrides: Sequence[str]) -> Config:
    """Return the configuration of a demo: that of the sample, then ``overrides``."""
    sample = importlib.resources.files("discorder") / "etc" / "demo.toml"
    with importlib.resources.as_file(sample) as path:
        return load_config(path, [f"gateway.api={sim.api_url}", *SETTINGS, *overrides])


async def unless_over(plane: asyncio.Task[None], wanted: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``wanted``. If the plane ends first, raise its error."""
    task = asyncio.create_task(wanted)
    try:
        await asyncio.wait([plane, task], return_when=asyncio.FIRST_COMPLETED)
        if plane.done():
            await plane
        return await task
    finally:
        task.cancel()
