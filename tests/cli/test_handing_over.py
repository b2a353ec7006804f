"""`discorder serve` while another process holds the shards: refused, taken over, or waited for."""

from __future__ import annotations

import asyncio
import csv
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from discorder.simulator import Simulator
from discorder.wire import session_label

pytestmark = pytest.mark.system
Serve = Callable[..., Awaitable["Serving"]]


class Serving:
    """A `discorder serve` in a process of its own, and its log so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = ""
        self._grown = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log += line.decode()
            self._grown.set()
        self._grown.set()

    async def says(self, text: str) -> None:
        """Wait until ``text`` stands in its log."""
        async with asyncio.timeout(30):
            while text not in self.log:
                assert not self._reading.done(), self.log
                self._grown.clear()
                await self._grown.wait()

    async def ends(self) -> int:
        """Wait for its end; its exit code."""
        async with asyncio.timeout(30):
            code = await self.process.wait()
            await self._reading
        return code


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1, rate=100) as simulator:
        yield simulator


@pytest.fixture
async def serve(sim: Simulator, environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts control planes that share a store and append to one required file; what still runs at the end is killed."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[gateway]\napi = "{sim.api_url}"\n[session]\nstore = "{tmp_path / "sessions.sqlite3"}"\n'
        f'[publishers.audit]\nkind = "delimited_file"\npath = "{tmp_path / "events.tsv"}"\nrequired = true\n'
    )
    started: list[Serving] = []

    async def start(*arguments: str) -> Serving:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "serve", "--config", str(config), *arguments),
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"DISCORD_BOT_TOKEN": sim.token},
            cwd=tmp_path,
        )
        started.append(Serving(process))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
        await one.ends()


def written(folder: Path) -> list[tuple[str, int]]:
    with (folder / "events.tsv").open(newline="") as file:
        return [(row[2], int(row[4])) for row in csv.reader(file, delimiter="\t") if row[4].isdigit()]


def told(sim: Simulator) -> list[tuple[str, int]]:
    return [(session_label(session), seq) for session, seq, _ in sim.sent]


async def check_all_arrived(sim: Simulator, last: Serving, folder: Path) -> None:
    """Ends ``last``: one session over both processes, and every event of it in the file, in order."""
    last.process.send_signal(signal.SIGTERM)
    assert await last.ends() == 0, last.log
    seen = written(folder)
    assert list(dict.fromkeys(seen)) == told(sim)[: len(dict.fromkeys(seen))]
    assert len(set(seen)) > 20
    assert (sim.identifies, sim.resumed) == (1, 1)
    assert sim.violations == []


async def test_a_second_process_is_refused_before_it_dials(serve: Serve, sim: Simulator, discorder: Any) -> None:
    """Fault case 27: exit 78, and one line that names the process, the age of its lock, and the remedies."""
    first = await serve()
    await sim.wait_for(lambda: sim.sent, timeout=30)
    second = await serve()
    assert await second.ends() == 78
    assert sim.connects == 1
    line = second.log.splitlines()[-1]
    assert f"held by process {first.process.pid} since " in line
    assert re.search(r"\(\d+ s\)", line)
    assert "--take-over" in line
    assert first.process.returncode is None


async def test_take_over_makes_the_holder_hand_over_and_resumes(serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    """The holder gets SIGTERM and ends with 0; its session goes on in the other process."""
    first = await serve()
    await sim.wait_for(lambda: len(sim.sent) > 30, timeout=30)
    second = await serve("--take-over")
    assert await first.ends() == 0
    assert "Shut down completely" in first.log
    await sim.wait_for(lambda: sim.resumed == 1, timeout=30)
    assert f"Asked the holder of the shards to hand over pid={first.process.pid}" in second.log
    await sim.wait_for(lambda: len(sim.sent) > 100, timeout=30)
    await check_all_arrived(sim, second, tmp_path)


async def test_a_rolling_upgrade_starts_the_new_process_before_the_old_one_stops(
    serve: Serve, sim: Simulator, tmp_path: Path
) -> None:
    """Fault case 29: the new one waits and signals nobody; when the old one gets SIGTERM it resumes."""
    old = await serve()
    await sim.wait_for(lambda: len(sim.sent) > 30, timeout=30)
    new = await serve("--wait", "60")
    await new.says("Waiting for the holder of the shards")
    assert sim.connects == 1
    assert old.process.returncode is None
    old.process.send_signal(signal.SIGTERM)
    assert await old.ends() == 0
    await sim.wait_for(lambda: sim.resumed == 1, timeout=30)
    await check_all_arrived(sim, new, tmp_path)


async def test_whoever_waits_can_be_stopped(serve: Serve, sim: Simulator) -> None:
    """SIGTERM while it waits for the shards: exit 0, nothing was dialled, and the holder goes on."""
    holder = await serve()
    await sim.wait_for(lambda: sim.sent, timeout=30)
    waiting = await serve("--wait", "600")
    await waiting.says("Waiting for the holder of the shards")
    waiting.process.send_signal(signal.SIGTERM)
    assert await waiting.ends() == 0
    assert "Shut down completely" in waiting.log
    assert sim.connects == 1
    assert holder.process.returncode is None


async def test_a_holder_that_does_not_leave_in_time_is_named_with_the_time_waited(serve: Serve, sim: Simulator) -> None:
    """``--wait`` ends with the same refusal as no waiting at all."""
    await serve()
    await sim.wait_for(lambda: sim.sent, timeout=30)
    waiting = await serve("--wait", "0.3")
    assert await waiting.ends() == 78
    assert "waited 0.3 s" in waiting.log
    assert sim.connects == 1
