"""Cases 9, 27 and 29, with real processes: one is killed, a second one comes too early, a new one follows an old one."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discorder.simulator import Simulator
from discorder.wire import Op
from tests.endurance.evidence import read_rows
from tests.faults.fault import Cost, Seen, loss, told
from tests.faults.table import Case
from tests.serving import Serve, Serving
from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.system


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """On the real clock, as the processes are; its guild lives."""
    async with Simulator(guilds=1, rate=100) as simulator:
        yield simulator


def written(folder: Path) -> list[Seen]:
    return [(row.session, row.seq, row.type) for row in read_rows(folder / "events.tsv") if row.is_event]


async def keeps_going(sim: Simulator) -> None:
    """Return once half a second's events were sent."""
    count = len(sim.sent)
    await sim.wait_for(lambda: len(sim.sent) > count + 50, timeout=60)


async def account(sim: Simulator, last: Serving, folder: Path) -> Cost:
    """Stop the events and ``last``; return what the file lacks of everything that was sent to all lives."""
    await sim.set_rate(0.0)
    await asyncio.sleep(0.05)
    async with asyncio.timeout(60):
        while (folder / "events.tsv").read_bytes().count(b"\n") < len(sim.sent):  # noqa: ASYNC110 # another process
            await asyncio.sleep(0.05)
    last.process.send_signal(signal.SIGTERM)
    assert await last.ends() == 0, last.log
    assert sim.violations == []
    return loss(told(sim), written(folder))


def note(case: Case, sim: Simulator, cost: Cost) -> None:
    """One session over all processes, and every event of it in the file, once and in order."""
    case.note(identifies=sim.identifies - 1, lost=cost.lost, duplicates=cost.duplicates)
    assert (sim.identifies, cost) == (1, Cost(0, 0, 0))


def resumed_at(sim: Simulator) -> list[int]:
    return [frame.d["seq"] for frame in sim.received if frame.op == Op.RESUME]


# ---------------------------------------------------------------- 9


async def test_09_kill_9_restart_within_10_s(case: Case, serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    """Three times over: RESUME, no other IDENTIFY, no missing seq in the required file. `make kills` does it at any moment."""
    serving, slowest = await serve(), 0.0
    await serving.says("Control plane started")
    for life in range(3):
        await keeps_going(sim)
        serving.process.kill()
        await serving.ends()
        serving = await serve()
        watch = Stopwatch(serving.process.pid)
        await sim.wait_for(lambda life=life: sim.resumed == life + 1, timeout=60)  # type: ignore[misc]  # a default binds it
        slowest = max(slowest, watch.seconds)
    assert slowest < 10.0
    await keeps_going(sim)
    cost = await account(sim, serving, tmp_path)
    case.note(recovery=slowest, identifies=sim.identifies - 1, lost=cost.lost, duplicates=cost.duplicates)
    assert (sim.identifies, cost.lost) == (1, 0)


# ---------------------------------------------------------------- 27


async def test_27_a_second_control_plane_is_refused_before_it_dials(case: Case, serve: Serve, sim: Simulator) -> None:
    """Exit 73, and one line that names the process, the age of its lock, and the remedies."""
    first = await serve()
    await sim.wait_for(lambda: sim.sent, timeout=60)
    second = await serve()
    assert await second.ends() == 73
    assert sim.connects == 1
    line = second.log.splitlines()[-1]
    assert f"held by process {first.process.pid} since " in line
    assert re.search(r"\(\d+ s\)", line)
    assert "--take-over" in line
    assert first.process.returncode is None
    case.note(identifies=sim.identifies - 1, note="exit 73")


async def test_27_take_over_makes_the_holder_hand_over_and_resumes(
    case: Case, serve: Serve, sim: Simulator, tmp_path: Path
) -> None:
    """The holder gets SIGTERM and ends with 0; its session goes on in the other process."""
    first = await serve()
    await sim.wait_for(lambda: len(sim.sent) > 30, timeout=60)
    began = time.monotonic()
    second = await serve("--take-over")
    assert await first.ends() == 0
    assert "Shut down completely" in first.log
    await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
    case.note(recovery=time.monotonic() - began)
    assert f"Asked the holder of the shards to hand over pid={first.process.pid}" in second.log
    await keeps_going(sim)
    note(case, sim, await account(sim, second, tmp_path))


# ---------------------------------------------------------------- 29


async def test_29_a_rolling_upgrade(case: Case, serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    """The new one waits and sends no signal; when the old one gets SIGTERM it resumes, within two seconds of its close."""
    old = await serve()
    await sim.wait_for(lambda: len(sim.sent) > 30, timeout=60)
    new = await serve("--wait", "60")
    await new.says("Waiting for the holder of the shards")
    assert sim.connects == 1
    assert old.process.returncode is None
    old.process.send_signal(signal.SIGTERM)
    await sim.wait_for(lambda: sim.closes, timeout=60)
    watch = Stopwatch(new.process.pid)
    await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
    took = watch.seconds
    case.note(recovery=took)
    assert took <= 2.0
    assert await old.ends() == 0
    await keeps_going(sim)
    note(case, sim, await account(sim, new, tmp_path))


# ---------------------------------------------------------------- 53


async def test_53_a_process_that_never_lives_for_a_second(
    case: Case, serve: Serve, sim: Simulator, tmp_path: Path
) -> None:
    """It is killed right after RESUMED, again and again: each life resumes where the one before had come to, not where the first
    one began. A replay that only grows would outgrow what Discord keeps.
    """
    serving = await serve()
    await serving.says("Control plane started")
    await keeps_going(sim)
    for life in range(6):
        serving.process.kill()
        await serving.ends()
        serving = await serve()
        await sim.wait_for(lambda life=life: sim.resumed == life + 1, timeout=60)  # type: ignore[misc]  # a default binds it
        watch = Stopwatch(serving.process.pid)
        while watch.seconds < 0.2:  # noqa: ASYNC110  # what another process had time for
            await asyncio.sleep(0.02)
    begun = resumed_at(sim)
    assert begun == sorted(set(begun)), "no life resumes where an earlier one did"
    cost = await account(sim, serving, tmp_path)
    case.note(identifies=sim.identifies - 1, lost=cost.lost, duplicates=cost.duplicates)
    assert (sim.identifies, cost.lost) == (1, 0)
