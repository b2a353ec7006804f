"""A control plane with a façade in front of the simulator, and unmodified bots as processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from discorder.config import load_config
from discorder.control_plane import serve_config
from discorder.facade.clients import make_token
from discorder.rest import BotClient
from discorder.simulator import Simulator
from discorder.tracking.tracker import GatewayTracker
from discorder.tracking.tracker_ref import TrackerRef
from tests.ports import free_port

BOTS = Path(__file__).parent / "bots"
BOT_ID = 1345187989315256333
SECONDS = 60.0  # for a bot to do what is waited for, on a busy machine


class Behind:
    """A control plane that can be stopped and started, on one port."""

    def __init__(self, sim: Simulator, folder: Path, names: list[str]) -> None:
        self.sim = sim
        self.tokens = {name: make_token(BOT_ID) for name in names}
        for name, token in self.tokens.items():
            (folder / f"{name}.token").write_text(token)
            (folder / f"{name}.token").chmod(0o600)
        self.url = f"http://127.0.0.1:{free_port()}"
        clients = "".join(f'[facade.clients.{name}]\ntoken_file = "{folder / name}.token"\n' for name in names)
        self.config = folder / "discorder.toml"
        self.config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\nintents = 53608447\n[session]\nstore = "{folder / "store.sqlite3"}"\n'
            f'[http]\nbind = ""\n[publishers.log]\nevents = {{ include = [] }}\n'
            f'[facade]\nbind = "{self.url.removeprefix("http://")}"\n{clients}'
        )
        self._ref = TrackerRef()
        self._task: asyncio.Task[None] | None = None
        self.bots: list[BotProcess] = []
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        """Start the control plane and wait until its shards are Ready."""
        self._ref = TrackerRef()
        self._task = asyncio.create_task(self.serve())
        await self._ref.ready(SECONDS)

    @property
    def tracker(self) -> GatewayTracker:
        return self._ref.value

    async def serve(self) -> None:
        """Run the control plane to its end."""
        client = BotClient(self.sim.token)
        await serve_config(lambda: load_config(self.config), client=client, tracker_ref=self._ref)

    async def start_process(self, listener: socket.socket) -> asyncio.subprocess.Process:
        """Start the control plane as a process of a service manager that holds the port. It is killed at the end of the test."""
        self.config.write_text(re.sub(r'(\[facade\]\nbind = )"[^"]*"', r'\1"systemd"', self.config.read_text()))
        held = f"exec 3<&{listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; "
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", f'{held} exec "$0" "$@"'),
            *(sys.executable, "-m", "discorder", "serve", "--config", str(self.config)),
            pass_fds=(listener.fileno(),),
            env={**os.environ, "DISCORD_BOT_TOKEN": self.sim.token},
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    async def stop(self) -> None:
        """Stop the control plane gracefully."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def bot(self, library: str, name: str, *arguments: str) -> BotProcess:
        """Start one of the bots of the tests."""
        return await self.run([sys.executable, "-W", "ignore", str(BOTS / f"{library}_bot.py")], name, *arguments)

    async def run(self, command: list[str], name: str, *arguments: str) -> BotProcess:
        """Start a bot; its arguments are the URL and ``arguments``."""
        process = await asyncio.create_subprocess_exec(
            *(*command, self.url, *arguments),
            env={"FACADE_TOKEN": self.tokens[name], "PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.bots.append(BotProcess(process))
        return self.bots[-1]

    async def close(self) -> None:
        for bot in self.bots:
            await bot.kill()
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.stop()


class BotProcess:
    """What a bot has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []
        self.errors = ""
        self.text = ""  # what is not JSON
        self._grown = asyncio.Event()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))
            else:  # text of an example, or a line of hikari's log
                self.text += line.decode()
            self._grown.set()
        self._grown.set()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.errors += line.decode()

    async def until(self, happened: Any) -> None:
        """Wait until ``happened()``."""
        try:
            async with asyncio.timeout(SECONDS):
                while not happened():
                    assert not self._tasks[0].done(), self.errors
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            pytest.fail(
                f"{len(self.lines)} lines, the last: {self.lines[-5:]}; errors: {self.errors}{self.text[-2000:]}"
            )

    async def ready(self, guilds: int = 2) -> None:
        """Wait until the bot has a session and its guilds."""
        await self.until(lambda: self.count("READY") > 0 and self.count("GUILD_CREATE") >= guilds)

    def messages(self) -> list[str]:
        """Return the ids of the messages, in their order."""
        return [line["id"] for line in self.lines if line.get("t") == "MESSAGE_CREATE"]

    def count(self, kind: str) -> int:
        """Return how many dispatches of a type there were."""
        return sum(line.get("t") == kind for line in self.lines)

    async def kill(self) -> None:
        """Kill it, as kill -9 does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._tasks)
