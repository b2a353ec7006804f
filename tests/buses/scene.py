"""One story: a simulator, `discorder serve` in a process of its own, a broker, and what happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from discorder.simulator import Simulator
from tests.buses.broker import Broker, NotReadable
from tests.buses.judge import Verdict, judge
from tests.endurance.process import SERVE, ChildProcess

SHARDS = 4
RATE = 400.0  # events per second
WITHIN = 90.0  # seconds for whatever must happen; the machine may be busy
LOOK_EVERY = 0.3  # seconds

CONFIG = """\
[gateway]
api = "{api}"
shards = {shards}
[log]
level = "warning"
[session]
store = "{folder}/sessions.sqlite3"
[http]
bind = ""
[publishers.bus]
required = true
{publisher}
"""

Story = Callable[["Scene"], Awaitable[None]]


@dataclass(slots=True)
class Outcome:
    """The result of `play`. ``log``: the end of what the control plane said."""

    verdict: Verdict = field(default_factory=Verdict)
    faults: list[str] = field(default_factory=list)
    log: str = ""
    seconds: float = 0.0


class Scene:
    """What a story can use. ``rng`` draws its moments."""

    def __init__(self, folder: Path, sim: Simulator, broker: Broker, rng: random.Random) -> None:
        self.sim = sim
        self.broker = broker
        self.rng = rng
        self.may_lose = False  # events that were stored, if the loss is told
        self.plane = ChildProcess(folder / "plane.log", {"DISCORD_BOT_TOKEN": sim.token, "NO_COLOR": "1"})
        self._config = folder / "plane.toml"
        self._config.write_text(
            CONFIG.format(api=sim.api_url, shards=SHARDS, folder=folder, publisher=broker.publisher)
        )
        self._resumes = 0  # expected

    async def events(self, low: int, high: int) -> None:
        """Wait until the simulator has sent a number of further events, drawn between the two."""
        count = len(self.sim.sent) + self.rng.randint(low, high)
        await self.sim.wait_for(lambda: len(self.sim.sent) >= count, timeout=WITHIN)

    async def start_plane(self) -> None:
        """Start the control plane; return when it has the sessions of all shards."""
        sim = self.sim
        if self.plane.lives:
            self._resumes += SHARDS
        await self.plane.begin([*SERVE, "-c", str(self._config)])
        await sim.wait_for(lambda: sim.resumed >= self._resumes and len(sim.connected_shards) == SHARDS, timeout=WITHIN)

    async def kill_plane(self) -> None:
        await self.plane.kill()

    async def settled(self) -> Verdict:
        """Return the verdict once it has no faults, at the latest after `WITHIN`. Raises TimeoutError if nothing can be read."""
        until, verdict = time.monotonic() + WITHIN, None
        while time.monotonic() < until:
            with contextlib.suppress(NotReadable):
                verdict = judge(self.sim.sent, await self.broker.read())
                if not verdict.faults(may_lose=self.may_lose):
                    return verdict
            await asyncio.sleep(LOOK_EVERY)
        if verdict is None:
            raise TimeoutError
        return verdict


async def play(make: Callable[[Path], Broker], story: Story, seed: object) -> Outcome:
    """Play ``story`` with a broker that ``make`` makes in a folder of its own, and compare."""
    outcome, began = Outcome(), time.monotonic()
    async with _scene(make, seed) as scene:
        try:
            await scene.start_plane()
            await story(scene)
            await scene.sim.set_rate(0.0)
            outcome.verdict = await scene.settled()
            outcome.faults = outcome.verdict.faults(may_lose=scene.may_lose)
            if (code := await scene.plane.stop()) != 0:
                outcome.faults.append(f"the graceful end had exit code {code}")
        except TimeoutError:
            outcome.faults.append("something did not happen in time")
        if scene.sim.identifies != SHARDS:
            outcome.faults.append(f"{scene.sim.identifies - SHARDS} further identifies")
        outcome.faults += [f"the simulator saw {violation}" for violation in scene.sim.violations]
        outcome.log = scene.plane.said()
    outcome.seconds = time.monotonic() - began
    return outcome


@asynccontextmanager
async def _scene(make: Callable[[Path], Broker], seed: object) -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="buses-", ignore_cleanup_errors=True) as name:
        broker = make(Path(name, "broker"))
        async with Simulator(guilds=2 * SHARDS, shards=SHARDS, max_concurrency=16, rate=RATE) as sim:
            try:
                await broker.start()
                scene = Scene(Path(name), sim, broker, random.Random(str(seed)))
                try:
                    yield scene
                finally:
                    await scene.plane.clean_up()
            finally:
                await broker.close()
