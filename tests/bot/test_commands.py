"""Commands of a bot in another process, through the ROUTER of a whole control plane, as far as the simulator reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import discorder
from discorder.bot.subscriber import subscribe
from discorder.clock import SystemClock
from discorder.errors import CommandRefused
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.simulator import Simulator
from discorder.wire import Op, ReceivedEvent, replay_address

if TYPE_CHECKING:
    from tests.harness import Stage, StartStage

SECONDS = 30.0


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=2, identify_spacing=0.0) as simulator:
        yield simulator


@pytest.fixture
async def stage(sim: Simulator, start_stage: StartStage) -> Stage:
    """A control plane that is ready, with a bus on a port of the system's choice."""
    made = start_stage(sim, "publishers.zmq.bind=tcp://127.0.0.1:0", clock=SystemClock())
    await made.ready(within=SECONDS)
    return made


@pytest.fixture
def address(stage: Stage) -> str:
    (bus,) = (one for one in stage.tracker.publishers if isinstance(one, ZmqPublisher))
    return bus.endpoints[0]


def received(sim: Simulator, op: Op) -> list[Any]:
    return [frame.d for frame in sim.received if frame.op == op]


async def until_received(sim: Simulator, op: Op) -> Any:
    await sim.wait_for(lambda: received(sim, op), timeout=SECONDS)
    return received(sim, op)[-1]


async def test_a_presence_reaches_discord(sim: Simulator, address: str) -> None:
    async with discorder.Commands(address) as commands:
        await commands.presence(status="idle", activities=[{"name": "chess", "type": 0}])
    sent = {"since": None, "activities": [{"name": "chess", "type": 0}], "status": "idle", "afk": False}
    assert await until_received(sim, Op.PRESENCE_UPDATE) == sent


async def test_a_voice_channel_is_joined_by_the_shard_of_its_guild(sim: Simulator, address: str) -> None:
    async with discorder.Commands(address) as commands:
        await commands.voice_state(41771983423143937, 99, self_deaf=True)
    sent = {"guild_id": "41771983423143937", "channel_id": "99", "self_mute": False, "self_deaf": True}
    assert await until_received(sim, Op.VOICE_STATE_UPDATE) == sent


async def test_members_come_on_the_bus_with_the_returned_nonce(sim: Simulator, address: str) -> None:
    async with subscribe(address, types="GUILD_MEMBERS_CHUNK", start="oldest") as events:
        async with discorder.Commands(address) as commands:
            nonce = await commands.members(sim.guild_ids[0], query="", limit=5)
        async with asyncio.timeout(SECONDS):
            chunk = await anext(events)
    assert isinstance(chunk, ReceivedEvent)
    data = chunk.json()
    assert data["nonce"] == nonce
    assert data["chunk_index"] == data["chunk_count"] - 1, "the last one"


async def test_a_request_for_members_has_a_limit_that_fits_its_query(sim: Simulator, address: str) -> None:
    async with discorder.Commands(address) as commands:
        await commands.members(sim.guild_ids[0], query="a")
        assert (await until_received(sim, Op.REQUEST_GUILD_MEMBERS))["limit"] == 100
        await commands.members(sim.guild_ids[0], query="a", limit=3)
    assert [body["limit"] for body in received(sim, Op.REQUEST_GUILD_MEMBERS)] == [100, 3]


async def test_a_refusal_says_why_and_when(address: str) -> None:
    async with discorder.Commands(address) as commands:
        with pytest.raises(CommandRefused, match="status is 'asleep'") as refused:
            await commands.presence(status="asleep")
        assert refused.value.reason == "invalid"
        with pytest.raises(CommandRefused) as refused:
            await commands.presence(activities=[{"name": "x" * 5_000, "type": 0}])
        assert refused.value.reason == "too_large"
        with pytest.raises(CommandRefused) as refused:
            await commands.presence(shard=7)
        assert refused.value.reason == "no_such_shard"
        with pytest.raises(CommandRefused, match="no command 'dance'") as refused:
            await commands.send("dance", {})
        assert refused.value.reason == "invalid"
        with pytest.raises(CommandRefused, match="user_ids or a query, not both") as refused:
            await commands.members(1, query="ann", limit=1, user_ids=[2])
        assert refused.value.reason == "invalid"


async def test_a_command_may_wait_for_a_session(sim: Simulator, stage: Stage, address: str) -> None:
    """Without ``wait`` it is refused while the shard is paused; with it, it is sent once the shard is Ready."""
    stage.tracker.pause_shard(0)
    async with discorder.Commands(address) as commands, discorder.Commands(address, wait=60.0) as patient:
        reason = ""
        async with asyncio.timeout(SECONDS):
            while reason != "not_ready":
                try:
                    await commands.voice_state(sim.guild_ids[0], None)
                except CommandRefused as refused:
                    reason = refused.reason
        before = len(received(sim, Op.VOICE_STATE_UPDATE))
        waiting = asyncio.create_task(patient.voice_state(sim.guild_ids[0], 99))
        with pytest.raises(CommandRefused):
            await commands.voice_state(sim.guild_ids[0], None)
        stage.tracker.unpause_shard(0)
        await sim.wait_for(lambda: len(received(sim, Op.VOICE_STATE_UPDATE)) > before, timeout=SECONDS)
        await waiting
    assert received(sim, Op.VOICE_STATE_UPDATE)[-1]["channel_id"] == "99"


@pytest.mark.parametrize("wait", [-1.0, 600.5, float("nan")])
def test_a_wait_that_the_control_plane_refuses_is_refused_at_once(wait: float) -> None:
    with pytest.raises(ValueError, match="must be 0 to 600"):
        discorder.Commands(wait=wait)


async def test_whole_guilds_are_limited_and_the_refusal_says_when(sim: Simulator, start_stage: StartStage) -> None:
    intents = 'gateway.intents=["guilds", "guild_members"]'
    stage = start_stage(sim, "publishers.zmq.bind=tcp://127.0.0.1:0", intents, clock=SystemClock())
    await stage.ready(within=SECONDS)
    (bus,) = (one for one in stage.tracker.publishers if isinstance(one, ZmqPublisher))
    async with discorder.Commands(bus.endpoints[0]) as commands:
        await commands.members(sim.guild_ids[0])
        with pytest.raises(CommandRefused) as refused:
            await commands.members(sim.guild_ids[0])
    assert refused.value.reason == "rate_limited"
    assert refused.value.retry_after is not None
    assert 25 < refused.value.retry_after <= 31


@pytest.mark.heavy
async def test_of_a_burst_of_presences_the_last_one_is_shown(sim: Simulator, address: str) -> None:
    """Five go out; of those that Discord's limit delays only the newest is kept, and the answer says for how long."""
    async with discorder.Commands(address) as commands:
        answers = [
            await commands.send("presence", {"status": "idle", "activities": [{"name": str(number), "type": 0}]})
            for number in range(12)
        ]
    assert ["deferred" in answer for answer in answers] == [False] * 5 + [True] * 7
    assert all(0 < answer["deferred"] <= 21 for answer in answers[5:])
    await sim.wait_for(lambda: len(received(sim, Op.PRESENCE_UPDATE)) == 6, timeout=SECONDS)
    shown = [d["activities"][0]["name"] for d in received(sim, Op.PRESENCE_UPDATE)]
    assert shown == ["0", "1", "2", "3", "4", "11"]
    assert sim.violations == []


async def test_a_command_never_waits_for_a_session(sim: Simulator, stage: Stage, address: str) -> None:
    async with discorder.Commands(address) as commands:
        stage.tracker.throw_to("processor", RuntimeError("a failure"))
        await stage.until(lambda: stage.tracker.state != "Ready")
        with pytest.raises(CommandRefused) as refused:
            await commands.presence()
        assert refused.value.reason == "not_ready"


async def test_a_command_without_a_control_plane_is_refused_in_time(tmp_path: Path) -> None:
    async with discorder.Commands(f"ipc://{tmp_path}/bus", timeout=0.1) as commands:
        with pytest.raises(CommandRefused, match="does the control plane run") as refused:
            await commands.presence()
    assert refused.value.reason == "no_answer"


async def test_the_router_answers_with_the_ready_of_the_session(stage: Stage, address: str) -> None:
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(replay_address(address))
    dealer.send(b'{"v":1,"id":7,"op":"ready","shard":0}')
    number, topic, document = await asyncio.to_thread(dealer.recv_multipart)
    assert (number, topic) == (b"7", b"READY")
    ready = next(event for event in stage.recorder.events if event.type == "READY")
    assert b'"session_id"' in document
    assert ready.data in document
    dealer.close(linger=0)
    context.term()
