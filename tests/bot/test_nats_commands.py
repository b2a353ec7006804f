"""Commands of a bot in another process, as NATS requests to a whole control plane, as far as the simulator reads them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import discorder
from discorder.clock import SystemClock
from discorder.errors import CommandRefused
from discorder.simulator import Simulator
from discorder.wire import Op
from tests.publishers.nats_server import NatsServer, connected, in_thread, read_stream

if TYPE_CHECKING:
    from tests.harness import Stage, StartStage

SECONDS = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=2, identify_spacing=0.0) as simulator:
        yield simulator


@pytest.fixture
async def stage(sim: Simulator, server: NatsServer, start_stage: StartStage) -> Stage:
    return await started(start_stage, sim, server, "commands=true")


async def started(start_stage: StartStage, sim: Simulator, server: NatsServer, *settings: str) -> Stage:
    """A control plane that is ready, whose only publisher is that of NATS."""
    table = (f'servers="{server.url}"', 'prefix="discord.bot"', "stream_bytes=50000000", *settings)
    made = start_stage(sim, *(f"publishers.nats.{one}" for one in table), clock=SystemClock())
    await made.ready(within=SECONDS)
    return made


def received(sim: Simulator, op: Op) -> list[Any]:
    return [frame.d for frame in sim.received if frame.op == op]


async def test_a_presence_reaches_discord_and_is_not_stored(sim: Simulator, server: NatsServer, stage: Stage) -> None:
    async with discorder.Commands(server.url) as commands:
        await commands.presence(status="idle", activities=[{"name": "chess", "type": 0}])
        await sim.wait_for(lambda: received(sim, Op.PRESENCE_UPDATE), timeout=SECONDS)
    sent = {"since": None, "activities": [{"name": "chess", "type": 0}], "status": "idle", "afk": False}
    assert received(sim, Op.PRESENCE_UPDATE) == [sent]
    assert not [one for one in await read_stream(server, "discord_bot") if "command" in one.subject]


async def test_members_come_through_the_stream(sim: Simulator, server: NatsServer, stage: Stage) -> None:
    async with discorder.subscribe(server.url, "GUILD_MEMBERS_CHUNK", start="oldest") as events:
        async with discorder.Commands(server.url) as commands:
            nonce = await commands.members(sim.guild_ids[0], query="a")
        async with asyncio.timeout(SECONDS):
            chunk = await anext(events)
        assert not isinstance(chunk, discorder.Gap)
        assert chunk.json()["nonce"] == nonce


async def test_a_scheme_in_upper_case(sim: Simulator, server: NatsServer, stage: Stage) -> None:
    async with discorder.Commands(server.url.replace("nats", "NATS")) as commands:
        await commands.presence(status="idle")
    await sim.wait_for(lambda: received(sim, Op.PRESENCE_UPDATE), timeout=SECONDS)


async def test_refusals_are_those_of_the_bus(server: NatsServer, stage: Stage) -> None:
    async with discorder.Commands(server.url) as commands:
        for wrong, reason in (
            (commands.send("dance", {}), "invalid"),
            (commands.presence(shard=7), "no_such_shard"),
            (commands.presence(activities=[{"name": "x" * 5000, "type": 0}]), "too_large"),
            (commands.ask("positions"), "bad_request"),
            (commands.ask("ready", shard=9), "not_ready"),
        ):
            with pytest.raises(CommandRefused) as refused:
                await wrong
            assert refused.value.reason == reason
        assert (await commands.ask("ready", shard=0))["ready"]["type"] == "READY"


async def test_any_program_sends_one_request(server: NatsServer, stage: Stage) -> None:
    async with connected(server) as client:
        wanted = {"v": 1, "id": "7", "op": "command", "command": "presence", "d": {}}
        answer = await client.request("discord.bot.command", json.dumps(wanted).encode(), timeout=SECONDS)
        assert json.loads(answer.data)["error"] == "invalid"
        answer = await client.request("discord.bot.command", b"{", timeout=SECONDS)
        assert json.loads(answer.data)["error"] == "bad_request"
        answer = await client.request("discord.bot.command", b" " * 70_000, timeout=SECONDS)
        assert "at most 65536 bytes" in json.loads(answer.data)["message"]


@pytest.mark.system
async def test_discorder_send(sim: Simulator, server: NatsServer, stage: Stage) -> None:
    command = (sys.executable, "-m", "discorder", "send", "--address", server.url, "presence", "dnd")
    process = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(SECONDS):
        assert await process.wait() == 0
    await sim.wait_for(lambda: received(sim, Op.PRESENCE_UPDATE), timeout=SECONDS)
    assert received(sim, Op.PRESENCE_UPDATE)[-1]["status"] == "dnd"


async def test_commands_are_off_unless_the_key_is_set(
    sim: Simulator, server: NatsServer, start_stage: StartStage
) -> None:
    await started(start_stage, sim, server)
    async with discorder.Commands(server.url, timeout=1.0) as commands:
        with pytest.raises(
            CommandRefused, match=r"nobody listens at discord\.bot\.command.*commands = true"
        ) as refused:
            await commands.presence()
    assert refused.value.reason == "no_answer"


async def test_commands_go_on_after_the_server_was_killed(sim: Simulator, server: NatsServer, stage: Stage) -> None:
    async with discorder.Commands(server.url, timeout=SECONDS) as commands:
        await commands.presence(status="idle")
        server.kill()
        await in_thread(server.start)
        await commands.presence(status="dnd")
    await sim.wait_for(lambda: len(received(sim, Op.PRESENCE_UPDATE)) == 2, timeout=SECONDS)


async def test_the_process_that_has_the_shard_answers(server: NatsServer) -> None:
    """Each process of a bot gets every command; an answer of one that has not the shard does not count."""

    async def serve(client: Any, answer: bytes, pause: float) -> None:
        async def reply(message: Any) -> None:
            await asyncio.sleep(pause)
            await client.publish(message.reply, answer)

        await client.subscribe("discord.bot.command", cb=reply)
        await client.flush()

    async with connected(server) as one, connected(server) as other:
        await serve(one, b'{"ok":false,"error":"no_such_shard","message":"not here"}', 0.0)
        async with discorder.Commands(f"{server.url}?prefix=discord.bot") as commands:
            with pytest.raises(CommandRefused, match="not here"):
                await commands.presence(shard=1)
            await serve(other, b'{"ok":true}', 0.1)
            await commands.presence(shard=1)


def test_arguments_of_another_bus() -> None:
    with pytest.raises(ValueError, match="router is for a bus of ZeroMQ"):
        discorder.Commands("nats://127.0.0.1:4222", router="tcp://127.0.0.1:6001")
    with pytest.raises(ValueError, match="Redis carries no commands; allowed: tcp://"):
        discorder.Commands("redis://127.0.0.1:6379")
