"""The protocol as a raw client sees it: HELLO, each opcode, each close code, the records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from discorder.clock import FakeClock
from discorder.simulator import Close, Simulator, ViolationKind

Start = Callable[..., Awaitable[Simulator]]
Make = Callable[[Simulator], Any]


async def test_hello_comes_first_and_frames_look_like_the_real_servers(
    start_simulator: Start, make_client: Make
) -> None:
    """Keys are t, s, op, d with nulls written; plain JSON is TEXT."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    hello = await client.frame()
    assert hello["op"] == 10
    assert hello["d"]["heartbeat_interval"] == 41_250
    assert client.raw[0].type is aiohttp.WSMsgType.TEXT
    assert client.raw[0].data.startswith('{"t":null,"s":null,"op":10,"d":{')
    assert sim.connects == 1


async def test_a_session_starts_with_ready_and_a_guild_create_per_guild(
    start_simulator: Start, make_client: Make
) -> None:
    """READY has seq 1, stubs, the shard that was sent, and the resume host; guilds then load with `unavailable` false."""
    sim = await start_simulator(guilds=3)
    client = await make_client(sim).dial()
    ready = await client.identify(shard=[0, 1], guilds=0)
    assert [stub["unavailable"] for stub in ready["guilds"]] == [True] * 3
    assert (ready["shard"], ready["v"], ready["resume_gateway_url"]) == ([0, 1], 10, sim.resume_url)
    loaded = [await client.until("GUILD_CREATE") for _ in range(3)]
    assert [guild["id"] for guild in loaded] == [stub["id"] for stub in ready["guilds"]]
    assert all(guild["unavailable"] is False for guild in loaded)
    session = ready["session_id"]
    assert sim.sent == [(session, 1, "READY")] + [(session, seq, "GUILD_CREATE") for seq in (2, 3, 4)]
    assert sim.identifies == 1


async def test_ready_echoes_no_shard_that_was_not_sent(start_simulator: Start, make_client: Make) -> None:
    """docs/protocol.md#sharding."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    assert "shard" not in await client.identify()


async def test_guilds_are_split_over_the_shards(start_simulator: Start, make_client: Make) -> None:
    """Each shard gets the guilds with (id >> 22) % count equal to its id."""
    sim = await start_simulator(guilds=5)
    for shard in range(2):
        ready = await (await make_client(sim).dial()).identify(shard=[shard, 2])
        assert all((int(stub["id"]) >> 22) % 2 == shard for stub in ready["guilds"])
        assert len(ready["guilds"]) in {2, 3}


async def test_without_the_guilds_intent_no_guild_loads(start_simulator: Start, make_client: Make) -> None:
    """READY still lists them."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    ready = await client.identify(intents=512, guilds=0)
    assert len(ready["guilds"]) == 3
    await client.send(1, 1)
    assert (await client.frame())["op"] == 11


async def test_without_presences_a_guild_shows_the_bot_and_who_is_in_voice(
    start_simulator: Start, make_client: Make
) -> None:
    """docs/protocol.md#ready."""
    sim = await start_simulator(guilds=1)
    client = await make_client(sim).dial()
    await client.identify(intents=1, guilds=0)
    guild = await client.until("GUILD_CREATE")
    assert len(guild["members"]) == 3
    assert guild["presences"] == []
    assert guild["member_count"] == 9


@pytest.mark.parametrize("binary", [True, False])
async def test_heartbeats_are_acknowledged_before_and_after_identify(
    start_simulator: Start, make_client: Make, binary: bool
) -> None:
    """TEXT and BINARY JSON are the same to the server."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.frame()
    if binary:
        await client.websocket.send_bytes(b'{"op":1,"d":null}')
    else:
        await client.send(1)
    assert (await client.frame()) == {"t": None, "s": None, "op": 11, "d": None}
    assert sim.frames_received == 1


@pytest.mark.parametrize("token", ["Bot {}", "{}"])
async def test_the_token_may_have_its_prefix(start_simulator: Start, make_client: Make, token: str) -> None:
    """discordgo sends it; and no record shows it."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.identify(token=token.format(sim.token))
    assert sim.received[0].d["token"] == "<token>"
    assert sim.token not in repr(sim.received) + repr(sim.options) + repr(sim)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": "wrong"}, 4004),
        ({"token": None}, 4004),
        ({"shard": [2, 2]}, 4010),
        ({"shard": [0, 0]}, 4010),
        ({"shard": "0/1"}, 4010),
        ({"intents": 1 << 17}, 4013),
        ({"intents": "1"}, 4013),
        ({"intents": True}, 4013),
        ({"intents": -1}, 4013),
        ({"intents": None}, 4013),
        ({"large_threshold": 10}, 4001),
        ({"presence": {"activities": None}}, 4001),
    ],
)
async def test_an_identify_that_discord_refuses(
    start_simulator: Start, make_client: Make, changes: dict[str, Any], code: int
) -> None:
    """Each fault has its close code, and no session comes of it."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.send(2, client.identity(**changes))
    assert await client.close_code() == code
    assert sim.sessions == []
    assert sim.identifies == 1


async def test_intents_that_are_not_approved(start_simulator: Start, make_client: Make) -> None:
    """4014 for a privileged bit that the application lacks."""
    sim = await start_simulator(approved_intents=2)
    client = await make_client(sim).dial()
    await client.send(2, client.identity(intents=1 | 256))
    assert await client.close_code() == 4014
    await (await make_client(sim).dial()).identify(intents=1 | 2)


async def test_a_shard_with_too_many_guilds(start_simulator: Start, make_client: Make) -> None:
    """4011, unless the guilds are spread over enough shards."""
    sim = await start_simulator(guilds=3, max_guilds_per_shard=2)
    client = await make_client(sim).dial()
    await client.send(2, client.identity())
    assert await client.close_code() == 4011
    await (await make_client(sim).dial()).identify(shard=[0, 2])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"not json", 4002),
        (b"\xff\xfe", 4002),
        (b"[]", 4002),
        (b'{"d":1}', 4002),
        (b'{"op":true}', 4002),
        (b'{"op":12}', 4001),
        (b'{"op":3,"d":{}}', 4003),
        (b'{"op":1,"d":"x"}', 4001),
        (b'{"op":2,"d":[]}', 4001),
    ],
)
async def test_a_frame_that_discord_closes_for(
    start_simulator: Start, make_client: Make, frame: bytes, code: int
) -> None:
    """Garbage, unknown opcodes and commands before IDENTIFY."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.websocket.send_bytes(frame)
    assert await client.close_code() == code


async def test_invalid_utf8_in_a_text_frame_is_a_decode_error(start_simulator: Start, make_client: Make) -> None:
    """4002, as for any other garbage."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.websocket.send_frame(b'{"op":1,"d":"\xff"}', aiohttp.WSMsgType.TEXT)
    assert await client.close_code() == 4002


async def test_a_second_identify_or_resume_is_refused(start_simulator: Start, make_client: Make) -> None:
    """4005, and the session is kept."""
    sim = await start_simulator()
    for op in (2, 6):
        client = await make_client(sim).dial()
        ready = await client.identify()
        await client.send(op, client.identity(session_id=ready["session_id"], seq=1))
        assert await client.close_code() == 4005
        assert ready["session_id"] in sim.sessions


@pytest.mark.parametrize("version", ["5", "11", "x", "²"])
async def test_an_api_version_that_does_not_exist(start_simulator: Start, make_client: Make, version: str) -> None:
    """4012; 9 and 10 are fine, in any path and order of parameters."""
    sim = await start_simulator()
    client = await make_client(sim).dial(query=f"v={version}&encoding=json")
    assert await client.close_code() == 4012
    client = await make_client(sim).dial(url=sim.gateway_url + "/some/path", query="encoding=json&v=9")
    assert (await client.identify())["v"] == 9


async def test_members_of_a_guild_come_in_chunks(start_simulator: Start, make_client: Make) -> None:
    """Op 8 for all of 1,509 members: two chunks with the nonce; the guild id may be a string, a number, an array."""
    sim = await start_simulator(guilds=2, members=1500, member_request_spacing=0.0)
    client = await make_client(sim).dial()
    await client.identify()
    for guild_id in (str(sim.guild_ids[1]), sim.guild_ids[1], [str(sim.guild_ids[1])]):
        await client.send(8, {"guild_id": guild_id, "query": "", "limit": 0, "nonce": "n"})
        chunks = [await client.until("GUILD_MEMBERS_CHUNK") for _ in range(2)]
        assert [(c["chunk_index"], c["chunk_count"], c["nonce"]) for c in chunks] == [(0, 2, "n"), (1, 2, "n")]
        assert [len(c["members"]) for c in chunks] == [1000, 509]
        assert {c["guild_id"] for c in chunks} == {str(sim.guild_ids[1])}


async def test_members_by_id_and_by_prefix(start_simulator: Start, make_client: Make) -> None:
    """Ids that nobody has come back, small ones as integers; nobody at all is one empty chunk."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.identify()
    guild_id = str(sim.guild_ids[0])
    ids = ["1345196709629788206", "123123", "1000000000000000000"]
    await client.send(8, {"guild_id": guild_id, "user_ids": ids, "presences": True})
    chunk = await client.until("GUILD_MEMBERS_CHUNK")
    assert [member["user"]["username"] for member in chunk["members"]] == ["ember_otter"]
    assert chunk["not_found"] == [123123, "1000000000000000000"]
    assert "presences" in chunk
    await client.send(8, {"guild_id": guild_id, "query": "EMBER", "limit": 5})
    assert len((await client.until("GUILD_MEMBERS_CHUNK"))["members"]) == 1
    await client.send(8, {"guild_id": guild_id, "query": "nobody", "limit": 5, "nonce": "x" * 33})
    chunk = await client.until("GUILD_MEMBERS_CHUNK")
    assert (chunk["members"], chunk["chunk_count"], "nonce" in chunk) == ([], 1, False)


async def test_a_whole_guild_may_be_asked_for_once_in_thirty_seconds(start_simulator: Start, make_client: Make) -> None:
    """Then RATE_LIMITED with what is left of the 30 s; no disconnect."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    client = await make_client(sim).dial()
    await client.identify()
    request = {"guild_id": str(sim.guild_ids[0]), "query": "", "limit": 0, "nonce": "n"}
    await client.send(8, request)
    await client.until("GUILD_MEMBERS_CHUNK")
    await clock.advance(10)
    await client.send(8, request)
    answer = await client.until("RATE_LIMITED")
    assert answer == {"opcode": 8, "retry_after": 20.0, "meta": {"guild_id": str(sim.guild_ids[0]), "nonce": "n"}}
    assert [violation.kind for violation in sim.violations] == [ViolationKind.MEMBER_REQUESTS]
    await clock.advance(20)
    await client.send(8, request)
    await client.until("GUILD_MEMBERS_CHUNK")


async def test_a_whole_guild_needs_the_members_intent(start_simulator: Start, make_client: Make) -> None:
    """Without GUILD_MEMBERS the request is refused."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.identify(intents=1)
    await client.send(8, {"guild_id": str(sim.guild_ids[0]), "query": "", "limit": 0})
    assert await client.close_code() == 4014


async def test_joining_and_leaving_voice(start_simulator: Start, make_client: Make) -> None:
    """Op 4 is answered by the bot's voice state, then by the server, which is missing after leaving."""
    sim = await start_simulator(guilds=2)
    client = await make_client(sim).dial()
    await client.identify()
    guild_id = sim.guild_ids[1]
    await client.send(4, {"guild_id": guild_id, "channel_id": 123, "self_mute": True, "self_deaf": False})
    state = await client.until("VOICE_STATE_UPDATE")
    assert (state["channel_id"], state["self_mute"], state["guild_id"]) == ("123", True, str(guild_id))
    assert (await client.until("VOICE_SERVER_UPDATE"))["guild_id"] == str(guild_id)
    await client.send(4, {"guild_id": str(guild_id), "channel_id": None})
    assert (await client.until("VOICE_STATE_UPDATE"))["channel_id"] is None
    assert sim.sent[-1][2] == "VOICE_STATE_UPDATE"


async def test_sounds_and_channel_info(start_simulator: Start, make_client: Make) -> None:
    """Ops 31 and 43, with the ids of the guild asked for and only the fields asked for."""
    sim = await start_simulator(guilds=2)
    client = await make_client(sim).dial()
    await client.identify()
    ids = [str(guild_id) for guild_id in sim.guild_ids]
    await client.send(31, {"guild_ids": ids})
    assert [(await client.until("SOUNDBOARD_SOUNDS"))["guild_id"] for _ in ids] == ids
    await client.send(43, {"guild_id": ids[1], "fields": ["status"]})
    info = await client.until("CHANNEL_INFO")
    assert info["guild_id"] == ids[1]
    assert [set(channel) for channel in info["channels"]] == [{"id", "status"}] * 2


@pytest.mark.parametrize(
    ("op", "d"),
    [
        (3, {"activities": None, "status": "online", "afk": False, "since": None}),
        (3, {"activities": [], "status": "asleep", "afk": False, "since": None}),
        (3, None),
        (4, {"guild_id": "x", "channel_id": None}),
        (8, {"guild_id": "1345192221523181594"}),
        (8, {"guild_id": ["1", "2"], "query": "", "limit": 0}),
        (8, {"guild_id": "1345192221523181594", "query": "", "limit": "all"}),
        (31, {"guild_ids": "1345192221523181594"}),
        (43, {"guild_id": "1345192221523181594", "fields": "status"}),
    ],
)
async def test_a_command_with_a_bad_payload(start_simulator: Start, make_client: Make, op: int, d: Any) -> None:
    """4001; the session is kept."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    ready = await client.identify()
    await client.send(op, d)
    assert await client.close_code() == 4001
    assert sim.sessions == [ready["session_id"]]


async def test_commands_about_foreign_guilds_are_ignored(start_simulator: Start, make_client: Make) -> None:
    """No answer, no close."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.identify()
    before = len(sim.sent)
    await client.send(4, {"guild_id": "1", "channel_id": None})
    await client.send(8, {"guild_id": "1", "query": "", "limit": 0})
    await client.send(31, {"guild_ids": ["1"]})
    await client.send(43, {"guild_id": "1", "fields": []})
    await client.send(3, {"activities": [], "status": "idle", "afk": False, "since": None})
    await client.send(1, 1)
    await client.until_op(11)
    assert len(sim.sent) == before


async def test_records_name_shard_opcode_and_data(start_simulator: Start, make_client: Make) -> None:
    """`received` shows the shard from IDENTIFY on."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.identify(shard=[1, 2])
    await client.send(1, 7)
    await client.until_op(11)
    assert [(frame.shard, frame.op) for frame in sim.received] == [(None, 2), (1, 1)]
    assert sim.received[-1].d == 7


@pytest.mark.parametrize(("code", "kept"), [(1000, False), (1001, False), (4000, True), (3000, True), (1012, True)])
async def test_only_1000_and_1001_from_the_client_end_a_session(
    start_simulator: Start, make_client: Make, code: int, kept: bool
) -> None:
    """docs/protocol.md#closing-a-connection; the close is answered with the same code at once."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await client.close(code)
    await sim.wait_for(lambda: sim.closes)
    assert sim.closes == [Close(session, 0, code, "client")]
    assert sim.sessions == ([session] if kept else [])


async def test_a_close_frame_without_a_code_keeps_the_session(start_simulator: Start, make_client: Make) -> None:
    """It is no 1000."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await client.websocket.send_frame(b"", aiohttp.WSMsgType.CLOSE)
    await sim.wait_for(lambda: sim.closes)
    assert sim.closes == [Close(session, 0, None, "client")]
    assert sim.sessions == [session]


async def test_a_lost_connection_keeps_the_session(start_simulator: Start, make_client: Make) -> None:
    """A client that vanishes is a fault of the network."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    client.vanish()
    await sim.wait_for(lambda: sim.closes)
    assert sim.closes == [Close(session, 0, None, "network")]
    assert sim.sessions == [session]


async def test_websocket_pings_are_answered(start_simulator: Start, make_client: Make) -> None:
    """RFC 6455 §5.5.2."""
    sim = await start_simulator()
    client = await make_client(sim).dial()
    await client.websocket.ping(b"are you there")
    await client.frame()
    await client.send(1)
    assert (await client.frame())["op"] == 11


async def test_the_clock_decides_when_heartbeats_are_missed(start_simulator: Start, make_client: Make) -> None:
    """Two silent intervals: 4009, and the session is over; a beat in time puts it off."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    client = await make_client(sim).dial()
    session = (await client.identify())["session_id"]
    await clock.advance(60)
    await client.send(1, 1)
    await client.until_op(11)
    await clock.advance(60)
    assert sim.open_connections == 1
    await clock.advance(30)
    assert await client.close_code() == 4009
    assert [violation.kind for violation in sim.violations] == [ViolationKind.MISSED_HEARTBEAT]
    assert session not in sim.sessions


async def test_every_id_of_a_copied_guild_is_its_own(start_simulator: Start, make_client: Make) -> None:
    """Two guilds share users, but no channel, role or emoji; references inside a guild resolve."""
    sim = await start_simulator(guilds=2)
    client = await make_client(sim).dial()
    await client.identify(guilds=0)
    first, second = [await client.until("GUILD_CREATE") for _ in range(2)]
    for key in ("channels", "threads", "roles", "emojis"):
        assert not {item["id"] for item in first[key]} & {item["id"] for item in second[key]}
    assert second["id"] in {role["id"] for role in second["roles"]}
    assert second["rules_channel_id"] in {channel["id"] for channel in second["channels"]}
    assert first["name"] != second["name"]
    assert all(sound["guild_id"] == second["id"] for sound in second["soundboard_sounds"])
