"""The commands of the bots on their way to Discord, and the answers on their way back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from discorder.facade import member_requests, nonces
from discorder.facade.commands import MOST_WAITING
from discorder.logs import logger
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
        asked: dict[str, Any] = {"guild_id": "10", "query": "a", "limit": 5}
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


ALL_MEMBERS = {"guild_id": "10", "query": "", "limit": 0}


async def test_all_members_of_a_guild_are_asked_for_once(facade: Stage) -> None:
    """Discord answers once in 30 s. A second bot, and one that was started again, get the chunks of the first request."""
    one, two = await facade.bot("one"), await facade.bot("two")
    for bot in (one, two):
        await bot.identify(guilds=2)
    await one.send(8, ALL_MEMBERS | {"nonce": "of one"})
    ((_, _, d),) = await facade.commands.until(1)
    chunk = {"guild_id": "10", "members": [], "chunk_count": 2, "nonce": d["nonce"]}
    facade.feed.happen("GUILD_MEMBERS_CHUNK", chunk | {"chunk_index": 0})
    await one.event("GUILD_MEMBERS_CHUNK")
    await two.send(8, ALL_MEMBERS)
    got = [(await two.event("GUILD_MEMBERS_CHUNK"))["d"]]
    facade.feed.happen("GUILD_MEMBERS_CHUNK", chunk | {"chunk_index": 1})
    got.append((await two.event("GUILD_MEMBERS_CHUNK"))["d"])
    assert [(part["chunk_index"], "nonce" in part) for part in got] == [(0, False), (1, False)]
    assert (await one.event("GUILD_MEMBERS_CHUNK"))["d"]["nonce"] == "of one"
    await one.gone()
    again = await facade.bot("one")
    await again.identify(guilds=2)
    await again.send(8, ALL_MEMBERS | {"nonce": "again"})
    got = [(await again.event("GUILD_MEMBERS_CHUNK"))["d"] for _ in range(2)]
    assert [(part["chunk_index"], part["nonce"]) for part in got] == [(0, "again"), (1, "again")]
    facade.feed.happen("MESSAGE_CREATE", {"id": "1", "guild_id": "10"})
    await again.event("MESSAGE_CREATE")
    assert len(facade.commands.sent) == 1


async def test_another_question_or_an_answer_that_does_not_come_is_not_shared(facade: Stage) -> None:
    """With presences it is another question; after RATE_LIMITED, which everybody who waits gets, Discord is asked again."""
    one, two = await facade.bot("one"), await facade.bot("two")
    for bot in (one, two):
        await bot.identify(guilds=2)
    await one.send(8, ALL_MEMBERS | {"nonce": "of one"})
    ((_, _, d),) = await facade.commands.until(1)
    await two.send(8, ALL_MEMBERS | {"presences": True})
    await facade.commands.until(2)
    await two.send(8, ALL_MEMBERS | {"nonce": "of two"})
    await two.send(1, None)
    assert (await two.frame())["op"] == 11
    facade.feed.happen("RATE_LIMITED", {"opcode": 8, "retry_after": 1, "meta": {"nonce": d["nonce"]}})
    for bot, nonce in ((one, "of one"), (two, "of two")):
        assert (await bot.event("RATE_LIMITED"))["d"]["meta"]["nonce"] == nonce
    await two.send(8, ALL_MEMBERS | {"nonce": "of two"})
    assert len(await facade.commands.until(3)) == 3


async def test_a_request_that_was_never_sent_is_not_joined(facade: Stage) -> None:
    """It waits for Discord's limits when its bot is killed, and is dropped some time later: the bot that comes next asks anew."""
    facade.commands.may_pass.clear()
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.send(8, ALL_MEMBERS)
    await bot.send(1, None)
    await bot.frame()
    await bot.gone()
    again = await facade.bot()
    await again.identify(guilds=2)
    await again.send(8, ALL_MEMBERS)
    await again.send(1, None)
    await again.frame()
    facade.commands.may_pass.set()
    assert len(await facade.commands.until(2)) == 2


async def test_an_old_answer_is_not_shared(facade: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_requests, "SHARED_SECONDS", 0.0)
    one, two = await facade.bot("one"), await facade.bot("two")
    for number, bot in enumerate((one, two), 1):
        await bot.identify(guilds=2)
        await bot.send(8, ALL_MEMBERS)
        await facade.commands.until(number)


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


async def test_voice_may_be_kept(stage: Stage) -> None:
    """With voice = "keep" an IDENTIFY leaves no channel."""
    stage.clients = [replace(client, voice="keep") for client in stage.clients]
    stage.feed.begin("label", [10])
    stage.feed.happen("GUILD_CREATE", guild(10, voice_states=[{"user_id": "42", "channel_id": "7", "session_id": "s"}]))
    await stage.open()
    bot = await stage.bot()
    await bot.identify(guilds=1)
    await bot.send(31, {"guild_ids": ["10"]})
    assert [op for op, _, _ in await stage.commands.until(1)] == [31]


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


async def test_a_bot_that_sends_nonsense_disturbs_nobody(facade: Stage) -> None:
    """What is not well formed is dropped before it gets a nonce; the log says so once, and counts."""
    one, two = await facade.bot("one"), await facade.bot("two")
    for bot in (one, two):
        await bot.identify(guilds=2)
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message} {extra}")
    await two.send(8, {"guild_id": "10", "query": "a", "limit": 1})
    ((_, _, d),) = await facade.commands.until(1)
    for _ in range(nonces.KEPT + 1):
        await one.send(8, {"guild_id": "x", "query": "a", "limit": 1})
    await one.send(4, {"guild_id": "x", "channel_id": "1"})
    await one.send(1, None)
    assert (await one.frame())["op"] == 11
    logger.remove(sink)
    facade.feed.happen("GUILD_MEMBERS_CHUNK", {"guild_id": "10", "members": [], "nonce": d["nonce"]})
    assert "nonce" not in (await two.event("GUILD_MEMBERS_CHUNK"))["d"]
    assert len(facade.commands.sent) == 1
    assert len(said) == 1
    assert "it was dropped" in said[0]
