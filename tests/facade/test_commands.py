"""The commands of the bots on their way to Discord, and the answers on their way back."""

from __future__ import annotations

import asyncio
from typing import Any

from discorder.facade.commands import MOST_WAITING
from tests.facade.conftest import Stage
from tests.facade.memory_feed import guild


async def test_presence_is_normalised_and_sent_once(facade: Stage) -> None:
    """What libraries send and Discord would close the connection for is put right; the same presence is not sent again."""
    one, two = await facade.bot("one"), await facade.bot("two")
    await one.identify(guilds=2, presence={"status": "", "activities": None, "since": 0, "afk": False})
    await facade.commands.until(1)
    shown: dict[str, Any] = {"status": "online", "activities": [], "since": None, "afk": False}
    assert facade.commands.sent == [(3, 0, shown)]
    await two.identify(guilds=2, presence=shown)
    await one.send(3, {"status": "idle", "activities": [], "since": None, "afk": True})
    assert (await facade.commands.until(2))[1] == (
        3,
        0,
        {"status": "idle", "activities": [], "since": None, "afk": True},
    )


async def test_a_presence_that_waits_is_replaced(facade: Stage) -> None:
    """Of several presences only the last is sent."""
    facade.commands.may_pass.clear()
    bot = await facade.bot()
    await bot.identify(guilds=2)
    for status in ("idle", "dnd", "online"):
        await bot.send(3, {"status": status, "activities": []})
    await bot.send(1, None)
    await bot.frame()
    facade.commands.may_pass.set()
    await facade.commands.until(1)
    await bot.send(4, {"guild_id": "10", "channel_id": None})
    assert [d.get("status") for _, _, d in await facade.commands.until(2)] == ["online", None]


async def test_chunks_go_to_the_session_that_asked(facade: Stage) -> None:
    """Two bots ask with the same nonce; each gets its own answer, with its nonce, short, long or none."""
    one, two = await facade.bot("one"), await facade.bot("two")
    for bot in (one, two):
        await bot.identify(guilds=2)
    for number, nonce in enumerate(("same", "x" * 32, None)):
        asked: dict[str, Any] = {"guild_id": "10", "query": "", "limit": 0}
        await one.send(8, asked if nonce is None else asked | {"nonce": nonce})
        await facade.commands.until(2 * number + 1)
        await two.send(8, asked if nonce is None else asked | {"nonce": nonce})
        sent = await facade.commands.until(2 * number + 2)
        marks = [d["nonce"] for _, _, d in sent[-2:]]
        assert marks[0] != marks[1]
        assert all(len(mark) <= 32 for mark in marks)
        for mark, name in zip(reversed(marks), ("two", "one"), strict=True):
            facade.feed.happen("GUILD_MEMBERS_CHUNK", {"members": [], "for": name, "nonce": mark, "chunk_index": 0})
        for bot, name in ((one, "one"), (two, "two")):
            chunk = (await bot.event("GUILD_MEMBERS_CHUNK"))["d"]
            expected = {"members": [], "for": name, "chunk_index": 0}
            assert chunk == (expected if nonce is None else expected | {"nonce": nonce})


async def test_answers_of_others_and_rate_limits(facade: Stage) -> None:
    """Chunks that no bot of the façade asked for do not come; RATE_LIMITED goes to the session that it is about."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.send(8, {"guild_id": ["10"], "query": "", "limit": 0, "user_ids": ["1"], "nonce": "n"})
    ((_, _, d),) = await facade.commands.until(1)
    assert d["guild_id"] == "10"
    assert "query" not in d
    facade.feed.happen("GUILD_MEMBERS_CHUNK", {"members": [], "nonce": "of the bus"})
    facade.feed.happen("GUILD_MEMBERS_CHUNK", {"members": []})
    facade.feed.happen("RATE_LIMITED", {"opcode": 8, "retry_after": 1, "meta": {"nonce": "0" * 8 + "|n"}})
    facade.feed.happen("RATE_LIMITED", {"opcode": 8, "retry_after": 2, "meta": {"nonce": d["nonce"]}})
    limited = (await bot.event("RATE_LIMITED"))["d"]
    assert limited == {"opcode": 8, "retry_after": 2, "meta": {"nonce": "n"}}


async def test_voice_is_left_at_identify_not_at_resume(facade: Stage) -> None:
    """Discord would not answer a join to the channel in which it still sees the bot."""
    facade.feed.happen(
        "GUILD_CREATE", guild(10, voice_states=[{"user_id": "42", "channel_id": "7", "session_id": "s"}])
    )
    bot = await facade.bot()
    await bot.identify(guilds=2)
    left = {"guild_id": "10", "channel_id": None, "self_mute": False, "self_deaf": False}
    assert await facade.commands.until(1) == [(4, 0, left)]
    await bot.send(4, {"guild_id": "10", "channel_id": "7", "self_mute": False, "self_deaf": False})
    await facade.commands.until(2)
    await bot.dial()
    await bot.resume()
    await bot.event("RESUMED")
    other = await facade.bot("two")
    await other.identify(guilds=2)
    await bot.send(31, {"guild_ids": ["10"]})
    assert [op for op, _, _ in await facade.commands.until(3)] == [4, 4, 31]


async def test_commands_sent_just_before_the_end_are_sent(facade: Stage) -> None:
    """A bot that leaves a voice channel and closes its socket at once has left it."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.send(4, {"guild_id": "10", "channel_id": None})
    await bot.close()
    assert (await facade.commands.until(1))[0][0] == 4


async def test_too_many_commands_wait_in_the_socket(facade: Stage) -> None:
    """Beyond a thousand that wait, the façade stops reading; all of them reach Discord in order."""
    facade.commands.may_pass.clear()
    bot = await facade.bot()
    await bot.identify(guilds=2)
    for number in range(MOST_WAITING + 50):
        await bot.send(43, {"guild_id": "10", "number": number})
    await asyncio.sleep(0.05)
    facade.commands.may_pass.set()
    sent = await facade.commands.until(MOST_WAITING + 50)
    assert [d["number"] for _, _, d in sent] == list(range(MOST_WAITING + 50))
