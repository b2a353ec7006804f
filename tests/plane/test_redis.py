"""A whole control plane with the publisher ``redis``: the streams against what the simulator sent, through kills of both."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from discorder.clock import SystemClock
from discorder.errors import ConfigError
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.simulator import Simulator
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import session_label
from tests.harness import StartStage
from tests.publishers.nats_server import in_thread
from tests.publishers.redis_server import RedisServer, read_stream, streams
from tests.serving import Serve

PREFIX = "discord:bot"
WITHIN = 120.0  # seconds
SHARDS = 4
RATE = 300.0  # events per second of the simulator

Seqs = dict[str | None, list[int | None]]  # in order, by session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis")
    made.start()
    yield made
    made.kill()


def table(server: RedisServer) -> dict[str, str]:
    return {"url": f'"{server.url}"', "prefix": f'"{PREFIX}"', "maxlen": "100000"}


async def stored_seqs(server: RedisServer) -> Seqs:
    found: Seqs = defaultdict(list)
    for key in await streams(server, f"{PREFIX}:[0-9]*"):
        for entry in await read_stream(server, key):
            found[entry.document.session].append(entry.document.seq)
    return dict(found)


def sent_seqs(sim: Simulator) -> Seqs:
    found: Seqs = defaultdict(list)
    for session, seq, _ in sim.sent:
        found[session_label(session)].append(seq)
    return dict(found)


def health_of(tracker: GatewayTracker) -> PublisherHealth:
    return next(one for one in tracker.publisher_health if one.name == "redis")


async def all_is_stored(server: RedisServer, sim: Simulator) -> Seqs:
    """Wait until the stream has as many events as the simulator sent, and return them."""
    async with asyncio.timeout(WITHIN):
        while True:
            stored = await stored_seqs(server)
            if sum(map(len, stored.values())) >= len(sim.sent):
                return stored
            await asyncio.sleep(0.05)


async def test_without_a_server_the_plane_starts_and_the_events_wait(
    server: RedisServer, sim: Simulator, start_stage: StartStage
) -> None:
    """The health of the publisher says what is wrong. Once there is a server, the stream gets everything from READY on."""
    server.kill()
    stage = start_stage(
        sim, *(f"publishers.redis.{key}={value}" for key, value in table(server).items()), clock=SystemClock()
    )
    tracker = await stage.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    await stage.until(lambda: health_of(tracker).queued_events == len(sim.sent) and health_of(tracker).failures > 1)
    health = health_of(tracker)
    assert (health.state, health.required, health.dropped) == (PublisherState.RETRYING, True, 0)
    assert "publishers.redis.url: the Redis server cannot be reached" in health.last_error
    assert health.lag > 0
    await in_thread(server.start)
    await stage.until(lambda: health_of(tracker).accepted == len(sim.sent))
    assert health_of(tracker).state is PublisherState.HEALTHY
    assert await stored_seqs(server) == sent_seqs(sim)
    assert (sim.connects, sim.identifies) == (1, 1)
    await stage.stop()


async def test_the_default_prefix_has_the_id_of_the_bot(
    server: RedisServer, sim: Simulator, start_stage: StartStage
) -> None:
    stage = start_stage(
        sim, f'publishers.redis.url="{server.url}"', "publishers.redis.maxlen=1000", clock=SystemClock()
    )
    tracker = await stage.ready()
    await stage.until(lambda: health_of(tracker).accepted)
    first, *_ = await read_stream(server, "discord:1345187989315256333:1:0")
    assert first.document.type == "READY"
    await stage.stop()


async def test_a_server_without_a_file_ends_the_start(tmp_path: Path, sim: Simulator, start_stage: StartStage) -> None:
    """Whoever writes the table expects that nothing is lost. The error names what to change."""
    forgetful = RedisServer(tmp_path / "forgetful", appendonly="no")
    forgetful.start()
    try:
        stage = start_stage(sim, *(f"publishers.redis.{key}={value}" for key, value in table(forgetful).items()))
        with pytest.raises(ConfigError, match=r"^publishers\.redis\.required: the server has no append-only file"):
            await stage.ready()
    finally:
        forgetful.kill()


@pytest.mark.heavy
@pytest.mark.system
async def test_kills_of_the_plane_and_of_the_server_lose_nothing_and_store_nothing_twice(
    server: RedisServer, serve: Serve, tmp_path: Path
) -> None:
    """Each event of each session once, in order; no session is lost to a kill."""
    async with Simulator(guilds=2 * SHARDS, shards=SHARDS, max_concurrency=16, rate=RATE) as sim:
        config = tmp_path / "redis.toml"
        lines = "\n".join(f"{key} = {value}" for key, value in table(server).items())
        config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\nshards = {SHARDS}\n[session]\nstore = "{tmp_path / "redis.sqlite3"}"\n'
            f'[http]\nbind = ""\n[publishers.redis]\n{lines}\n'
        )
        plane = await serve(config=config, variables={"DISCORD_BOT_TOKEN": sim.token})
        await sim.wait_for(lambda: sim.identifies == SHARDS, timeout=WITHIN)
        resumed = 0
        for broken in ("plane", "server", "plane", "both", "server"):
            count = len(sim.sent)
            await sim.wait_for(lambda count=count: len(sim.sent) > count + 200, timeout=WITHIN)  # type: ignore[misc]
            if broken != "plane":
                server.kill()
            if broken != "server":
                plane.process.kill()
                await plane.ends()
            if broken != "plane":
                await sim.wait_for(lambda count=count: len(sim.sent) > count + 400, timeout=WITHIN)  # type: ignore[misc]
                await in_thread(server.start)
            if broken != "server":
                plane = await serve(config=config, variables={"DISCORD_BOT_TOKEN": sim.token})
                resumed += SHARDS
                await sim.wait_for(lambda resumed=resumed: sim.resumed >= resumed, timeout=WITHIN)  # type: ignore[misc]
        await sim.set_rate(0.0)
        stored = await all_is_stored(server, sim)
        assert stored == sent_seqs(sim)
        assert (sim.identifies, sim.violations) == (SHARDS, [])


@pytest.mark.system
async def test_the_example_reads_the_stream_and_goes_on_where_it_was_killed(
    server: RedisServer, sim: Simulator, start_stage: StartStage
) -> None:
    stage = start_stage(
        sim, *(f"publishers.redis.{key}={value}" for key, value in table(server).items()), clock=SystemClock()
    )
    await stage.ready()
    example = Path(__file__).parent.parent.parent / "examples" / "python" / "redis_reader.py"
    read = list[str]()
    for _ in range(2):
        await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, str(example), server.url, f"{PREFIX}:1:0"), stdout=asyncio.subprocess.PIPE
        )
        assert reader.stdout is not None
        while len(read) < len(sim.sent):
            read.append((await asyncio.wait_for(reader.stdout.readline(), WITHIN)).decode().strip())
        reader.kill()
        await reader.wait()
    assert read == [f"{kind} 0 {seq}" for _, seq, kind in sim.sent]
    await stage.stop()
