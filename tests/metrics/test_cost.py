"""The CPU time of a scrape of a whole process with 500 shards."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from discorder.runtime.open_files import raise_open_file_limit
from discorder.simulator import Simulator
from tests.stopwatch import reference_ms

SHARDS = 500
MOST = 4.0  # times the reference, per scrape; measured: 1.6
HEADERS = {  # what Prometheus sends
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}


def cpu_ms(pid: int) -> float:
    """Return the CPU time of another process, all its threads (``clock_getcpuclockid``, Linux)."""
    return time.clock_gettime((~pid << 3) | 2) * 1000


@pytest.mark.system
@pytest.mark.heavy
async def test_a_scrape_of_500_shards_costs_little(environment: dict[str, str], tmp_path: Path) -> None:
    raise_open_file_limit()
    async with Simulator(
        guilds=SHARDS, shards=SHARDS, max_concurrency=SHARDS, session_start_total=5000, identify_spacing=0.0
    ) as sim:
        settings = (
            *(f"gateway.api={sim.api_url}", "publishers.zmq.bind=tcp://127.0.0.1:0", "session.store="),
            *("http.bind=127.0.0.1:0", f"http.operator_token_file={tmp_path / 'operator-token'}"),
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "serve"),
            *(word for setting in settings for word in ("--set", setting)),
            env=environment | {"DISCORD_BOT_TOKEN": sim.token},
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(120):
                address = ""
                async for line in process.stderr:
                    if found := re.search(r"http://127\.0\.0\.1:\d+", line.decode()):
                        address = address or found[0]
                    if "All shards are ready" in line.decode():
                        break
            reading = asyncio.create_task(process.stderr.read())
            await asyncio.sleep(3.0)  # for what follows the start
            costs = [await scrape_ms(process.pid, f"{address}/metrics") for _ in range(5)]
        finally:
            process.terminate()
            await process.wait()
        await reading
    assert min(costs) / reference_ms() < MOST, costs


async def scrape_ms(pid: int, url: str, scrapes: int = 10) -> float:
    """Return the milliseconds of CPU per scrape, without what the process spends meanwhile on its shards."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        began, used = time.monotonic(), cpu_ms(pid)
        for _ in range(scrapes):
            async with session.get(url) as response:
                assert response.status == 200
                assert (await response.text()).count("discorder_shard_ready{") == SHARDS
        used, spent = cpu_ms(pid) - used, time.monotonic() - began
    idle = cpu_ms(pid)
    await asyncio.sleep(spent)
    return (used - (cpu_ms(pid) - idle)) / scrapes
