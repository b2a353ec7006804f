"""A whole control plane with the publisher ``nats``: the stream against what the simulator sent, through kills of both."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from discorder.clock import SystemClock
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.simulator import Simulator
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import session_label
from tests.bot.nats_workers import Worker, until, workers
from tests.harness import StartStage
from tests.publishers.nats_server import NatsServer, Stored, in_thread, read_stream
from tests.serving import Serve

STREAM = "discord_bot"
WITHIN = 120.0  # seconds
SHARDS = 4
RATE = 300.0  # events per second of the simulator

__all__ = ["workers"]  # a fixture

Seqs = dict[str | None, list[int | None]]  # in order, by session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


def table(server: NatsServer) -> dict[str, str]:
    return {"servers": f'"{server.url}"', "prefix": '"discord.bot"', "stream_bytes": "200000000"}


def config_of(sim: Simulator, server: NatsServer, folder: Path) -> Path:
    """Write the configuration of a control plane in a process of its own."""
    config = folder / "nats.toml"
    lines = "\n".join(f"{key} = {value}" for key, value in table(server).items())
    config.write_text(
        f'[gateway]\napi = "{sim.api_url}"\nshards = {SHARDS}\n[session]\nstore = "{folder / "nats.sqlite3"}"\n'
        f'[http]\nbind = ""\n[publishers.nats]\n{lines}\n'
    )
    return config


def stored_seqs(messages: Sequence[Stored]) -> Seqs:
    found: Seqs = defaultdict(list)
    for message in messages:
        document = message.document
        if document.seq is not None:
            found[document.session].append(document.seq)
    return dict(found)


def sent_seqs(sim: Simulator) -> Seqs:
    found: Seqs = defaultdict(list)
    for session, seq, _ in sim.sent:
        found[session_label(session)].append(seq)
    return dict(found)


def health_of(tracker: GatewayTracker) -> PublisherHealth:
    return next(one for one in tracker.publisher_health if one.name == "nats")


async def all_is_stored(server: NatsServer, sim: Simulator) -> Seqs:
    """Wait until the stream has as many events as the simulator sent, and return them."""
    async with asyncio.timeout(WITHIN):
        while True:
            stored = stored_seqs(await read_stream(server, STREAM))
            if sum(map(len, stored.values())) >= len(sim.sent):
                return stored
            await asyncio.sleep(0.05)


async def test_without_a_server_the_plane_starts_and_the_events_wait(
    server: NatsServer, sim: Simulator, start_stage: StartStage
) -> None:
    """The health of the publisher says what is wrong. Once there is a server, the stream gets everything from READY on."""
    server.kill()
    stage = start_stage(
        sim, *(f"publishers.nats.{key}={value}" for key, value in table(server).items()), clock=SystemClock()
    )
    tracker = await stage.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    await stage.until(lambda: health_of(tracker).queued_events == len(sim.sent) and health_of(tracker).failures > 1)
    health = health_of(tracker)
    assert (health.state, health.required, health.dropped) == (PublisherState.RETRYING, True, 0)
    assert "publishers.nats.servers: no NATS server can be reached" in health.last_error
    assert health.lag > 0
    await in_thread(server.start)
    await stage.until(lambda: health_of(tracker).accepted == len(sim.sent))
    assert health_of(tracker).state is PublisherState.HEALTHY
    assert stored_seqs(await read_stream(server, STREAM)) == sent_seqs(sim)
    assert (sim.connects, sim.identifies) == (1, 1)
    await stage.stop()


async def test_the_default_prefix_has_the_id_of_the_bot(
    server: NatsServer, sim: Simulator, start_stage: StartStage
) -> None:
    stage = start_stage(
        sim, f'publishers.nats.servers="{server.url}"', "publishers.nats.stream_bytes=1000000", clock=SystemClock()
    )
    tracker = await stage.ready()
    await stage.until(lambda: health_of(tracker).accepted)
    (ready,) = (one for one in await read_stream(server, "discord_1345187989315256333") if one.document.type == "READY")
    assert ready.subject == "discord.1345187989315256333.1.0.READY"
    await stage.stop()


@pytest.mark.heavy
@pytest.mark.system
async def test_kills_of_the_plane_and_of_the_server_lose_nothing_and_store_nothing_twice(
    server: NatsServer, serve: Serve, tmp_path: Path
) -> None:
    """Each event of each session once, in order; no session is lost to a kill."""
    async with Simulator(guilds=2 * SHARDS, shards=SHARDS, max_concurrency=16, rate=RATE) as sim:
        config = config_of(sim, server, tmp_path)
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
    server: NatsServer, sim: Simulator, start_stage: StartStage
) -> None:
    stage = start_stage(
        sim, *(f"publishers.nats.{key}={value}" for key, value in table(server).items()), clock=SystemClock()
    )
    await stage.ready()
    example = Path(__file__).parent.parent.parent / "examples" / "python" / "nats_reader.py"
    read = list[str]()
    for _ in range(2):
        await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, str(example), server.url, STREAM), stdout=asyncio.subprocess.PIPE
        )
        assert reader.stdout is not None
        while len(read) < len(sim.sent):
            read.append((await asyncio.wait_for(reader.stdout.readline(), WITHIN)).decode().strip())
        reader.kill()
        await reader.wait()
    assert read == [f"{kind} 0 {seq}" for _, seq, kind in sim.sent]
    await stage.stop()


@pytest.mark.heavy
@pytest.mark.system
async def test_three_workers_behind_a_plane_and_one_is_killed(
    server: NatsServer, serve: Serve, tmp_path: Path, workers: list[Worker]
) -> None:
    """From Discord to three processes: each event of each session is handled, in the order of its shard, through two kills."""
    async with Simulator(guilds=2 * SHARDS, shards=SHARDS, max_concurrency=16, rate=RATE) as sim:
        plane = await serve(config=config_of(sim, server, tmp_path), variables={"DISCORD_BOT_TOKEN": sim.token})
        await sim.wait_for(lambda: sim.identifies == SHARDS, timeout=WITHIN)
        workers += [await Worker.start(server, 0.0) for _ in range(3)]
        await until(lambda: all(one.lines for one in workers), WITHIN)
        await max(workers, key=lambda one: len(one.shards)).kill()
        plane.process.kill()
        await plane.ends()
        await serve(config=tmp_path / "nats.toml", variables={"DISCORD_BOT_TOKEN": sim.token})
        await sim.wait_for(lambda: sim.resumed >= SHARDS, timeout=WITHIN)
        count = len(sim.sent)
        await sim.wait_for(lambda: len(sim.sent) > count + 500, timeout=WITHIN)
        await sim.set_rate(0.0)
        sent = {(session_label(session), seq) for session, seq, _ in sim.sent}
        await until(
            lambda: sent <= {(line[2], int(line[3])) for one in workers for line in one.lines if line[0] == "event"},
            WITHIN,
        )
        for one in workers:
            for shard in one.shards:
                got = [int(seq) for _, of_shard, _, seq in one.lines if of_shard == shard]
                assert got == sorted(set(got))
        assert not [line for one in workers for line in one.lines if line[0] == "gap"]
        assert (sim.identifies, sim.violations) == (SHARDS, [])
