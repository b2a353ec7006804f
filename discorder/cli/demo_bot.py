"""Run `discorder demo --bot`: an unmodified bot is killed and started again, and has missed no message."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import typer
from rich.console import Console

from discorder.cli.demo_narrator import START_SECONDS, STEP, Narrator, Outcome, demo_config, progress, unless_over
from discorder.config import Config
from discorder.control_plane import TrackerRef, serve_config, shutdown
from discorder.facade.clients import bot_id_of, make_token, write_token
from discorder.rest import BotClient
from discorder.simulator import Simulator

GUILDS = 3
KILL_AFTER = 0.3  # share of the time
CUT_AFTER = 0.7
AWAY_SECONDS = 2.0
READY_SECONDS = 30.0  # for discord.py to start and to have its guilds
CATCH_UP_SECONDS = 10.0  # for the last messages to reach the bot


class _Message(msgspec.Struct):
    id: str


def run_bot_demo(seconds: float, rate: float, overrides: Sequence[str]) -> Outcome:
    """Run the demo: ``seconds`` with a bot, of which starting it again may take more. ``rate`` in events per second."""
    if importlib.util.find_spec("discord") is None:
        msg = "it runs a bot of discord.py, which is not installed: pip install discord.py"
        raise typer.BadParameter(msg, param_hint="--bot")
    with tempfile.TemporaryDirectory(prefix="discorder-demo-") as folder:
        return asyncio.run(_run(Path(folder), seconds, rate, overrides))


async def _run(folder: Path, seconds: float, rate: float, overrides: Sequence[str]) -> Outcome:
    console = Console()
    with progress(console, "Starting a simulated Discord"):
        sim = Simulator(guilds=GUILDS, keep_documents=True)
        await sim.start()
    try:
        token = make_token(bot_id_of(sim.token) or 0)
        config, ref = _config(folder, sim, token, overrides), TrackerRef()
        plane = asyncio.create_task(serve_config(lambda: config, client=BotClient(sim.token), tracker_ref=ref))
        try:
            with progress(console, "Starting the control plane, with a façade for bots"):
                tracker = await unless_over(plane, ref.ready(timeout=START_SECONDS))
            async with _Bot(f"{tracker.facade.url}", token) as bot:
                story = _Story(sim, Narrator(tracker, console), bot)
                story.narrator.say_transitions()
                with progress(console, "Starting a bot of discord.py in a process of its own"):
                    await unless_over(plane, bot.ready())
                await sim.set_rate(rate)
                await unless_over(plane, story.run(seconds))
            await shutdown(tracker)
            return story.outcome()
        finally:
            plane.cancel()
            await asyncio.gather(plane, return_exceptions=True)
    finally:
        await sim.stop()


def _config(folder: Path, sim: Simulator, token: str, overrides: Sequence[str]) -> Config:
    path = folder / "bot.token"
    write_token(path, token)
    own = (
        *("publishers.zmq.bind=tcp://127.0.0.1:0", "facade.bind=127.0.0.1:0", f"facade.journal={folder / 'journal'}"),
        *(f"facade.clients.bot.token_file={path}", "facade.clients.bot.catch_up_from=heartbeat", "facade.heartbeat=1"),
    )
    return demo_config(sim, [*own, *overrides])


class _Bot:
    """A bot of discord.py in its own process, which prints a line per message."""

    def __init__(self, url: str, token: str) -> None:
        self.received: list[str] = []  # ids of messages
        self._url = url
        self._token = token
        self._is_ready = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> _Bot:
        self._is_ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder.cli.demo_discordpy", self._url),
            env={**os.environ, "FACADE_TOKEN": self._token},
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """Send SIGKILL, which no program can catch. Idempotent."""
        if self._process is None or self._reading is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def ready(self) -> None:
        """Wait until it has its guilds. Raises TimeoutError."""
        async with asyncio.timeout(READY_SECONDS):
            await self._is_ready.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101  # asked for with PIPE
        async for line in process.stdout:
            kind, _, value = line.decode().strip().partition(" ")
            if kind == "ready":
                self._is_ready.set()
            elif kind == "message":
                self.received.append(value)


class _Story:
    """Plays the acts."""

    def __init__(self, sim: Simulator, narrator: Narrator, bot: _Bot) -> None:
        self.narrator = narrator
        self._sim = sim
        self._bot = bot

    async def run(self, seconds: float) -> None:
        """Kill the bot, start it again, cut the connection to Discord; end when ``seconds`` have passed."""
        narrator, bot = self.narrator, self._bot
        narrator.say(f"The bot is ready, with {GUILDS} guilds. It believes that it is connected to Discord.")
        await narrator.watch(seconds * KILL_AFTER)
        await self._until(lambda: bool(bot.received))
        narrator.say(f"{len(bot.received)} messages reached it. Now it is killed (kill -9), as by a crash.")
        await bot.kill()
        before, got = len(self._sent()), len(bot.received)
        await narrator.watch(AWAY_SECONDS)
        narrator.say(f"{len(self._sent()) - before} messages are written while it is gone. It is started again.")
        await bot.__aenter__()
        await bot.ready()
        await self._until(lambda: len(set(bot.received)) >= len(self._sent()) - 1)
        twice = len(bot.received) - len(set(bot.received))
        missed = len(bot.received) - got - twice
        narrator.say(
            f"It has its guilds, and the {missed} messages since it was killed: also those that were written while it started."
        )
        if twice:
            narrator.say(
                f"{twice} came a second time, those since its last heartbeat: the demo sets catch_up_from to heartbeat."
            )
        await narrator.watch(seconds * (CUT_AFTER - KILL_AFTER))
        narrator.say("Now the connection to Discord is cut.")
        back = await narrator.recovered(self._sim.drop)
        if back is not None:
            narrator.say(f"Back after {back:.1f} s by RESUME; the bot has noticed nothing.")
        await narrator.watch(seconds * (1 - CUT_AFTER))
        narrator.say("Enough seen. The simulated Discord falls silent, and bot and control plane stop.")
        await self._sim.set_rate(0.0)
        await self._until(lambda: set(bot.received) >= set(self._sent()))

    def outcome(self) -> Outcome:
        """Return the counts of different messages."""
        sent, received = set(self._sent()), set(self._bot.received)
        lost = len(sent - received)
        if not lost:
            self.narrator.say(f"No message was lost. IDENTIFYs spent at Discord: {self._sim.identifies}.")
        return Outcome(len(sent), len(received), lost)

    def _sent(self) -> list[str]:
        documents = (one.data for one in self._sim.sent_documents if one.type == "MESSAGE_CREATE")
        return [msgspec.json.decode(data, type=_Message).id for data in documents]

    async def _until(self, happened: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while not happened():
                    await self.narrator.watch(STEP)
