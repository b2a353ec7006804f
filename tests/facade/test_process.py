"""`discorder facade`: the façade as a process of its own, beside a control plane, with the simulator as Discord."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from discorder.config import load_config
from discorder.control_plane import serve_config
from discorder.rest import BotClient
from discorder.simulator import Simulator
from discorder.tracking.tracker_ref import TrackerRef
from tests.facade.apart import Apart, Listener, without_variables
from tests.facade.behind import BOTS, BotProcess

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


async def test_the_control_plane_is_killed_and_the_bot_notices_nothing(apart: Apart) -> None:
    """kill -9 at 150 events per second, and another process: the socket stays open, and Discord sees one IDENTIFY."""
    plane, facade = await apart.plane(), await apart.facade()
    await facade.says("Façade for bots")
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


def messages(*bots: Listener) -> list[str]:
    """Return the ids of the messages that the bots got, in their order."""
    return [d["id"] for bot in bots for kind, d in bot.events() if kind == "MESSAGE_CREATE"]


async def test_bots_follow_the_facade_out_of_the_control_plane_and_back(apart: Apart) -> None:
    """One resumes, then it is started anew and catches up: each message comes once, and Discord sees one IDENTIFY."""
    inside = ("--set", f"facade.bind={apart.url.removeprefix('http://')}")
    plane = await apart.plane(*inside)
    await plane.says("Façade for bots")
    bot = await apart.bot()
    await more_events(bot)
    plane.process.terminate()
    await plane.ends()
    await bot.ended()
    plane, facade = await apart.plane(), await apart.facade()
    await bot.resume()
    await more_events(bot)
    facade.process.terminate()
    await facade.ends()
    await bot.ended()
    plane.process.terminate()
    await plane.ends()
    plane = await apart.plane(*inside)
    await plane.says("Façade for bots")
    again = await apart.bot()
    await more_events(again)
    await apart.sim.set_rate(0)
    sent = [d["id"] for kind, d in apart.sent() if kind == "MESSAGE_CREATE"]
    await again.until(lambda: messages(again)[-1:] == sent[-1:])
    got = messages(bot, again)
    assert got == sent[sent.index(got[0]) :]
    assert apart.sim.identifies == 1


async def test_the_facade_is_killed_and_the_bot_resumes(apart: Apart) -> None:
    """kill -9, and another process: RESUME, and every event once."""
    await apart.plane()
    facade = await apart.facade()
    await facade.says("Façade for bots")
    bot = await apart.bot()
    await bot.until(lambda: len(bot.events()) > RATE)
    facade.process.kill()
    await bot.ended()
    await facade.ends()
    before = len(apart.sim.sent_documents)
    await apart.sim.wait_for(lambda: len(apart.sim.sent_documents) > before + RATE, timeout=60)
    await apart.facade()
    await bot.resume()
    await bot.until(lambda: any(frame["t"] == "RESUMED" for frame in bot.frames))
    await nothing_is_missing(apart, bot)
    assert apart.sim.identifies == 1


async def test_a_stop_of_the_facade_is_told(apart: Apart) -> None:
    """SIGTERM: op 7, exit code 0; the next process resumes the bot."""
    await apart.plane()
    facade = await apart.facade()
    await facade.says("Façade for bots")
    bot = await apart.bot()
    await bot.until(lambda: len(bot.events()) > RATE)
    facade.process.send_signal(signal.SIGTERM)
    await bot.ended()
    assert bot.frames[-1]["op"] == 7
    assert await facade.ends() == 0
    assert "Shut down completely" in facade.log
    await apart.facade()
    await bot.resume()
    await nothing_is_missing(apart, bot)


async def test_the_facade_may_start_before_the_control_plane(apart: Apart) -> None:
    """It says that it waits; a bot that connects meanwhile gets READY once there is one."""
    facade = await apart.facade()
    await facade.says("No control plane feeds the façade")
    getting_ready = asyncio.create_task(apart.bot())
    await apart.plane()
    bot = await getting_ready
    await more_events(bot)
    await nothing_is_missing(apart, bot)
    assert apart.sim.identifies == 1


async def test_a_control_plane_without_a_journal_feeds_no_facade(apart: Apart) -> None:
    """The error names the key."""
    await apart.plane("--set", 'facade.journal=""', "--set", "facade.clients={}")
    facade = await apart.facade()
    assert await facade.ends() == 78
    assert "this control plane keeps no guilds: set facade.journal" in facade.log
    assert apart.bus in facade.log


async def test_the_control_plane_shows_the_bots_of_the_facade(apart: Apart) -> None:
    """A bot that is connected there is in ``tracker.facade`` within seconds; after the end of the façade it is not."""
    ref = TrackerRef()
    client = BotClient(apart.sim.token)
    task = asyncio.create_task(serve_config(lambda: load_config(apart.config), client=client, tracker_ref=ref))
    try:
        await ref.ready(60)
        facade = await apart.facade()
        await facade.says("Façade for bots")
        bot = await apart.bot()
        async with asyncio.timeout(60):
            while not (sessions := ref.value.facade.sessions):  # noqa: ASYNC110  # reports give no sign
                await asyncio.sleep(0.05)
        assert [(one.client, one.shard, one.library, one.url) for one in sessions] == [("one", 0, "raw", apart.url)]
        assert ref.value.facade.url == apart.url
        assert [one.name for one in ref.value.facade.clients] == ["one"]
        await more_events(bot)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_commands_on_their_way_survive_a_restart_of_the_control_plane(apart: Apart) -> None:
    """The next process sends those that the killed one has not sent, in their order."""
    plane, facade = await apart.plane(), await apart.facade()
    await facade.says("Façade for bots")
    bot = await apart.bot()
    await apart.sim.set_rate(0)
    asked = [f"7{number:03}" for number in range(90)]  # Discord takes 120 a minute, and some may be sent twice
    for channel in asked:
        await bot.bot.send(4, {"guild_id": str(apart.sim.guild_ids[0]), "channel_id": channel})
    await apart.sim.wait_for(lambda: len(apart.joined()) > 5, timeout=60)
    plane.process.kill()
    await plane.ends()
    await apart.plane()
    await apart.sim.wait_for(lambda: asked[-1] in apart.joined(), timeout=60)
    assert list(dict.fromkeys(apart.joined())) == asked
    assert apart.sim.violations == []
    assert bot.is_connected


async def test_a_bot_of_discord_py_notices_no_kill_of_the_control_plane(apart: Apart) -> None:
    """Unmodified, with one READY and no RESUME."""
    plane, facade = await apart.plane(), await apart.facade()
    await facade.says("Façade for bots")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", str(BOTS / "discordpy_bot.py"), apart.url),
        env={"FACADE_TOKEN": apart.token, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    bot = BotProcess(process)
    try:
        await bot.ready(guilds=3)
        await bot.until(lambda: len(bot.messages()) > 20)
        plane.process.kill()
        await plane.ends()
        before = len(bot.messages())
        await apart.plane()
        await bot.until(lambda: len(bot.messages()) > before + 20)
        await apart.sim.set_rate(0)
        sent = [d["id"] for kind, d in apart.sent() if kind == "MESSAGE_CREATE"]
        await bot.until(lambda: bot.messages()[-1] == sent[-1])
        assert bot.messages() == sent[sent.index(bot.messages()[0]) :]
        assert (bot.count("READY"), bot.count("RESUMED"), apart.sim.identifies) == (1, 0, 1)
    finally:
        await bot.kill()


async def test_a_new_session_of_discords_is_told(apart: Apart) -> None:
    """Op 9; the next IDENTIFY gets the guilds, and everything since the new session began."""
    await apart.plane()
    facade = await apart.facade()
    await facade.says("Façade for bots")
    bot = await apart.bot()
    await more_events(bot)
    await apart.sim.invalidate()
    await bot.gets(9)
    await bot.identify()
    await more_events(bot)
    await nothing_is_missing(apart, bot)
    assert apart.sim.identifies == 2


def newest_segment(journal: Path) -> bytes:
    """Return the content of the newest file of a journal."""
    return max(journal.glob("segment.*")).read_bytes()


async def test_events_that_the_control_plane_no_longer_holds_are_told(apart: Apart) -> None:
    """The façade hangs while more comes than the journal holds: op 9, and the next session begins with the guilds of now."""
    await apart.sim.set_rate(0)
    await apart.plane("--set", "facade.ring_bytes=1048576")
    facade = await apart.facade()
    await facade.says("is fed by the control plane")
    bot = await apart.bot()
    facade.process.send_signal(signal.SIGSTOP)
    guild = str(apart.sim.guild_ids[0])
    for number in range(200):
        await apart.sim.dispatch(
            "CHANNEL_CREATE", {"id": str(number), "guild_id": guild, "type": 0, "topic": "x" * 60_000}
        )
    async with asyncio.timeout(60):
        while b'"id":"199"' not in newest_segment(apart.journal):  # noqa: ASYNC110  # the files give no sign
            await asyncio.sleep(0.05)
    facade.process.send_signal(signal.SIGCONT)
    await facade.says("does not hold the next events of a shard any more")
    await bot.gets(9)
    await bot.identify()
    await bot.until(lambda: sum(frame["t"] == "GUILD_CREATE" for frame in bot.frames) == 3)
    (known,) = [frame["d"] for frame in bot.frames if frame["t"] == "GUILD_CREATE" and frame["d"]["id"] == guild]
    there = {channel["id"] for channel in known["channels"]}
    await bot.until(lambda: {str(one) for one in range(200)} <= there | {d["id"] for _, d in bot.events()})
    await apart.sim.set_rate(RATE)
    await more_events(bot)
    await nothing_is_missing(apart, bot)
    assert apart.sim.identifies == 1


async def test_a_full_disk_of_the_facade_is_a_pause(apart: Apart) -> None:
    """It reads nothing while it cannot write, says so once, and misses nothing."""
    await apart.plane()
    facade = await apart.facade()
    await facade.says("Façade for bots")
    bot = await apart.bot()
    await more_events(bot)
    full = max(one.stat().st_size for one in apart.copy.glob("segment.*"))
    limit = (full, resource.RLIM_INFINITY)
    resource.prlimit(facade.process.pid, resource.RLIMIT_FSIZE, limit)
    await facade.says("The façade cannot write its journal")
    before = len(apart.sim.sent)
    await apart.sim.wait_for(lambda: len(apart.sim.sent) > before + 2 * RATE, timeout=60)
    resource.prlimit(facade.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await more_events(bot)
    await nothing_is_missing(apart, bot)
    assert facade.log.count("cannot write its journal") == 1


async def test_another_number_of_shards_is_told(apart: Apart) -> None:
    """Op 9 for a shard that is gone, and 4010 with the number for a bot that goes on with the old one."""
    plane, facade = await apart.plane("--set", "gateway.shards=2"), await apart.facade()
    await facade.says("Façade for bots")
    bot = await apart.bot((1, 2))
    plane.process.kill()
    await plane.ends()
    await apart.plane("--set", "gateway.shards=1")
    await bot.gets(9)
    await bot.ask_for_session()
    await bot.ended()
    await facade.says("the control plane has 1 shard, not 2")


async def test_what_another_facade_uses_is_named(apart: Apart) -> None:
    """The port, and the journal: exit code 73."""
    await (await apart.facade()).says("Façade for bots")
    second = await apart.facade()
    assert await second.ends() == 73
    assert "Only one process opens it: `discorder serve` with facade.bind, or `discorder facade`" in second.log
    third = await apart.facade("--bind", "127.0.0.1:0")
    assert await third.ends() == 73
    assert "another process keeps its journal in" in third.log
    inside = await apart.plane("--set", f'facade.bind="{apart.url.removeprefix("http://")}"')
    assert await inside.ends() == 73
    assert "`discorder facade`" in inside.log


async def test_a_port_that_the_service_manager_holds_outlives_a_kill(apart: Apart) -> None:
    """The bot waits at the port, and resumes."""
    await apart.plane()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        apart.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        facade = await apart.facade_of_manager(listener)
        await facade.says("Façade for bots")
        bot = await apart.bot()
        await more_events(bot)
        facade.process.kill()
        await bot.ended()
        await facade.ends()
        await apart.facade_of_manager(listener)
        await bot.resume()
        await nothing_is_missing(apart, bot)
