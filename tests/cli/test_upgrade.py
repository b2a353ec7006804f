"""An upgrade loses nothing: `serve --take-over`, measured with real processes, a required sink and the simulator."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path
from statistics import median

import pytest

from discorder.simulator import Simulator
from tests.endurance.evidence import read_rows
from tests.faults.fault import Cost, loss, told
from tests.serving import Serve
from tests.stopwatch import Stopwatch

pytestmark = [pytest.mark.system, pytest.mark.heavy]
UPGRADES = 5
MOST_SECONDS = 2.0  # from the close of the old process's last socket to the last RESUME of the new one


@pytest.mark.parametrize("shards", [1, 16])
async def test_taking_over_again_and_again_loses_nothing(serve: Serve, tmp_path: Path, shards: int) -> None:
    """Each process takes over from the one before, while events come: nothing is missing, nothing comes twice.

    The figures of docs/operations.md are from here: ``pytest -o log_cli=true tests/cli/test_upgrade.py``.
    """
    async with Simulator(guilds=2 * shards, shards=shards, max_concurrency=16, rate=300) as sim:
        config = tmp_path / "upgrade.toml"
        config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\nshards = {shards}\n[session]\nstore = "{tmp_path / "upgrade.sqlite3"}"\n'
            f'[publishers.audit]\nkind = "delimited_file"\npath = "{tmp_path / "upgrade.tsv"}"\nrequired = true\n'
        )
        old = await serve(config=config, variables={"DISCORD_BOT_TOKEN": sim.token})
        await sim.wait_for(lambda: sim.identifies == shards, timeout=60)
        await old.says("Control plane started")
        away, whole = list[float](), list[float]()
        for upgrade in range(1, UPGRADES + 1):
            count = len(sim.sent)
            await sim.wait_for(lambda count=count: len(sim.sent) > count + 100, timeout=60)  # type: ignore[misc]
            began = time.monotonic()
            new = await serve("--take-over", config=config, variables={"DISCORD_BOT_TOKEN": sim.token})
            await sim.wait_for(lambda upgrade=upgrade: len(sim.closes) == upgrade * shards, timeout=60)  # type: ignore[misc]
            watch = Stopwatch(new.process.pid)
            await sim.wait_for(lambda upgrade=upgrade: sim.resumed == upgrade * shards, timeout=60)  # type: ignore[misc]
            away.append(watch.seconds)
            whole.append(time.monotonic() - began)
            assert await old.ends() == 0, old.log
            old = new
        await sim.set_rate(0.0)
        await asyncio.sleep(0.05)
        file = tmp_path / "upgrade.tsv"
        async with asyncio.timeout(60):
            while sum(row.is_event for row in read_rows(file)) < len(sim.sent):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
        old.process.send_signal(signal.SIGTERM)
        assert await old.ends() == 0, old.log
        seen = [(row.session, row.seq, row.type) for row in read_rows(file) if row.is_event]
        by_session = {session for session, _, _ in seen}
        sent = told(sim)
        for session in by_session:
            mine = [event for event in sent if event[0] == session]
            assert loss(mine, [event for event in seen if event[0] == session]) == Cost(0, 0, 0)
        assert (sim.identifies, len(seen), sim.violations) == (shards, len(sent), [])
        figures = {"longest": max(away), "median": median(away), "from the start": median(whole)}
        logging.getLogger(__name__).warning("%d shards, seconds: %s", shards, figures)
        assert max(away) <= MOST_SECONDS
