"""The bots in examples/, run as their readers would run them: each in its own runtime, against a bus that loses events."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from discorder.clock import SystemClock
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.simulator import Simulator
from discorder.wire import Event

if TYPE_CHECKING:
    from tests.harness import StartStage

pytestmark = pytest.mark.system
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SECONDS = 60.0
RECORDS = 2  # topics of `discorder.subscribe` besides its types: gaps and positions
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def needs(present: bool, what: str) -> None:
    """Skip where a runtime is not installed; in CI, which installs it, that is a failure."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not here, and .ci/run should have installed it")
    pytest.skip(f"{what} is not installed")


class BusApi:
    """Notes which commands came through the bus."""

    feed = None

    def __init__(self) -> None:
        self.commands: list[tuple[str, Any]] = []

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
    ) -> Mapping[str, object]:
        self.commands.append((name, d))
        return {}

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        pytest.fail(f"nobody reports, as {door} did")

    def last_ready(self, shard: int) -> Event | None:
        return None


@pytest.fixture
def desk() -> BusApi:
    return BusApi()


@pytest.fixture
async def bus(desk: BusApi) -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:0")
    made.answer_from(desk)
    await made.open()
    yield made
    await made.close()


class Bot:
    """A process and the lines that it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *command: str, cwd: Path, env: Mapping[str, str] | None = None) -> Bot:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=cwd, env=env))

    async def says(self, *lines: str) -> None:
        """The next lines are these."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in lines:
            async with asyncio.timeout(SECONDS):
                said = (await self._process.stdout.readline()).decode().rstrip("\n")
            if not said:
                pytest.fail(f"it ended: {(await self._process.stderr.read()).decode()}")
            assert said == line

    async def interrupted(self) -> tuple[int | None, str]:
        """Return the exit code after Ctrl-C, and what the bot wrote to standard error."""
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS):
            _, errors = await self._process.communicate()
        return self._process.returncode, errors.decode()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


def event(seq: int, prev: int | None, kind: str = "MESSAGE_CREATE") -> Event:
    return Event(kind, (0, 1), seq, prev, "0123456789abcdef", MOMENT, b'{"content":"hi"}')


async def lose(bus: ZmqPublisher, events: Sequence[Event]) -> None:
    """As if they had been sent and a pipe had been full."""
    for one in events:
        bus._ring.append([one], [one.document], 0.0)  # noqa: SLF001


async def subscribed(bus: ZmqPublisher, topics: int) -> None:
    """Wait until all topics of the bot have reached the bus, which takes in a few at a time."""
    async with asyncio.timeout(SECONDS):
        while bus.subscriptions < topics:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
            await asyncio.sleep(0.01)


async def finds_and_fills_a_gap(bot: Bot, bus: ZmqPublisher) -> None:
    """What every subscriber in another language must do."""
    await subscribed(bus, 1)
    bus.publish_nowait([event(5, 0), event(6, 0, "MESSAGE_CREATE_OF_ANOTHER_KIND")])
    await bot.says("live MESSAGE_CREATE 5")
    await lose(bus, [event(7, 5), event(8, 0, "READY"), event(9, 7)])
    bus.publish_nowait([event(10, 9)])
    await bot.says("gap MESSAGE_CREATE 5 9", *(f"replayed MESSAGE_CREATE {seq}" for seq in (7, 9, 10)))
    bus.publish_nowait([event(12, 10)])
    await bot.says("live MESSAGE_CREATE 12")


async def test_node(bus: ZmqPublisher, desk: BusApi, tmp_path: Path) -> None:
    needs(shutil.which("npm") is not None and shutil.which("node") is not None, "Node.js with npm")
    shutil.copytree(EXAMPLES / "node", tmp_path, dirs_exist_ok=True)
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = await asyncio.to_thread(lambda: subprocess.run(install, cwd=tmp_path, capture_output=True, check=False))
    needs(done.returncode == 0, f"the npm package zeromq ({done.stderr.decode().strip()})")
    bot = await Bot.start("node", "subscriber.js", bus.endpoints[0], bus.replay_endpoint, cwd=tmp_path)
    try:
        await bot.says("presence set")
        assert desk.commands == [("presence", {"status": "idle", "since": None, "afk": False, "activities": []})]
        await finds_and_fills_a_gap(bot, bus)
    finally:
        await bot.stop()


def perl_has_zeromq() -> bool:
    look = ["perl", "-MZMQ::FFI", "-e1"]
    return shutil.which("perl") is not None and subprocess.run(look, capture_output=True, check=False).returncode == 0


async def test_perl(bus: ZmqPublisher, tmp_path: Path) -> None:
    needs(perl_has_zeromq(), "Perl with ZMQ::FFI (Debian: libzmq-ffi-perl)")
    script = str(EXAMPLES / "perl" / "subscriber.pl")
    bot = await Bot.start("perl", script, bus.endpoints[0], bus.replay_endpoint, cwd=tmp_path)
    try:
        await bot.says("listening")
        await finds_and_fills_a_gap(bot, bus)
    finally:
        await bot.stop()


async def test_python(start_stage: StartStage, tmp_path: Path) -> None:
    """A slash command is answered; one that comes while the bot is not there, after its next start."""
    script = EXAMPLES / "python" / "slash_bot.py"
    assert len(script.read_text().splitlines()) <= 42
    async with Simulator(guilds=1) as sim:
        stage = start_stage(sim, "publishers.zmq.bind=tcp://127.0.0.1:0", clock=SystemClock())
        await stage.ready()
        (bus,) = (one for one in stage.tracker.publishers if isinstance(one, ZmqPublisher))
        env = os.environ | {"DISCORD_BOT_TOKEN": sim.token, "DISCORD_API": sim.api_url}
        for number in (1, 2):
            if number == 2:
                await sim.dispatch("INTERACTION_CREATE", interaction(2))
            bot = await Bot.start(sys.executable, str(script), bus.endpoints[0], cwd=tmp_path, env=env)
            try:
                await bot.says("listening")
                if number == 1:
                    await subscribed(bus, 1 + RECORDS)
                    await sim.dispatch("INTERACTION_CREATE", interaction(1))
                await sim.wait_for(partial(was_answered, sim, number), timeout=SECONDS)
                await saved(tmp_path / "slash_bot.cursor")
                assert await bot.interrupted() == (0, "")
            finally:
                await bot.stop()
        assert any(path.endswith("/commands") for path in paths(sim))
        await stage.stop()


def interaction(number: int) -> dict[str, Any]:
    return {"id": str(number), "token": f"token{number}", "type": 2, "data": {"name": "ping"}}


def was_answered(sim: Simulator, number: int) -> bool:
    return f"/interactions/{number}/token{number}/callback" in paths(sim)


def paths(sim: Simulator) -> list[str]:
    return [request.path for request in sim.rest_requests]


async def saved(cursor: Path) -> None:
    async with asyncio.timeout(SECONDS):
        while not cursor.exists():  # noqa: ASYNC110, ASYNC240  # a file is looked at
            await asyncio.sleep(0.05)
