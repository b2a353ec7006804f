"""Many shards in one process, sockets that are reset all the time: Ready as early as the rules allow, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from discorder.sessions import SPACING
from discorder.simulator import Simulator
from tests.endurance.outcome import START_WITHIN, Outcome, simulator
from tests.endurance.process import PlaneProcess
from tests.endurance.waiting import readies, until


@dataclass(frozen=True, slots=True)
class Scale:
    """``drops``: sockets per second, for ``seconds``; ``rate``: events per second over all shards."""

    shards: int = 64
    max_concurrency: int = 16
    seconds: float = 60.0
    drops: float = 20.0
    rate: float = 500.0
    seed: int = 0

    @property
    def earliest(self) -> float:
        """Seconds from the first IDENTIFY to the last one (docs/protocol.md#session-start-limit)."""
        return (-(-self.shards // self.max_concurrency) - 1) * SPACING


@dataclass(slots=True)
class ScaleOutcome(Outcome):
    """``ready_after``: seconds from the first session of all to the last READY in the file; ``dropped``: sockets."""

    ready_after: float = 0.0
    dropped: int = 0


async def run(scale: Scale, folder: Path) -> ScaleOutcome:
    """One process with all the shards against one simulator, which lives in this process: two processes, two cores."""
    outcome, rng = ScaleOutcome(), random.Random(scale.seed)
    async with simulator(scale.shards, scale.rate, scale.seed, max_concurrency=scale.max_concurrency) as sim:
        plane = PlaneProcess(folder, sim, shards=scale.shards)
        try:
            await plane.start()
            await sim.wait_for(lambda: sim.sessions, START_WITHIN)
            began = time.monotonic()
            await until(lambda: readies(plane.audit) == scale.shards, scale.earliest + START_WITHIN)
            outcome.ready_after = time.monotonic() - began
            outcome.dropped = await _drop_sockets(sim, scale, rng)
            await outcome.take_stock(sim, plane, scale.shards)
            await outcome.stop(plane)
        finally:
            await plane.clean_up()
    return outcome


async def _drop_sockets(sim: Simulator, scale: Scale, rng: random.Random) -> int:
    """Reset open sockets, chosen at random; return how many were reset."""
    dropped = 0
    begin = due = time.monotonic()
    while due < begin + scale.seconds:
        if shards := sim.connected_shards:
            await sim.drop(shard=rng.choice(shards))
            dropped += 1
        due += 1 / scale.drops
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return dropped
