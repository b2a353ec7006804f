"""Workers of a group in processes of their own, for tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from tests.bot.nats_streams import WITHIN
from tests.publishers.nats_server import NatsServer

WORKER = """\
import asyncio, sys, discorder

async def main() -> None:
    async with discorder.subscribe(sys.argv[1], group="workers", start="oldest") as events:
        async for item in events:
            kind = "gap" if isinstance(item, discorder.Gap) else "event"
            seq = item.from_seq if kind == "gap" else item.seq
            print(kind, item.shard[0], item.session, seq, flush=True)
            await asyncio.sleep(float(sys.argv[2]))

asyncio.run(main())
"""


class Worker:
    """A worker in a process of its own, and the lines that it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[list[str]] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, server: NatsServer, work: float) -> Worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER, server.url, str(work)), stdout=asyncio.subprocess.PIPE
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().split())

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    @property
    def shards(self) -> set[str]:
        return {shard for _, shard, *_ in self.lines}


@pytest.fixture
async def workers() -> AsyncIterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for one in started:
        if one.process.returncode is None:
            one.process.send_signal(signal.SIGCONT)
        await one.kill()


async def until(true: Callable[[], object], seconds: float = WITHIN) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
