"""The CPU time of a whole `serve` process while nothing happens: heartbeats, watchdog, store, bus and all."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from discorder.simulator import Simulator

pytestmark = [pytest.mark.system, pytest.mark.suite]  # each figure takes seconds of real time

BEAT_MS = 4_000  # ten times as often as Discord asks for
SECONDS = 6.0  # measured


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of another process, all its threads, to the nanosecond (``clock_getcpuclockid``, Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


@pytest.mark.parametrize(
    ("shards", "percent"),
    [
        (1, 1.0),  # measured: 0.1 % of a core
        (100, 12.0),  # measured: 1.2 %, most of it the system calls of 25 beats and their answers a second
    ],
)
async def test_a_control_plane_at_rest_costs_next_to_nothing(
    environment: dict[str, str], tmp_path: Path, shards: int, percent: float
) -> None:
    async with Simulator(
        guilds=shards, shards=shards, max_concurrency=shards, identify_spacing=0.0, heartbeat_interval_ms=BEAT_MS
    ) as sim:
        settings = (
            f"gateway.api={sim.api_url}",
            "publishers.zmq.bind=tcp://127.0.0.1:0",
            "log.level=warning",
            "http.bind=127.0.0.1:0",
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "serve", "--set", f"session.store={tmp_path / 'sessions.sqlite3'}"),
            *(word for setting in settings for word in ("--set", setting)),
            env=environment | {"DISCORD_BOT_TOKEN": sim.token},
            cwd=tmp_path,
        )
        try:
            await sim.wait_for(lambda: len(sim.connected_shards) == shards, timeout=60)
            await asyncio.sleep(BEAT_MS / 1000)  # for the writes and log lines of the start
            frames, used = sim.frames_received, cpu_seconds(process.pid)
            await asyncio.sleep(SECONDS)
            used = cpu_seconds(process.pid) - used
            assert sim.frames_received >= frames + shards  # it is running
        finally:
            process.terminate()
            await process.wait()
    assert used / SECONDS * 100 < percent
