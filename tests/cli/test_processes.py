"""`discorder serve --processes N`: one command, several control planes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from discorder.bot.positions import Gap
from discorder.bot.subscriber import subscribe
from discorder.sessions import bot_key, read_store
from discorder.simulator import Simulator
from discorder.wire import session_label
from tests.commandline import Command
from tests.serving import Serve, Serving

pytestmark = pytest.mark.system
PROCESSES = 4


@pytest.fixture
async def start(serve: Serve, tmp_path: Path) -> Serve:
    """Starts the command with a shared store and a bus below ``tmp_path``."""
    config = tmp_path / "shared.toml"
    config.write_text(
        f'[session]\nstore = "{tmp_path / "shared.sqlite3"}"\n[http]\nbind = ""\n[publishers.zmq]\nbind = "ipc://{tmp_path}/bus"\n'
    )

    async def started(sim: Simulator, *arguments: str) -> Serving:
        sets = (f"gateway.api={sim.api_url}", f"gateway.shards={PROCESSES}")
        options = [part for value in sets for part in ("--set", value)]
        return await serve("--processes", str(PROCESSES), *options, *arguments, config=config)

    return started


def pid_of(serving: Serving, number: int) -> int:
    """Return the newest process of a number."""
    return int(re.findall(rf"Started a process process={number} pid=(\d+)", serving.log)[-1])


@pytest.mark.heavy
async def test_a_crash_of_one_costs_no_identify_and_no_event(start: Serve, tmp_path: Path) -> None:
    """Four control planes on one store keep the limits; one that is killed resumes, and a subscriber to all misses nothing."""
    seen: Counter[tuple[str, int | None]] = Counter()
    async with Simulator(guilds=4, shards=PROCESSES, max_concurrency=2, rate=50) as sim:
        events = subscribe(f"ipc://{tmp_path}/bus/", start="oldest")

        async def read() -> None:
            async for item in events:
                assert not isinstance(item, Gap), item
                if item.seq is not None:
                    seen[item.session or "", item.seq] += 1

        reading = asyncio.create_task(read())
        planes = await start(sim)
        store, bot = tmp_path / "shared.sqlite3", bot_key(sim.token)
        await sim.wait_for(lambda: sim.identifies == PROCESSES, timeout=120)
        async with asyncio.timeout(60):
            while len(read_store(store, bot).sessions) < PROCESSES:  # noqa: ASYNC110  # other processes write it
                await asyncio.sleep(0.02)
        os.kill(pid_of(planes, 2), signal.SIGKILL)
        await planes.says("A process crashed and will be started again")
        await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
        sent = {(session_label(session), seq) for session, seq, _ in sim.sent}
        async with asyncio.timeout(60):
            while not sent <= seen.keys():  # filled by the reader
                assert not reading.done()
                await asyncio.sleep(0.02)
        assert max(seen.values()) == 1
        assert (sim.identifies, sim.resumed, sim.violations) == (PROCESSES, 1, [])
        planes.process.send_signal(signal.SIGTERM)
        assert await planes.ends() == 0
        assert planes.log.count("Shut down completely") == PROCESSES
        await events.aclose()
        await reading


@pytest.mark.heavy
async def test_an_exit_code_of_its_own_ends_all(start: Serve) -> None:
    async with Simulator(guilds=4, shards=PROCESSES, max_concurrency=PROCESSES, rate=0) as sim:
        planes = await start(sim)
        await sim.wait_for(lambda: sim.identifies == PROCESSES, timeout=120)
        await sim.close(4004, shard=1)
        assert await planes.ends() == 77
    assert "ended for good, which ends all of them" in planes.log


async def test_what_cannot_be_divided_is_said_before_anything_starts(discorder: Command) -> None:
    outcome = await discorder("serve", "--processes", "2", token="a.b.c")
    assert (outcome.code, outcome.out) == (78, "")
    assert "gateway.shards" in outcome.err
