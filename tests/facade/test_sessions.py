"""Sessions of the façade, as a raw bot sees them: IDENTIFY, RESUME, and what ends a session."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from discorder.facade import server
from discorder.facade.encoding import StoredZstd
from discorder.logs import logger
from discorder.simulator.compression import load_zstd
from tests.facade.conftest import Stage
from tests.facade.memory_feed import ALL_INTENTS, MemoryFeed, guild


def message(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": str(number), "guild_id": "10", **changes}


# ---------------------------------------------------------------- IDENTIFY


async def test_identify_gets_ready_the_guilds_and_what_happens(facade: Stage) -> None:
    """READY is Discord's with our own session; every guild follows, then the events with their numbers in a row."""
    bot = await facade.bot()
    assert bot.interval == 15_000
    ready = await bot.identify()
    assert ready["new_field"] == {"kept": True}
    assert ready["resume_gateway_url"] == facade.url.replace("http", "ws")
    assert ready["shard"] == [0, 1]
    assert ready["guilds"] == [{"id": "10", "unavailable": True}, {"id": "20", "unavailable": True}]
    assert ready["session_id"] != "discords-own"
    assert [(await bot.event("GUILD_CREATE"))["d"]["name"] for _ in range(2)] == ["guild 10", "guild 20"]
    facade.feed.happen("MESSAGE_CREATE", message(1))
    frame = await bot.event("MESSAGE_CREATE")
    assert (frame["s"], frame["d"]["id"]) == (4, "1")


@pytest.mark.parametrize("path", ["/?v=10&encoding=json", "?v=10&encoding=json", "/any/path?v=9", ""])
async def test_any_path_is_a_gateway(facade: Stage, path: str) -> None:
    """Libraries add what they like to the URL."""
    await (await facade.bot(query=path)).identify(guilds=2)


async def test_the_guilds_are_those_of_now(facade: Stage) -> None:
    """What happened before IDENTIFY is in the guilds and does not come as an event; what happens later does."""
    facade.feed.happen("CHANNEL_CREATE", {"id": "5", "guild_id": "10", "name": "new"})
    bot = await facade.bot()
    await bot.identify()
    first = await bot.event("GUILD_CREATE")
    assert first["d"]["channels"] == [{"id": "5", "name": "new"}]
    assert first["d"]["unavailable"] is False
    await bot.event("GUILD_CREATE")
    facade.feed.happen("CHANNEL_DELETE", {"id": "5", "guild_id": "10"})
    await bot.event("CHANNEL_DELETE")


async def test_events_during_the_burst_come_after_it_once(facade: Stage) -> None:
    """Snapshot and place are taken in one step: no event falls between them, and none comes twice."""
    bot = await facade.bot()
    await bot.send(2, {"token": bot.token, "intents": ALL_INTENTS, "properties": {}})
    await bot.event("READY")
    for number in range(5):
        facade.feed.happen("GUILD_MEMBER_ADD", {"guild_id": "10", "user": {"id": str(100 + number)}, "roles": []})
    counts = [(await bot.event("GUILD_CREATE"))["d"]["member_count"] for _ in range(2)]
    joined = [(await bot.event("GUILD_MEMBER_ADD"))["d"]["user"]["id"] for _ in range(5)]
    assert counts == [1, 1]
    assert joined == ["100", "101", "102", "103", "104"]


async def test_ready_waits_for_discords(stage: Stage) -> None:
    """Before the first READY of the shard the bot gets HELLO and acknowledgements, and READY when there is one."""
    await stage.open()
    bot = await stage.bot()
    await bot.send(2, {"token": bot.token, "intents": ALL_INTENTS, "properties": {}})
    for _ in range(3):
        await bot.send(1, None)
        assert (await bot.frame())["op"] == 11
    stage.feed.begin("label", [10])
    await bot.event("READY")
    await bot.event("GUILD_CREATE")


async def test_a_bot_without_the_intent_guilds_gets_no_guilds(facade: Stage) -> None:
    """As at Discord."""
    bot = await facade.bot()
    await bot.identify(intents=1 << 9)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    assert (await bot.event("MESSAGE_CREATE"))["s"] == 2


async def test_events_are_filtered_by_intents(facade: Stage) -> None:
    """Of guild and direct messages only those with an intent come; changes of the bot's own member always do."""
    bot = await facade.bot()
    await bot.identify(guilds=2, intents=1 << 0 | 1 << 12)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    facade.feed.happen("TYPING_START", {"guild_id": "10"})
    facade.feed.happen("GUILD_MEMBER_UPDATE", {"guild_id": "10", "user": {"id": "77"}, "roles": []})
    facade.feed.happen("GUILD_MEMBER_UPDATE", {"guild_id": "10", "user": {"id": "42"}, "roles": []})
    facade.feed.happen("MESSAGE_CREATE", {"id": "2"})
    facade.feed.happen("INTERACTION_CREATE", {"id": "3"})
    assert (await bot.event("GUILD_MEMBER_UPDATE"))["d"]["user"]["id"] == "42"
    assert (await bot.event("MESSAGE_CREATE"))["d"]["id"] == "2"
    await bot.event("INTERACTION_CREATE")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"token": "Bot wrong"}, 4004, "token"),
        ({"token": None}, 4004, "token"),
        ({"shard": [0, 2]}, 4010, "1 shard, not 2"),
        ({"shard": [3, 1]}, 4010, "shard 3"),
        ({"shard": "0"}, 4010, "[id, count]"),
        ({"intents": "all"}, 4013, "number"),
        ({"intents": 1 << 8 | 1 << 1}, 4014, "guild_members, guild_presences"),
    ],
)
async def test_a_wrong_identify_is_closed_with_a_reason(
    facade: Stage, changes: dict[str, Any], code: int, words: str
) -> None:
    """The close code is Discord's, and the reason says what is wrong."""
    facade.feed.intents = ALL_INTENTS & ~(1 << 8 | 1 << 1)
    bot = await facade.bot()
    await bot.send(2, {"token": bot.token, "intents": 1, "properties": {}, **changes})
    given, reason = await bot.close_code()
    assert given == code
    assert words in reason


async def test_intents_without_a_name_are_ignored(facade: Stage) -> None:
    """interactions.py asks for bit 17, which Discord does not document, with all the others."""
    facade.feed.intents = ALL_INTENTS & ~(1 << 8)
    bot = await facade.bot()
    await bot.identify(guilds=2, intents=facade.feed.intents | 1 << 17)


@pytest.mark.parametrize(("op", "code"), [(2, 4005), (6, 4005), (99, 4001), (0, 4001), (11, 4001)], ids=str)
async def test_an_opcode_out_of_place_is_closed(facade: Stage, op: int, code: int) -> None:
    """IDENTIFY and RESUME come once; opcodes that are not a client's are unknown."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.send(op, {"token": bot.token})
    assert (await bot.close_code())[0] == code


async def test_a_frame_that_is_nested_too_deeply_is_closed(facade: Stage) -> None:
    bot = await facade.bot()
    assert bot.websocket is not None
    await bot.websocket.send_str("[" * 2000)
    assert (await bot.close_code())[0] == 4002


async def test_a_handshake_that_is_none_gets_400(facade: Stage) -> None:
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING")
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    async with facade.http.get(facade.url, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (400, 0)
    logger.remove(sink)
    assert said == []


async def test_connections_that_say_nothing_cut_no_bot(facade: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the one that has been quiet for longest goes, and a bot is never quiet."""
    await facade.close()
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    await facade.open()
    bot = await facade.bot()
    await bot.identify(guilds=2)
    host, port = facade.url.removeprefix("http://").split(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    facade.feed.happen("MESSAGE_CREATE", message(1))
    await bot.event("MESSAGE_CREATE")
    for _, writer in silent:
        writer.close()


async def test_malformed_frames_and_early_commands_are_closed(facade: Stage) -> None:
    """4002 for what is no payload, 4003 for a command without a session."""
    for text, code in (("{", 4002), ("[]", 4002), ('{"op":"1"}', 4002), ('{"op":3,"d":{}}', 4003)):
        bot = await facade.bot()
        assert bot.websocket is not None
        await bot.websocket.send_str(text)
        assert (await bot.close_code())[0] == code
    bot = await facade.bot()
    await bot.send(2, {"filler": "x" * 5000})
    assert (await bot.close_code())[0] == 4002


# ---------------------------------------------------------------- RESUME


async def test_resume_replays_what_was_missed(facade: Stage) -> None:
    """After a broken socket each event comes once, in order, then RESUMED, then the live ones."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    await bot.event("MESSAGE_CREATE")
    bot.vanish()
    facade.feed.happen("MESSAGE_CREATE", message(2))
    facade.feed.happen("CHANNEL_CREATE", {"id": "5", "guild_id": "10"})
    await bot.dial()
    await bot.resume()
    frames = [await bot.frame() for _ in range(3)]
    assert [(frame["t"], frame["s"]) for frame in frames] == [
        ("MESSAGE_CREATE", 5),
        ("CHANNEL_CREATE", 6),
        ("RESUMED", 6),
    ]
    facade.feed.happen("MESSAGE_CREATE", message(3))
    assert (await bot.event("MESSAGE_CREATE"))["s"] == 7


async def test_resume_after_the_burst_alone(facade: Stage) -> None:
    """A bot that has all guilds and nothing more can resume."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.dial()
    await bot.resume()
    await bot.event("RESUMED")


async def test_resume_survives_another_server(facade: Stage) -> None:
    """The session id says everything: a façade that was started anew continues the session."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.gone()
    await facade.close()
    facade.feed.happen("MESSAGE_CREATE", message(1))
    await facade.open()
    await bot.dial()
    await bot.resume()
    await bot.event("MESSAGE_CREATE")
    await bot.event("RESUMED")


async def test_resume_inside_the_burst_begins_anew(facade: Stage) -> None:
    """A bot that has not got all guilds gets them anew, on the same connection."""
    bot = await facade.bot()
    await bot.identify(guilds=1)
    await bot.dial()
    await bot.resume()
    frame = await bot.frame()
    assert (frame["op"], frame["d"]) == (9, False)
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    assert (await bot.event("MESSAGE_CREATE"))["s"] == 4


async def test_a_session_that_cannot_go_on_is_refused(facade: Stage) -> None:
    """Of another bot, forged, of a lost session of Discord's, beyond the end, or no longer held: op 9 false."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    session_id, seq = bot.session_id, bot.seq
    forged = session_id[:-2] + ("AA" if session_id[-2:] != "AA" else "BB")

    async def refused(session: str, at: int, name: str = "one") -> bool:
        other = await facade.bot(name)
        await other.resume(session, at)
        frame = await other.frame()
        return bool(frame["op"] == 9 and frame["d"] is False)

    assert await refused(session_id, seq, "two")
    assert await refused(forged, seq)
    assert await refused("", seq)
    assert await refused("é" * 700, seq)
    assert await refused(session_id, seq + 1000)
    facade.feed.forget()
    assert await refused(session_id, seq)
    facade.feed.begin("label two", [10])
    assert await refused(session_id, seq)


# ---------------------------------------------------------------- what ends a session


async def test_a_lost_session_of_discords_is_told_and_the_next_identify_misses_nothing(facade: Stage) -> None:
    """Op 9 false to every bot of the shard; the events of the new session come after its guilds, also the first ones."""
    bots = [await facade.bot(name) for name in ("one", "two")]
    for bot in bots:
        await bot.identify(guilds=2)
    facade.feed.begin("label two", [10])
    facade.feed.happen("MESSAGE_CREATE", message(1))
    for bot in bots:
        assert (await bot.frame())["op"] == 9
        await bot.identify(guilds=1)
        assert (await bot.event("MESSAGE_CREATE"))["d"]["id"] == "1"


async def test_lost_events_are_told(facade: Stage) -> None:
    """After a gap in the journal the bot gets op 9; the session that it then begins goes on."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    facade.feed.lose()
    assert (await bot.frame())["op"] == 9
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    await bot.event("MESSAGE_CREATE")


async def test_a_stop_sends_op_7_after_the_last_event(facade: Stage) -> None:
    """Every event that there is, then op 7, then the end of the socket without a close frame."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    closing = asyncio.create_task(facade.close())
    await bot.event("MESSAGE_CREATE")
    assert (await bot.frame())["op"] == 7
    await bot.is_cut()
    await closing


async def test_heartbeats_are_answered_and_two_missed_cut_the_socket(stage: Stage) -> None:
    """A bot that sends none for two intervals is taken for dead."""
    stage.heartbeat = 0.05
    stage.feed.begin("label", [10])
    await stage.open()
    bot = await stage.bot()
    await bot.identify(guilds=1)
    await bot.send(1, bot.seq)
    assert (await bot.frame())["op"] == 11
    await bot.is_cut()


async def test_a_bot_that_does_not_read_costs_no_memory_and_gets_everything_later(facade: Stage) -> None:
    """The façade keeps a place and no queue: it stops to read the journal until the bot reads again."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    assert bot.websocket is not None
    body = "x" * 50_000
    for number in range(400):
        facade.feed.happen("MESSAGE_CREATE", message(number, content=body))
    before = -1
    while before != facade.feed.reads:  # until the buffers of both sockets are full
        before = facade.feed.reads
        await asyncio.sleep(0.05)
    for number in range(400, 800):
        facade.feed.happen("MESSAGE_CREATE", message(number, content=body))
    await asyncio.sleep(0.05)
    assert facade.feed.reads == before
    assert [int((await bot.event("MESSAGE_CREATE"))["d"]["id"]) for _ in range(800)] == list(range(800))


# ---------------------------------------------------------------- catching up


async def test_a_bot_that_was_killed_catches_up(facade: Stage) -> None:
    """Its IDENTIFY brings the guilds as they are, then the events that it missed, except those that are in the guilds."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    await bot.event("MESSAGE_CREATE")
    await bot.gone()
    facade.feed.happen("MESSAGE_CREATE", message(2))
    facade.feed.happen("CHANNEL_CREATE", {"id": "5", "guild_id": "10"})
    facade.feed.happen("TYPING_START", {"guild_id": "10"})
    facade.feed.happen("MESSAGE_CREATE", message(3))
    again = await facade.bot()
    await again.identify()
    assert len((await again.event("GUILD_CREATE"))["d"]["channels"]) == 1
    await again.event("GUILD_CREATE")
    facade.feed.happen("CHANNEL_CREATE", {"id": "6", "guild_id": "10"})
    frames = [await again.frame() for _ in range(3)]
    assert [(frame["t"], frame["d"]["id"]) for frame in frames] == [
        ("MESSAGE_CREATE", "2"),
        ("MESSAGE_CREATE", "3"),
        ("CHANNEL_CREATE", "6"),
    ]
    assert [frame["s"] for frame in frames] == [4, 7, 8]


async def test_a_bot_that_was_away_too_long_gets_what_is_still_kept(facade: Stage) -> None:
    """The others are counted in the log: at IDENTIFY the protocol has no means to tell."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.gone()
    for number in range(1, 4):
        facade.feed.happen("MESSAGE_CREATE", message(number))
    facade.feed.forget()
    facade.feed.happen("MESSAGE_CREATE", message(4))
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message} {extra}")
    again = await facade.bot()
    await again.identify(guilds=2)
    logger.remove(sink)
    assert (await again.event("MESSAGE_CREATE"))["d"]["id"] == "4"
    assert len(said) == 1
    assert "away for longer than its events are kept" in said[0]
    assert "'not_sent': 3" in said[0]


async def test_the_place_of_a_new_bot_is_saved_at_once(facade: Stage) -> None:
    """The control plane may be killed before the places are saved again: without a place the bot would miss events."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    assert [(one["client"], one["seq"]) for one in facade.store.places] == [("one", 3)]


async def test_a_resume_within_the_catch_up_leaves_out_the_same_events(facade: Stage) -> None:
    """The socket breaks while the bot catches up: the replay too leaves out what the guilds contain."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.gone()
    facade.feed.happen("MESSAGE_CREATE", message(1))
    facade.feed.happen("CHANNEL_CREATE", {"id": "5", "guild_id": "10"})
    facade.feed.happen("MESSAGE_CREATE", message(2))
    again = await facade.bot()
    await again.identify(guilds=2)
    await again.event("MESSAGE_CREATE")
    seq = again.seq
    await again.dial()
    await again.resume(seq=seq)
    assert (await again.event("MESSAGE_CREATE"))["d"]["id"] == "2"
    await again.event("RESUMED")


async def test_a_second_instance_catches_up_on_nothing_while_the_first_lives(facade: Stage) -> None:
    """A rolling deploy: the old instance has the events, the new one those from its IDENTIFY on."""
    before = await facade.bot()
    await before.identify(guilds=2)
    await before.gone()  # which leaves a place
    old = await facade.bot()
    await old.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    new = await facade.bot()
    await new.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(2))
    assert (await new.event("MESSAGE_CREATE"))["d"]["id"] == "2"
    assert [(await old.event("MESSAGE_CREATE"))["d"]["id"] for _ in range(2)] == ["1", "2"]
    await new.gone()
    await old.gone()
    facade.feed.happen("MESSAGE_CREATE", message(3))
    third = await facade.bot()
    await third.identify(guilds=2)
    assert (await third.event("MESSAGE_CREATE"))["d"]["id"] == "3"


async def test_places_outlive_the_server_and_grow_old(facade: Stage) -> None:
    """A place is saved with its time; after ``catch_up`` seconds the bot begins with the present."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    await bot.gone()
    await facade.close()
    (place,) = facade.store.places
    assert (place["client"], place["shard"]) == ("one", 0)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    facade.store.places = [
        place | {"seen_at": place["seen_at"] - 100},
        place | {"client": "two", "seen_at": place["seen_at"] - 130},
    ]
    await facade.open()
    one, two = await facade.bot("one"), await facade.bot("two")
    await one.identify(guilds=2)
    await two.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(2))
    assert [(await one.event("MESSAGE_CREATE"))["d"]["id"] for _ in range(2)] == ["1", "2"]
    assert (await two.event("MESSAGE_CREATE"))["d"]["id"] == "2"


async def test_unreadable_places_begin_with_the_present(facade: Stage) -> None:
    """A damaged text costs the catching up, not the façade."""
    await facade.close()
    row = b'{"client":"one","shard":0,"session":"label","seq":3,"seen_at":%s}'
    for text in (b"[{]", b'["\xef"]', b"[%s]" % (row % b"1e300"), b"[%s]" % (row % b"-1")):
        facade.store.text = text
        await facade.open()
        bot = await facade.bot()
        await bot.identify(guilds=2)
        assert facade.server is not None
        assert facade.server.status().clients[0].name == "one"
        await bot.gone()
        await facade.close()


async def test_a_place_that_is_not_held_begins_with_the_present(facade: Stage) -> None:
    """The bot has the guilds as they are; what it missed is gone, and the session works."""
    await facade.close()
    facade.store.places = [{"client": "one", "shard": 0, "session": "label", "seq": 1, "seen_at": facade.now()}]
    facade.feed.happen("MESSAGE_CREATE", message(1))
    facade.feed.forget()
    await facade.open()
    bot = await facade.bot()
    await bot.identify(guilds=2)
    facade.feed.happen("MESSAGE_CREATE", message(2))
    assert (await bot.event("MESSAGE_CREATE"))["d"]["id"] == "2"


async def test_at_least_once_begins_at_the_last_heartbeat(stage: Stage) -> None:
    """With catch_up_from = "heartbeat" what the bot did not acknowledge comes again."""
    stage.clients = [replace(one, catch_up_from="heartbeat") for one in stage.clients]
    stage.feed.begin("label", [10])
    await stage.open()
    bot = await stage.bot()
    await bot.identify(guilds=1)
    for number in (1, 2):
        stage.feed.happen("MESSAGE_CREATE", message(number))
        await bot.event("MESSAGE_CREATE")
        if number == 1:
            await bot.send(1, bot.seq)
            assert (await bot.frame())["op"] == 11
    await bot.gone()
    again = await stage.bot()
    await again.identify(guilds=1)
    assert (await again.event("MESSAGE_CREATE"))["d"]["id"] == "2"


# ---------------------------------------------------------------- many


async def test_shards_have_streams_of_their_own(stage: Stage) -> None:
    """Each session gets the guilds and the events of its shard."""
    stage.feed = MemoryFeed(2, now=stage.now)
    for shard in (0, 1):
        stage.feed.begin(f"label {shard}", [10 + shard], shard=shard)
    await stage.open()
    for shard in (0, 1):
        bot = await stage.bot()
        ready = await bot.identify(guilds=1, shard=[shard, 2])
        assert ready["guilds"][0]["id"] == str(10 + shard)
        stage.feed.happen("MESSAGE_CREATE", message(shard), shard=1 - shard)
        stage.feed.happen("MESSAGE_CREATE", message(shard), shard=shard)
        assert (await bot.event("MESSAGE_CREATE"))["s"] == 3


async def test_heartbeats_are_in_time_during_ten_bursts(stage: Stage) -> None:
    """Ten bots identify at once, with 300 guilds; an eleventh gets its acknowledgements meanwhile."""
    stage.feed.begin("label", range(1, 301))
    await stage.open()
    calm = await stage.bot()
    bots = [await stage.bot() for _ in range(10)]
    for bot in bots:
        await bot.send(2, {"token": bot.token, "intents": ALL_INTENTS, "properties": {}})
    loop = asyncio.get_running_loop()
    slowest = 0.0
    for _ in range(20):
        began = loop.time()
        await calm.send(1, None)
        assert (await calm.frame())["op"] == 11
        slowest = max(slowest, loop.time() - began)
    assert slowest < 1.0
    for bot in bots:
        await bot.event("READY")
        for _ in range(300):
            await bot.event("GUILD_CREATE")


# ---------------------------------------------------------------- compression


async def test_zlib_stream(facade: Stage) -> None:
    """Stored blocks are a valid zlib stream."""
    facade.feed.happen("GUILD_CREATE", guild(30, filler="x" * 200_000))
    bot = await facade.bot(query="/?v=10&encoding=json&compress=zlib-stream")
    await bot.identify(guilds=3)
    facade.feed.happen("MESSAGE_CREATE", message(1))
    await bot.event("MESSAGE_CREATE")


def test_zstd_stream() -> None:
    """Raw blocks are a valid zstd frame, whatever the size of a message."""
    zstd = load_zstd()
    assert zstd is not None  # one of the extras
    encode, decompressor = StoredZstd(), zstd.ZstdDecompressor()
    for size in (0, 1, 131_072, 131_073, 400_000):
        payload = b"x" * size
        data, binary = encode(payload)
        assert binary
        assert decompressor.decompress(data) == payload


async def test_unknown_forms_are_refused_as_http(facade: Stage) -> None:
    """ETF and an unknown compression get HTTP 400 with a sentence."""
    for query in ("encoding=etf", "encoding=json&compress=snappy"):
        async with facade.http.get(
            f"{facade.url}/?{query}",
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "x" * 24,
            },
        ) as response:
            assert response.status == 400
            assert (await response.json())["message"]
