"""`discorder serve` beside another process with the same store: waited for in vain, or with shards of its own.

Refusing, taking over and a rolling upgrade are fault cases 27 and 29 (tests/faults/test_processes.py).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discorder.sessions import bot_key, read_store
from discorder.simulator import Simulator
from tests.serving import Serve, Serving

pytestmark = pytest.mark.system


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1, rate=100) as simulator:
        yield simulator


@pytest.mark.heavy
async def test_whoever_waits_can_be_stopped(serve: Serve, sim: Simulator) -> None:
    """SIGTERM while it waits for the shards: exit 0, nothing was dialled, and the holder goes on."""
    holder = await serve()
    await sim.wait_for(lambda: sim.sent, timeout=60)
    waiting = await serve("--wait", "600")
    await waiting.says("Waiting for the holder of the shards")
    waiting.process.send_signal(signal.SIGTERM)
    assert await waiting.ends() == 0
    assert "Shut down completely" in waiting.log
    assert sim.connects == 1
    assert holder.process.returncode is None


@pytest.mark.heavy
async def test_a_holder_that_does_not_leave_in_time_is_named_with_the_time_waited(serve: Serve, sim: Simulator) -> None:
    """``--wait`` ends with the same refusal as no waiting at all."""
    await serve()
    await sim.wait_for(lambda: sim.sent, timeout=60)
    waiting = await serve("--wait", "0.3")
    assert await waiting.ends() == 73
    assert "waited 0.3 s" in waiting.log
    assert sim.connects == 1


@pytest.mark.heavy
async def test_processes_with_shards_of_their_own_share_ledger_and_gate(serve: Serve, tmp_path: Path) -> None:
    """Two processes, two buckets, both in each process: no two IDENTIFYs of a bucket come within 5 s, all are in one ledger.

    A third one that overlaps is refused. One that is killed comes back without an IDENTIFY, and the other notices nothing.
    """
    async with Simulator(guilds=4, shards=4, max_concurrency=2, rate=50) as sim:

        async def start(ids: str) -> Serving:
            sets = (
                f"gateway.api={sim.api_url}",
                f"gateway.shards={{ids={ids}, of=4}}",
                "publishers.audit.kind=channel",
            )
            config = tmp_path / "shared.toml"
            config.write_text(f'[session]\nstore = "{tmp_path / "shared.sqlite3"}"\n')
            return await serve(*(part for value in sets for part in ("--set", value)), config=config)

        first, second = await start("[0, 1]"), await start("[2, 3]")
        await sim.wait_for(lambda: sim.identifies == 4, timeout=60)
        third = await start("[3]")
        assert await third.ends() == 73
        assert f"shards 2, 3 of 4 of this bot: held by process {second.process.pid}" in third.log
        await first.says("All shards are ready")
        await second.says("All shards are ready")
        first.process.kill()
        await first.ends()
        again = await start("[0, 1]")
        await again.says("All shards are ready")
        assert (sim.identifies, sim.resumed) == (4, 2)
        assert "not healthy" not in second.log
        assert sim.violations == []
        ledger = read_store(tmp_path / "shared.sqlite3", bot_key(sim.token)).ledger
        assert len(ledger.debits) == 4


async def test_a_refused_start_leaves_the_log_file_of_the_running_process_true(
    serve: Serve, sim: Simulator, tmp_path: Path
) -> None:
    """Both append to one file, which must not read as if the running process had started anew or stopped."""
    file = tmp_path / "discorder.log"
    log = ("--set", f"log.file={file}")
    running = await serve(*log)
    await sim.wait_for(lambda: sim.sent, timeout=60)
    before = file.read_text()
    refused = await serve(*log)
    assert await refused.ends() == 73
    added = file.read_text().removeprefix(before)
    assert f"This start failed, and the process served nothing pid={refused.process.pid}" in added
    assert f"held by process {running.process.pid}" in added
    for landmark in ("Shut down completely", "Transport compression", "Opened the session store"):
        assert landmark not in added
    running.process.send_signal(signal.SIGTERM)
    assert await running.ends() == 0
    assert file.read_text().count("Shut down completely") == 1
