"""The life of a simulator, its living guilds, its payloads and its records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from discorder import event_intents as intents
from discorder.clock import FakeClock, SystemClock
from discorder.simulator import Simulator
from discorder.simulator.payloads import load_payloads, replay_order

Start = Callable[..., Awaitable[Simulator]]
Make = Callable[[Simulator], Any]
PAYLOADS = Path(__file__).parents[2] / "discorder" / "simulator" / "payloads"


async def test_stop_leaves_no_task_and_no_descriptor(make_client: Make) -> None:
    """Whatever the connections are in the middle of."""
    tasks, descriptors = asyncio.all_tasks(), len(os.listdir("/dev/fd"))  # noqa: PTH208 - counts descriptors
    async with Simulator(rate=500, identify_spacing=0) as sim:
        clients = [await make_client(sim).dial() for _ in range(4)]
        for client in clients[:3]:
            await client.identify()
        await sim.stall()
        await sim.close(4000)
        await sim.withhold_hello()
        clients.append(await make_client(sim).dial())
    assert sim.sessions == []
    assert sim.open_connections == 0
    for client in clients:
        await client.websocket.close()
    await asyncio.sleep(0.02)
    assert asyncio.all_tasks() == tasks
    assert len(os.listdir("/dev/fd")) <= descriptors + 1  # noqa: PTH208 - the connector of the client may keep one


async def test_a_simulator_starts_once_and_can_be_started_again() -> None:
    """Twice at once is an error; it has no address while it is stopped."""
    sim = Simulator()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = sim.gateway_url
    async with sim:
        with pytest.raises(RuntimeError, match="runs already"):
            await sim.start()
    await sim.stop()
    async with sim:
        assert sim.gateway_url != sim.resume_url


async def test_the_guilds_fall_quiet_and_wake_up_on_request(make_client: Make) -> None:
    """`set_rate` acts at once, in both directions."""
    async with Simulator(guilds=1, rate=500, identify_spacing=0) as sim:
        client = await make_client(sim).dial()
        await client.identify()
        await sim.wait_for(lambda: len(sim.sent) > 10)
        await sim.set_rate(0)
        assert sim.connected_shards == [0]
        before = len(sim.sent)
        await asyncio.sleep(0.04)
        assert len(sim.sent) == before
        await sim.set_rate(500)
        await sim.wait_for(lambda: len(sim.sent) > before)
        with pytest.raises(ValueError, match="at least 0"):
            await sim.set_rate(-1)
        await client.websocket.close()


async def test_addresses_of_a_proxy_are_handed_out_in_place_of_its_own(make_client: Make) -> None:
    """By READY, and by GET /gateway/bot."""
    async with Simulator(guilds=1, identify_spacing=0) as sim:
        sim.advertise("ws://127.0.0.1:1", "ws://127.0.0.1:2")
        client = await make_client(sim).dial()
        ready = await client.identify()
        assert ready["resume_gateway_url"] == "ws://127.0.0.1:2"
        async with aiohttp.ClientSession() as http, http.get(f"{sim.api_url}/gateway") as answer:
            assert (await answer.json())["url"] == "ws://127.0.0.1:1"
        await client.websocket.close()


async def test_a_taken_port_is_an_error_that_leaves_nothing_behind() -> None:
    """OSError, on either port; the other one is free again."""
    async with Simulator() as first:
        port = int(first.gateway_url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="address"):
            await Simulator(resume_port=port).start()
        with pytest.raises(OSError, match="address"):
            await Simulator(port=port).start()


@pytest.mark.parametrize("rate", [50, 5000])
async def test_the_world_lives_at_its_rate(start_simulator: Start, make_client: Make, rate: int) -> None:
    """Over two seconds of the clock, within two per cent."""
    clock = FakeClock()
    sim = await start_simulator(rate=rate, clock=clock, history=10**6)
    client = await make_client(sim).dial()
    await client.identify()
    before = len(sim.sent)

    async def turn() -> None:
        await asyncio.sleep(0)

    await clock.advance(2, settle=turn)
    assert len(sim.sent) - before == pytest.approx(2 * rate, rel=0.02)


async def test_the_real_clock_keeps_the_rate_too(start_simulator: Start, make_client: Make) -> None:
    """400 events at 2000 a second take a fifth of a second, not much less."""
    sim = await start_simulator(rate=2000)
    client = await make_client(sim).dial()
    await client.identify()
    clock = SystemClock()
    start, before = clock.monotonic(), len(sim.sent)
    await sim.wait_for(lambda: len(sim.sent) - before >= 400)
    assert clock.monotonic() - start >= 0.15


async def test_intents_and_shards_decide_who_sees_an_event(start_simulator: Start, make_client: Make) -> None:
    """Guild events go to the guild's shard, direct messages to shard 0, and only to those who asked."""
    sim = await start_simulator(rate=2000, guilds=4, keep_documents=True)
    sessions = {}
    for shard, bits in ((0, intents.GUILD_MESSAGES), (1, intents.GUILD_MESSAGES), (0, intents.ALL)):
        ready = await (await make_client(sim).dial()).identify(shard=[shard, 2], intents=bits, guilds=0)
        sessions[ready["session_id"]] = (shard, bits, {stub["id"] for stub in ready["guilds"]})
    await sim.wait_for(lambda: len(sim.sent) > 600)
    kinds: dict[str, set[str]] = {session: set() for session in sessions}
    for document in sim.sent_documents:
        shard, bits, guilds = sessions[document.session_id]
        if document.type in {"READY", "GUILD_CREATE"}:
            continue
        kinds[document.session_id].add(document.type)
        d = msgspec.json.decode(document.data)
        assert (d["guild_id"] in guilds) if "guild_id" in d else (shard == 0 and bits & intents.DIRECT_MESSAGES)
        if document.type == "MESSAGE_CREATE" and not bits & intents.MESSAGE_CONTENT:
            assert d["content"] == ""
    narrow = {"MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE"}
    assert [kinds[session] <= narrow for session in sessions] == [True, True, False]
    assert len(list(kinds.values())[2]) >= 10


@pytest.mark.parametrize(
    ("bits", "event_type", "in_guild", "seen"),
    [
        (0, "INTERACTION_CREATE", True, True),
        (0, "SOME_FUTURE_EVENT", True, True),
        (0, "GUILD_MEMBERS_CHUNK", True, True),
        (0, "CHANNEL_INFO", True, True),
        (intents.GUILDS, "THREAD_MEMBERS_UPDATE", True, True),
        (intents.GUILD_MEMBERS, "THREAD_MEMBERS_UPDATE", True, True),
        (intents.GUILD_MEMBERS, "THREAD_MEMBER_UPDATE", True, False),
        (intents.GUILDS, "GUILD_MEMBER_ADD", True, False),
        (intents.GUILDS, "GUILD_BAN_ADD", True, False),
        (intents.GUILDS, "CHANNEL_PINS_UPDATE", False, False),
        (intents.DIRECT_MESSAGES, "CHANNEL_PINS_UPDATE", False, True),
        (intents.GUILD_MESSAGES, "MESSAGE_CREATE", False, False),
        (intents.GUILD_MESSAGES, "MESSAGE_REACTION_ADD", True, False),
        (intents.DIRECT_MESSAGE_POLLS, "MESSAGE_POLL_VOTE_ADD", False, True),
        (intents.GUILDS, "VOICE_CHANNEL_STATUS_UPDATE", True, True),
        (intents.GUILDS, "VOICE_CHANNEL_EFFECT_SEND", True, False),
        (intents.GUILD_VOICE_STATES, "VOICE_STATE_UPDATE", True, True),
    ],
)
def test_the_intent_table(bits: int, event_type: str, in_guild: bool, seen: bool) -> None:
    """docs/protocol.md#intents."""
    assert intents.allows(bits, event_type, in_guild=in_guild) is seen


def test_intent_masks_are_the_documented_ones() -> None:
    """docs/protocol.md#intents."""
    assert (intents.ALL, intents.UNPRIVILEGED, intents.PRIVILEGED) == (53_608_447, 53_575_421, 33_026)


async def test_the_same_seed_gives_the_same_events(start_simulator: Start, make_client: Make) -> None:
    """In the same order, at the same moments of a clock."""

    async def events(seed: int) -> list[tuple[str, bytes]]:
        clock = FakeClock()
        sim = await start_simulator(seed=seed, clock=clock, keep_documents=True)
        await (await make_client(sim).dial()).identify()
        before = len(sim.sent_documents)
        await sim.set_rate(100)
        await clock.advance(2.0)
        return [(document.type, document.data) for document in sim.sent_documents[before:]]

    first = await events(1)
    assert len(first) > 100
    assert first == await events(1)
    assert first != await events(2)


def test_the_payloads_are_the_files_without_their_white_space() -> None:
    """All 135 of 79 types, in an order that starts with READY and ends with the loss of the guild."""
    order = replay_order()
    assert len(order) == len(load_payloads()) == len(list(PAYLOADS.glob("*.json"))) == 135
    assert len({payload.type for payload in order}) == 79
    names = [payload.name for payload in order]
    assert names[:5] == ["READY.no_shard_no_guilds", "READY", "GUILD_CREATE", "MESSAGE_CREATE", "MESSAGE_CREATE.poll"]
    assert {name.split(".")[0] for name in names[-2:]} == {"GUILD_DELETE"}
    for payload in order:
        frame = msgspec.json.decode((PAYLOADS / f"{payload.name}.json").read_bytes())
        assert msgspec.json.decode(payload.data) == frame["d"]
        assert b"\n" not in payload.data


async def test_types_can_be_left_out_of_the_play(start_simulator: Start, make_client: Make) -> None:
    """For a client that takes a second READY for a breach."""
    sim = await start_simulator(guilds=0)
    await (await make_client(sim).dial()).identify()
    await sim.play_all_payloads(without={"READY", "RESUMED"})
    assert len(sim.sent) == 1 + 135 - 3


async def test_records_forget_their_older_half(start_simulator: Start, make_client: Make) -> None:
    """A simulator that runs for days does not fill the memory."""
    sim = await start_simulator(guilds=0, history=10)
    await (await make_client(sim).dial()).identify()
    for _ in range(30):
        await sim.dispatch("X", {})
    assert 5 <= len(sim.sent) <= 10
    assert sim.sent[-1][1] == 31


async def test_waiting_ends_with_the_change_or_with_a_timeout(start_simulator: Start) -> None:
    """TimeoutError for what does not come."""
    sim = await start_simulator()
    with pytest.raises(TimeoutError):
        await sim.wait_for(lambda: sim.connects, timeout=0.01)


async def test_non_websocket_requests_beside_the_api_are_404(start_simulator: Start) -> None:
    """On both hosts, as JSON."""
    sim = await start_simulator()
    async with aiohttp.ClientSession() as http:
        for url in (sim.gateway_url + "/", sim.resume_url + "/api/v10/gateway"):
            async with http.get(url.replace("ws:", "http:")) as response:
                assert response.status == 404
                assert (await response.json())["code"] == 0
