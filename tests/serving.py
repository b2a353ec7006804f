"""`discorder serve` in separate processes that share a store and a required file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from discorder.simulator import Simulator

Serve = Callable[..., Awaitable["Serving"]]


class Serving:
    """A `discorder serve` in a separate process, and its log so far."""

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
        """Wait until ``text`` is in its log."""
        async with asyncio.timeout(60):
            while text not in self.log:
                assert not self._reading.done(), self.log
                self._grown.clear()
                await self._grown.wait()

    async def ends(self) -> int:
        """Wait for its end and return its exit code."""
        async with asyncio.timeout(60):
            code = await self.process.wait()
            await self._reading
        return code


@pytest.fixture
async def serve(sim: Simulator, environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Serve]:
    """Start control planes that share a store and append to one required file. Kill those that still run at the end."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[gateway]\napi = "{sim.api_url}"\n[session]\nstore = "{tmp_path / "sessions.sqlite3"}"\n'
        f'[http]\nbind = ""\n[publishers.audit]\nkind = "delimited_file"\npath = "{tmp_path / "events.tsv"}"\nrequired = true\n'
    )
    started: list[Serving] = []

    async def start(*arguments: str, config: Path = config, variables: dict[str, str] | None = None) -> Serving:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "serve", "--config", str(config), *arguments),
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"DISCORD_BOT_TOKEN": sim.token} | (variables or {}),
            cwd=tmp_path,
        )
        started.append(Serving(process))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
        await one.ends()
