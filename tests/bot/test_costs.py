"""What a reader costs, as CPU time of its whole process (ZeroMQ's threads included). A busy epoll takes all of a core."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event

pytestmark = [pytest.mark.system, pytest.mark.suite]  # seconds of real time per figure

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
START = 4.0  # seconds; several start at once
MEASURED = 2.0  # seconds
LOOKS = 6  # as the start takes long on a loaded machine; a busy epoll is busy in each of them
BOUND = 0.1  # of a core; measured on 2 shared cores: 0.003 without events, 0.02 with 50 a second

MEASURE = f"""
import asyncio, os, sys, threading, time
import discorder
from discorder.cli import main as command

def measure():
    time.sleep({START})
    for _ in range({LOOKS}):
        began = time.process_time()
        time.sleep({MEASURED})
        share = (time.process_time() - began) / {MEASURED}
        if share < {BOUND}:
            break
    print(share, file=sys.stderr, flush=True)
    os._exit(0)

threading.Thread(target=measure, daemon=True).start()
address, cursor = sys.argv[1:]

async def read(**options):
    async with discorder.subscribe(address, **options) as events:
        async for _ in events:
            pass

async def work():
    async with discorder.subscribe(address) as events:
        async for event in events:
            if isinstance(event, discorder.Gap) or event.seq % 4 == 0:
                await asyncio.sleep(0.06)  # others come meanwhile

async def commands():
    async with discorder.Commands(address, timeout=1) as made:
        try:
            await made.presence()
        except discorder.CommandRefused:
            pass
        await asyncio.sleep(60)

"""
READERS = {
    "default": "asyncio.run(read())",
    "types": "asyncio.run(read(types=['A']))",
    "live": "asyncio.run(read(live_only=True))",
    "cursor": "asyncio.run(read(cursor=cursor))",
    "oldest": "asyncio.run(read(start='oldest'))",
    "work": "asyncio.run(work())",
    "commands": "asyncio.run(commands())",
    "tail": "sys.argv[1:] = ['tail', address]; command()",
}


async def cost(address: str, reader: str, cursor: Path) -> float:
    """CPU seconds per second."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MEASURE + READERS[reader], address, str(cursor)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    return float(said.split()[-1])


async def costs(address: str, folder: Path) -> dict[str, float]:
    """CPU seconds per second of each reader; all run at once."""
    found = await asyncio.gather(*(cost(address, reader, folder / reader) for reader in READERS))
    return dict(zip(READERS, found, strict=True))


async def test_each_reader_costs_almost_nothing(tmp_path: Path) -> None:
    """First without a control plane, then with 50 events a second, and with one that was restarted meanwhile."""
    bus = ZmqPublisher("tcp://127.0.0.1:*")
    await bus.open()
    address = bus.endpoints[0]
    await bus.close()
    alone = await costs(address, tmp_path)
    assert max(alone.values()) < BOUND, alone
    seq = 0

    async def publish() -> None:
        nonlocal seq
        while True:
            seq += 1
            bus.publish_nowait([Event("A", (0, 1), seq, seq - 1, "s" * 16, MOMENT, b"{}")])
            await asyncio.sleep(0.02)

    bus = ZmqPublisher(address)
    await bus.open()
    publishing = asyncio.create_task(publish())
    measured = asyncio.create_task(costs(address, tmp_path))
    await asyncio.sleep(START - 1.0)
    publishing.cancel()
    await bus.close()
    bus = ZmqPublisher(address)
    await bus.open()
    publishing = asyncio.create_task(publish())
    with_events = await measured
    assert max(with_events.values()) < BOUND, with_events
    publishing.cancel()
    await bus.close()
