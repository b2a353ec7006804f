"""`discorder facade`: the façade as a process of its own, beside a control plane, with the simulator as Discord."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from discorder.simulator import Simulator
from tests.facade.apart import Apart, Listener, without_variables
from tests.facade.conftest import Bot

pytestmark = pytest.mark.heavy
Start = Callable[..., Awaitable[Simulator]]
RATE = 150  # events per second


@pytest.fixture
async def apart(start_simulator: Start, tmp_path: Path) -> AsyncIterator[Apart]:
    sim = await start_simulator(rate=RATE, keep_documents=True, guilds=3)
    async with aiohttp.ClientSession() as http:
        made = Apart(sim, tmp_path, http, without_variables())
        yield made
        await made.close()


async def nothing_is_missing(apart: Apart, bot: Listener) -> None:
    """Stop the events; assert that the bot has each one from its first on, once and in order."""
    await apart.sim.set_rate(0)
    last = apart.sent()[-1]
    await bot.until(lambda: bot.events()[-1:] == [last])
    got, sent = bot.events(), apart.sent()
    assert got == sent[len(sent) - len(got) :]
    assert len(got) > RATE


async def more_events(bot: Listener) -> None:
    """Wait until the bot has got a second's worth of events more."""
    before = len(bot.events())
    await bot.until(lambda: len(bot.events()) > before + RATE)


async def dialled(apart: Apart) -> Bot:
    """Return a bot that has read HELLO."""
    bot = Bot(apart, apart.token)
    await bot.dial()
    return bot


async def test_the_control_plane_is_killed_and_the_bot_notices_nothing(apart: Apart) -> None:
    """kill -9 at 150 events per second, and another process: the socket stays open, and Discord sees one IDENTIFY."""
    plane, door = await apart.plane(), await apart.door()
    await door.says("Façade for bots")
    bot = await apart.bot()
    for _ in range(2):
        await more_events(bot)
        plane.process.kill()
        await plane.ends()
        plane = await apart.plane()
    await more_events(bot)
    await nothing_is_missing(apart, bot)
    assert bot.is_connected
    assert [frame["op"] for frame in bot.frames if frame["op"]] == []
    assert apart.sim.identifies == 1


async def test_the_facade_is_killed_and_the_bot_resumes(apart: Apart) -> None:
    """kill -9, and another process: RESUME, and every event once."""
    await apart.plane()
    door = await apart.door()
    await door.says("Façade for bots")
    bot = await apart.bot()
    await bot.until(lambda: len(bot.events()) > RATE)
    door.process.kill()
    await bot.ended()
    await door.ends()
    before = len(apart.sim.sent_documents)
    await apart.sim.wait_for(lambda: len(apart.sim.sent_documents) > before + RATE, timeout=60)
    await apart.door()
    await bot.resume()
    await bot.until(lambda: any(frame["t"] == "RESUMED" for frame in bot.frames))
    await nothing_is_missing(apart, bot)
    assert apart.sim.identifies == 1


async def test_a_stop_of_the_facade_is_told(apart: Apart) -> None:
    """SIGTERM: op 7, exit code 0; the next process resumes the bot."""
    await apart.plane()
    door = await apart.door()
    await door.says("Façade for bots")
    bot = await apart.bot()
    await bot.until(lambda: len(bot.events()) > RATE)
    door.process.send_signal(signal.SIGTERM)
    await bot.ended()
    assert bot.frames[-1]["op"] == 7
    assert await door.ends() == 0
    assert "Shut down completely" in door.log
    await apart.door()
    await bot.resume()
    await nothing_is_missing(apart, bot)


async def test_the_facade_may_start_before_the_control_plane(apart: Apart) -> None:
    """It says that it waits; a bot that connects meanwhile gets READY once there is one."""
    door = await apart.door()
    await door.says("No control plane feeds the façade")
    listener = Listener(bot=await dialled(apart))
    await apart.plane()
    await listener.bot.identify()
    listener.listen()
    await listener.until(lambda: len(listener.events()) > RATE)
    await nothing_is_missing(apart, listener)
    await listener.close()
    assert apart.sim.identifies == 1


async def test_a_control_plane_without_a_journal_feeds_no_facade(apart: Apart) -> None:
    """The error names the key."""
    await apart.plane("--set", 'facade.journal=""', "--set", "facade.clients={}")
    door = await apart.door()
    assert await door.ends() == 1
    assert "this control plane keeps no guilds: set facade.journal" in door.log
    assert apart.bus in door.log
