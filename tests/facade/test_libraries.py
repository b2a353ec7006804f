"""Unmodified bots behind a control plane, with the simulator as Discord: nothing is lost, and no bot identifies at Discord."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from discorder.simulator import Simulator
from tests.facade.behind import Behind

pytestmark = pytest.mark.heavy
Start = Callable[..., Awaitable[Simulator]]
BeginBehind = Callable[..., Awaitable[Behind]]


@pytest.fixture
async def behind(start_simulator: Start, tmp_path: Path) -> AsyncIterator[BeginBehind]:
    """Start a simulator and a control plane with a façade."""
    begun: list[Behind] = []

    async def begin(**options: int) -> Behind:
        sim = await start_simulator(**{"rate": 60, "keep_documents": True, **options})
        begun.append(Behind(sim, tmp_path, ["one", "two"]))
        await begun[-1].start()
        return begun[-1]

    yield begin
    for one in begun:
        await one.close()


def sent_messages(sim: Simulator) -> list[str]:
    """Return the ids of the messages that Discord has sent, in their order."""
    return [msgspec.json.decode(one.data)["id"] for one in sim.sent_documents if one.type == "MESSAGE_CREATE"]


async def everything(behind: Behind, received: Callable[[], list[str]]) -> None:
    """Stop the events; assert that each message from the first received one on came once, in order."""
    sim, bot = behind.sim, behind.bots[-1]
    await sim.set_rate(0)
    last = sent_messages(sim)[-1]
    await bot.until(lambda: last in received())
    expected, got = sent_messages(sim), received()
    assert got == expected[expected.index(got[0]) :]
    assert len(got) > 20


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_a_bot_starts_and_gets_everything(behind: BeginBehind, library: str) -> None:
    """READY, all guilds, and each event from its IDENTIFY on; Discord sees one IDENTIFY, that of the control plane."""
    one = await behind(guilds=5)
    bot = await one.bot(library, "one")
    await bot.ready(guilds=5)
    await bot.until(lambda: len(bot.messages()) > 30)
    await everything(one, bot.messages)
    assert one.sim.identifies == 1
    assert one.sim.violations == []
    facade = one.tracker.facade
    assert facade.url == one.url
    assert [(session.client, session.shard, session.lag) for session in facade.sessions] == [("one", 0, 0)]
    assert facade.sessions[0].library


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_a_bot_that_is_killed_loses_nothing(behind: BeginBehind, library: str) -> None:
    """kill -9, a pause, another process: what it missed comes after the guilds. Nothing was in its socket."""
    one = await behind()
    first = await one.bot(library, "one")
    await first.ready()
    await first.until(lambda: len(first.messages()) > 20)
    await one.sim.set_rate(0)
    await first.until(lambda: first.messages()[-1] == sent_messages(one.sim)[-1])
    await first.kill()
    await one.sim.set_rate(60)
    before = len(one.sim.sent)
    await one.sim.wait_for(lambda: len(one.sim.sent) > before + 100, timeout=60)
    second = await one.bot(library, "one")
    await second.until(lambda: len(second.messages()) > 40)
    await everything(one, lambda: first.messages() + second.messages())
    assert one.sim.identifies == 1


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_the_control_plane_restarts_under_a_bot(behind: BeginBehind, library: str) -> None:
    """Op 7, a new process, RESUME at Discord and at the façade: nothing is missing, and nobody identifies."""
    one = await behind()
    bot = await one.bot(library, "one")
    await bot.ready()
    await bot.until(lambda: len(bot.messages()) > 20)
    await one.stop()
    await one.start()
    await bot.until(lambda: bot.count("RESUMED") == 1)
    await everything(one, bot.messages)
    assert (one.sim.identifies, one.sim.resumed, bot.count("READY")) == (1, 1, 1)


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_the_control_plane_is_killed_under_a_bot(start_simulator: Start, tmp_path: Path, library: str) -> None:
    """kill -9, while the service manager holds the port: the bot waits there, resumes, and has every message once."""
    sim = await start_simulator(rate=60, keep_documents=True)
    one = Behind(sim, tmp_path, ["one"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            plane = await one.start_process(listener)
            bot = await one.bot(library, "one")
            await bot.ready()
            await bot.until(lambda: len(bot.messages()) > 20)
            plane.kill()
            await plane.wait()
            await one.start_process(listener)
            await bot.until(lambda: bot.count("RESUMED") == 1)
            before = len(bot.messages())
            await bot.until(lambda: len(bot.messages()) > before + 20)
            await everything(one, bot.messages)
            assert (sim.identifies, bot.count("READY")) == (1, 1)
    finally:
        await one.close()


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_a_lost_session_is_told(behind: BeginBehind, library: str) -> None:
    """Discord ends the session: the bot gets op 9 and identifies at the façade; what the new session has brought comes too."""
    one = await behind()
    bot = await one.bot(library, "one")
    await bot.ready()
    await one.sim.invalidate()
    await bot.until(lambda: bot.count("READY") == 2)
    await bot.until(lambda: len(bot.messages()) > 100)
    await one.sim.set_rate(0)
    (session,) = one.sim.sessions
    expected = [
        msgspec.json.decode(sent.data)["id"]
        for sent in one.sim.sent_documents
        if sent.type == "MESSAGE_CREATE" and sent.session_id == session
    ]
    await bot.until(lambda: expected[-1] in bot.messages())
    assert bot.messages()[-len(expected) :] == expected
    assert one.sim.identifies == 2


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_a_dropped_connection_to_discord_is_a_pause(behind: BeginBehind, library: str) -> None:
    """The control plane resumes; the bot notices nothing."""
    one = await behind()
    bot = await one.bot(library, "one")
    await bot.ready()
    await one.sim.drop()
    await one.sim.wait_for(lambda: one.sim.resumed == 1, timeout=60)
    await bot.until(lambda: len(bot.messages()) > 60)
    await everything(one, bot.messages)
    assert (bot.count("READY"), bot.count("RESUMED")) == (1, 0)


@pytest.mark.parametrize("library", ["discordpy", "hikari"])
async def test_six_shards_start_at_once(behind: BeginBehind, library: str) -> None:
    """A library starts all its shards without Discord's pauses."""
    one = await behind(guilds=12, shards=6, max_concurrency=6)
    bot = await one.bot(library, "one", "sharded")
    await bot.until(lambda: bot.count("READY") == 6 and bot.count("GUILD_CREATE") == 12)
    assert one.sim.identifies == 6


async def test_two_bots_of_two_libraries(behind: BeginBehind) -> None:
    """Each gets everything, and the end of one is nothing to the other."""
    one = await behind()
    first, second = await one.bot("discordpy", "one"), await one.bot("hikari", "two")
    await first.ready()
    await second.ready()
    await first.kill()
    await second.until(lambda: len(second.messages()) > 60)
    await everything(one, second.messages)
    assert one.sim.identifies == 1


async def test_a_wrong_shard_count_ends_a_bot_with_a_reason(behind: BeginBehind) -> None:
    """discord.py without shards, at a control plane with two: 4010."""
    one = await behind(guilds=4, shards=2, max_concurrency=2)
    bot = await one.bot("discordpy", "one")
    with pytest.raises(AssertionError, match="4010"):
        await bot.ready()
