"""Many shards in one process, sockets that are reset all the time: Ready as early as the rules allow, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from discorder.sessions import SPACING
from discorder.simulator import Simulator
from tests.endurance.evidence import Account
from tests.endurance.process import PlaneProcess
from tests.endurance.waiting import caught_up, readies, until

START_WITHIN = 90.0  # seconds from the start of the process to its first IDENTIFY, on a machine that is busy
CAUGHT_UP_WITHIN = 120.0  # after the last drop: a shard that was dropped again and again waits up to 30 s


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
        """Seconds from the first IDENTIFY to the last one, as the spacing of the buckets allows (gateway-protocol.md §7)."""
        return (-(-self.shards // self.max_concurrency) - 1) * SPACING


@dataclass(slots=True)
class Outcome:
    """``ready_after``: seconds from the first session of all to the last READY in the file."""

    ready_after: float
    identifies: int
    resumed: int
    dropped: int
    events: int
    account: Account
    violations: list[str]
    exit_code: int
    log: str


async def run(scale: Scale, folder: Path) -> Outcome:
    """One process with all the shards against one simulator, which lives in this process: two processes, two cores."""
    rng = random.Random(scale.seed)
    async with Simulator(
        guilds=scale.shards,
        shards=scale.shards,
        max_concurrency=scale.max_concurrency,
        rate=scale.rate,
        seed=scale.seed,
        keep_documents=True,
        history=2_000_000,
    ) as sim:
        plane = PlaneProcess(folder, sim, shards=scale.shards)
        try:
            await plane.start()
            await sim.wait_for(lambda: sim.sessions, START_WITHIN)
            began = time.monotonic()
            await until(lambda: readies(plane.audit) == scale.shards, scale.earliest + START_WITHIN)
            ready_after = time.monotonic() - began
            dropped = await _drop_sockets(sim, scale, rng)
            await sim.set_rate(0.0)
            await until(lambda: len(sim.connected_shards) == scale.shards, CAUGHT_UP_WITHIN)
            account = await caught_up(plane, sim, CAUGHT_UP_WITHIN)
            code = await plane.stop()
        finally:
            await plane.clean_up()
        return Outcome(
            ready_after=ready_after,
            identifies=sim.identifies,
            resumed=sim.resumed,
            dropped=dropped,
            events=len(sim.sent_documents),
            account=account,
            violations=[str(violation) for violation in sim.violations],
            exit_code=code,
            log=plane.said(),
        )


async def _drop_sockets(sim: Simulator, scale: Scale, rng: random.Random) -> int:
    """Reset open sockets, each time another one of those that are open; returns how many it were."""
    dropped = 0
    begin = due = time.monotonic()
    while due < begin + scale.seconds:
        if shards := sim.connected_shards:
            await sim.drop(shard=rng.choice(shards))
            dropped += 1
        due += 1 / scale.drops
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return dropped


def faults(scale: Scale, outcome: Outcome) -> list[str]:
    """What a run must not show, in sentences."""
    found = [*outcome.account.faults, *outcome.violations]
    if outcome.account.missing:
        found.append(f"{outcome.account.missing.total()} events are missing")
    if outcome.account.duplicates.total():
        found.append(f"{outcome.account.duplicates.total()} events came twice, though the process lived on")
    if outcome.identifies != scale.shards:
        found.append(f"{outcome.identifies} identifies for {scale.shards} shards")
    if outcome.exit_code:
        found.append(f"exit code {outcome.exit_code}")
    return [*found, outcome.log] if found else []
