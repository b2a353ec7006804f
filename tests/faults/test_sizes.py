"""Case 41: messages and answers past all bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest
from aiohttp import web

from discorder.simulator import Simulator
from tests.edge import Answer, Edge, page
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import StartStage
from tests.serving import Serve, Serving

Start = Callable[..., Awaitable[Simulator]]
MIB = 1024 * 1024


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """On the real clock, for processes."""
    async with Simulator(guilds=1, identify_spacing=0.0) as simulator:
        yield simulator


def peak(serving: Serving) -> float:
    """The most memory that a process has used so far, in MiB."""
    (line,) = [
        line
        for line in Path(f"/proc/{serving.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("size", [64 * MIB + 1, 100 * MIB])
async def test_41_a_message_of_more_than_64_mib(
    case: Case, start_simulator: Start, start_stage: StartStage, size: int
) -> None:
    """The connection ends at its header, and the session is resumed."""
    sim = await start_simulator(max_backlog=1024 * MIB)
    stage = start_stage(sim, "gateway.compress=none")
    await stage.ready()
    await say(sim)
    fault = Fault(case, sim, stage)
    await sim.send_payload(b" " * size)
    await say(sim)
    await fault.recovered(2)
    causes = [step.cause or "" for step in stage.tracker.transitions]
    assert any("a message is larger than 67108864 bytes" in cause for cause in causes)
    assert await fault.cost() == FREE


@pytest.mark.system
async def test_41_guilds_of_5_6_mb(case: Case, serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    """The largest that Discord sends; memory for several copies of one is used, and freed."""
    serving = await serve()
    await serving.says("Control plane started")
    large = b'{"id":"1","name":"%b"}' % (b"\xc3\xa9" * 2_800_000)
    for _ in range(5):
        await sim.dispatch_raw("GUILD_CREATE", large)
    await sim.drop()
    await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
    await say(sim, 1)
    last = f"\t{sim.sent[-1][1]}\t".encode()
    async with asyncio.timeout(60):
        while last not in (tmp_path / "events.tsv").read_bytes()[-1_000:]:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
    used = peak(serving)
    assert used <= 160.0
    case.note(identifies=sim.identifies - 1, note=f"{used:.0f} MiB at the most with guilds of 5.6 MB")


def bomb(encoding: str, bits: int) -> Answer:
    """256 MiB of zeros that arrive as some 250 KB."""

    @cache
    def packed() -> bytes:
        pack = zlib.compressobj(wbits=bits)
        return b"".join([*(pack.compress(bytes(MIB)) for _ in range(256)), pack.flush()])

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=packed(), content_type="application/json", headers={"Content-Encoding": encoding})

    return answer


async def endless(request: web.Request) -> web.StreamResponse:
    """A body that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(MIB))


PAST_ALL_BOUNDS: dict[str, Answer] = {
    "a gzip bomb": bomb("gzip", 31),
    "a deflate bomb": bomb("deflate", 15),
    "no end": endless,
    "32 MiB of text": page("x" * 32 * MIB),
}


@pytest.mark.system
@pytest.mark.parametrize("answer", PAST_ALL_BOUNDS.values(), ids=PAST_ALL_BOUNDS.keys())
async def test_41_a_look_up_answered_past_all_bounds(
    case: Case, serve: Serve, sim: Simulator, edge: Edge, answer: Answer
) -> None:
    """16 MiB of it are read; then it is asked again."""
    edge.instead = answer
    serving = await serve("--set", f"gateway.api={edge.api}")
    await serving.says("gateway look-up failed (try 2)")
    edge.instead = None
    await serving.says("Control plane started")
    used = peak(serving)
    assert used <= 160.0
    case.note(identifies=sim.identifies - 1, note=f"{used:.0f} MiB at the most with such an answer")
