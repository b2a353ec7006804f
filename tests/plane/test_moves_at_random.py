"""Shards are released and started at random moments, on two planes, while connections break and operators pause shards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreLocked, VerbRefused
from discorder.simulator import Simulator
from tests.harness import Stage
from tests.plane.test_moving_shards import Observer, StartSimulator, ids, kept, sent

if TYPE_CHECKING:
    from tests.harness import StartStage

SHARDS = 3
STEPS = 100
REFUSED = (VerbRefused, StoreLocked, ValueError)


class Chaos:
    """Does one thing after another to two planes and their gateway."""

    def __init__(self, sim: Simulator, stages: list[Stage], rng: random.Random) -> None:
        self._sim = sim
        self._stages = stages
        self._rng = rng
        self.moves: list[asyncio.Task[None]] = []
        self.moved = 0

    async def step(self) -> None:
        tracker = self._rng.choice(self._stages).tracker
        shard = self._rng.randrange(SHARDS)
        match self._rng.choice(["move"] * 6 + ["events"] * 3 + ["op 7", "reset", "restart", "pause", "unpause"]):
            case "move":
                away = not any(shard in ids(stage) for stage in self._stages)
                verb = tracker.start_shard if away else tracker.release_shard
                self.moves.append(asyncio.create_task(self._move(verb(shard))))
            case "events":
                for number in range(self._rng.randrange(1, 300)):
                    await self._sim.dispatch("MESSAGE_CREATE", {"id": str(number)}, shard=shard)
            case "op 7":
                await self._sim.reconnect(shard=shard)
            case "reset":
                await self._sim.drop(shard=shard)
            case verb:
                try:
                    getattr(tracker, f"{verb}_shard")(shard)
                except REFUSED:
                    return
        for _ in range(self._rng.choice([0, 1, 3, 20])):
            await self._stages[0].pass_time()

    async def _move(self, move: Coroutine[Any, Any, None]) -> None:
        try:
            await move
        except REFUSED:
            return
        self.moved += 1


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(3))
async def test_shards_move_at_random_moments(
    start_simulator: StartSimulator, start_stage: StartStage, tmp_path: Path, seed: int
) -> None:
    """Each event is in one of the files, once; no IDENTIFY is spent; documents and metrics are whole, and no total falls."""
    rng, clock = random.Random(seed), FakeClock()
    sim = await start_simulator(shards=SHARDS, max_concurrency=SHARDS, guilds=6)
    layouts: tuple[tuple[str, list[int]], ...] = (("first.tsv", list(range(SHARDS))), ("second.tsv", []))
    stages = [
        start_stage(
            sim,
            *(f"session.store={tmp_path / 'sessions.sqlite3'}", f"gateway.shards={{ids={shards},of={SHARDS}}}"),
            *("publishers.audit.kind=delimited_file", f"publishers.audit.path={tmp_path / name}"),
            "publishers.audit.required=true",
            clock=clock,
        )
        for name, shards in layouts
    ]
    for stage in stages:
        await stage.result(stage.ref.ready())
        stage.strict = False  # transitions come while a test looks
    observers = [Observer(stage.tracker, clock) for stage in stages]
    chaos = Chaos(sim, stages, rng)
    for _ in range(STEPS):
        await chaos.step()
        for observer in observers:
            observer.look()
    await stages[0].until(lambda: all(move.done() for move in chaos.moves))
    await asyncio.gather(*chaos.moves)
    for shard in range(SHARDS):
        if not any(shard in ids(stage) for stage in stages):
            await stages[0].result(stages[0].tracker.start_shard(shard))
    trackers = [shard for stage in stages for shard in stage.tracker.shards]
    for stage in stages:
        for tracker in stage.tracker.shards:
            if tracker.paused_since is not None:
                stage.tracker.unpause_shard(tracker.shard_id)
    await stages[0].until(lambda: all(shard.serves for shard in trackers), within=300.0)
    await stages[0].until(lambda: kept(tmp_path) == sent(sim), within=120.0)
    assert (sim.identifies, sim.violations, chaos.moved > 5) == (SHARDS, [], True)
    for stage in stages:
        await stage.stop()
    assert kept(tmp_path) == sent(sim)
