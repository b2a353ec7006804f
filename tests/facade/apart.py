"""A control plane and a façade as two processes, the simulator as Discord, and raw bots."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from discorder.facade.clients import make_token
from discorder.simulator import Simulator
from discorder.wire import Op
from tests.facade.behind import BOT_ID
from tests.facade.conftest import Bot
from tests.facade.memory_feed import ALL_INTENTS
from tests.ports import free_port
from tests.serving import Serving

SECONDS = 60.0
STEPS = ("READY", "GUILD_CREATE", "RESUMED")  # what a session begins with, and not every bot gets


class Apart:
    """The processes share one configuration. ``keeps_journal``: whether the control plane is one that can feed a façade."""

    def __init__(self, sim: Simulator, folder: Path, http: aiohttp.ClientSession, environment: dict[str, str]) -> None:
        self.sim = sim
        self.http = http
        self.folder = folder
        self.token = make_token(BOT_ID)
        (folder / "one.token").write_text(self.token)
        (folder / "one.token").chmod(0o600)
        self.url = f"http://127.0.0.1:{free_port()}"
        self._sockets = tempfile.mkdtemp(prefix="apart")  # the path of a socket has at most 107 bytes
        self.bus = f"ipc://{self._sockets}/bus"
        self.config = folder / "discorder.toml"
        self.config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\nintents = 53608447\n[session]\nstore = "{folder / "store.sqlite3"}"\n'
            f'[http]\nbind = ""\n[publishers.log]\nevents = {{ include = [] }}\n[publishers.zmq]\nbind = "{self.bus}"\n'
            f'[facade]\nheartbeat = 60.0\n[facade.clients.one]\ntoken_file = "{folder / "one.token"}"\n'
        )
        self._environment = environment | {"DISCORD_BOT_TOKEN": sim.token}
        self._started: list[Serving] = []
        self._listeners: list[Listener] = []

    async def plane(self, *arguments: str) -> Serving:
        """Start the control plane."""
        return await self._start("serve", "--config", str(self.config), *arguments)

    async def facade(self, *arguments: str) -> Serving:
        """Start the façade."""
        bind = self.url.removeprefix("http://")
        return await self._start("facade", "--config", str(self.config), "--bus", self.bus, "--bind", bind, *arguments)

    async def facade_of_manager(self, listener: socket.socket) -> Serving:
        """Start the façade as a service manager does that holds its port."""
        held = f'exec 3<&{listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@"'
        arguments = ("facade", "--config", str(self.config), "--bus", self.bus, "--bind", "systemd")
        return await self._start(*arguments, before=("bash", "-c", held), pass_fds=(listener.fileno(),))

    async def _start(self, *arguments: str, before: tuple[str, ...] = (), pass_fds: tuple[int, ...] = ()) -> Serving:
        process = await asyncio.create_subprocess_exec(
            *(*before, sys.executable, "-m", "discorder", *arguments),
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self.folder,
            pass_fds=pass_fds,
        )
        self._started.append(Serving(process))
        return self._started[-1]

    async def bot(self, shard: tuple[int, int] = (0, 1)) -> Listener:
        """Connect a bot that identifies and then collects its events."""
        bot = Listener(Bot(self, self.token), shard)
        self._listeners.append(bot)
        await bot.bot.dial()
        bot.listen()
        await bot.identify()
        return bot

    @property
    def journal(self) -> Path:
        """The directory of the control plane's journal."""
        (found,) = self.folder.glob("*.journal")
        return found

    @property
    def copy(self) -> Path:
        """The directory of the façade's."""
        return self.journal.with_name(f"{self.journal.name}.facade")

    def sent(self) -> list[tuple[str, Any]]:
        """Return type and data of what Discord has sent, without the beginnings of sessions."""
        return [(one.type, json.loads(one.data)) for one in self.sim.sent_documents if one.type not in STEPS]

    def joined(self) -> list[str]:
        """Return the voice channels that Discord was asked to join, in that order."""
        frames = [frame for frame in self.sim.received if frame.op == Op.VOICE_STATE_UPDATE]
        return [frame.d["channel_id"] for frame in frames]

    async def close(self) -> None:
        """Kill what runs."""
        for listener in self._listeners:
            await listener.close()
        for one in self._started:
            if one.process.returncode is None:
                one.process.kill()
            await one.ends()
        shutil.rmtree(self._sockets, ignore_errors=True)


class Listener:
    """Collects what a bot gets until its socket is closed."""

    def __init__(self, bot: Bot, shard: tuple[int, int]) -> None:
        self.bot = bot
        self._shard = shard
        self.frames: list[dict[str, Any]] = []
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Collect from now on."""
        self._task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        try:
            while (message := await self._next()) is not None:
                frame = json.loads(message)
                if frame["s"] is not None:
                    self.bot.seq = frame["s"]
                self.frames.append(frame)
                self._grown.set()
        finally:
            self._grown.set()

    async def _next(self) -> str | None:
        assert self.bot.websocket is not None
        message = await self.bot.websocket.receive()
        return message.data if message.type is aiohttp.WSMsgType.TEXT else None

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open."""
        return self._task is not None and not self._task.done()

    def events(self) -> list[tuple[str, Any]]:
        """Return type and data of what came, without the beginnings of sessions."""
        return [(one["t"], one["d"]) for one in self.frames if one["op"] == 0 and one["t"] not in STEPS]

    async def until(self, happened: Any) -> None:
        """Wait until ``happened()``, and while the socket is open."""
        async with asyncio.timeout(SECONDS):
            while not happened():
                assert self.is_connected, self.frames[-3:]
                self._grown.clear()
                await self._grown.wait()

    async def ended(self) -> None:
        """Wait until the socket is closed."""
        assert self._task is not None
        async with asyncio.timeout(SECONDS):
            await self._task

    async def gets(self, op: int) -> None:
        """Wait for a frame with this opcode."""
        await self.until(lambda: any(frame["op"] == op for frame in self.frames))

    async def identify(self) -> None:
        """Begin a session, as soon as the façade can."""
        self.frames.clear()
        await self.ask_for_session()
        await self.until(lambda: any(frame["t"] == "READY" for frame in self.frames))
        (self.bot.session_id,) = [frame["d"]["session_id"] for frame in self.frames if frame["t"] == "READY"]

    async def ask_for_session(self) -> None:
        """Send IDENTIFY."""
        d = {"token": self.bot.token, "intents": ALL_INTENTS, "properties": {"browser": "raw"}, "shard": self._shard}
        await self.bot.send(2, d)

    async def resume(self) -> None:
        """Connect again as soon as somebody listens, and resume."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await self.bot.dial()
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.05)
                else:
                    break
        await self.bot.resume()
        self.listen()

    async def close(self) -> None:
        """Close the socket."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.bot.close()


def without_variables() -> dict[str, str]:
    """Return the environment without a token."""
    return {name: value for name, value in os.environ.items() if name != "DISCORD_BOT_TOKEN"}
