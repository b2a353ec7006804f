"""Shards that move between two control planes which publish into one stream of a broker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from discorder.clock import SystemClock
from tests.plane import test_nats, test_redis
from tests.plane.test_moving_shards import ALL, NONE, StartSimulator, serves
from tests.publishers.nats_server import NatsServer, in_thread, read_stream
from tests.publishers.redis_server import RedisServer

if TYPE_CHECKING:
    from tests.harness import StartStage

Seqs = dict[str | None, list[int | None]]  # in order, by session


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["nats", "redis"])
async def test_the_stream_has_each_event_of_a_shard_that_moves(
    start_simulator: StartSimulator, start_stage: StartStage, tmp_path: Path, kind: str
) -> None:
    """In order and once, under load; no IDENTIFY is spent."""
    sim = await start_simulator(shards=2, max_concurrency=2, guilds=4)
    server = NatsServer(tmp_path / "broker") if kind == "nats" else RedisServer(tmp_path / "broker")
    await in_thread(server.start)

    async def stored() -> Seqs:
        if isinstance(server, NatsServer):
            return test_nats.stored_seqs(await read_stream(server, test_nats.STREAM))
        return await test_redis.stored_seqs(server)

    table = test_nats.table(server) if isinstance(server, NatsServer) else test_redis.table(server)
    settings = [f"publishers.{kind}.{key}={value}" for key, value in table.items()]
    first, second = (
        start_stage(
            sim,
            *(f"session.store={tmp_path / 'sessions.sqlite3'}", layout, f"publishers.{kind}.required=true", *settings),
            clock=SystemClock(),
        )
        for layout in (ALL, NONE)
    )
    try:
        await serves(first, [0, 1])
        await second.result(second.ref.ready())
        await sim.set_rate(300)
        for giver, taker in ((first, second), (second, first)) * 3:
            for shard in (1, 0):
                await giver.tracker.release_shard(shard)
                await asyncio.sleep(0.1)  # Discord keeps what comes meanwhile
                await taker.tracker.start_shard(shard)
            await serves(taker, [0, 1])
            await asyncio.sleep(0.2)
        await sim.set_rate(0)
        async with asyncio.timeout(60):
            while sum(map(len, (await stored()).values())) < len(sim.sent):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
        assert await stored() == test_nats.sent_seqs(sim)
        assert (sim.identifies, sim.resumed, sim.violations) == (2, 12, [])
        await first.stop()
        await second.stop()
    finally:
        server.kill()
