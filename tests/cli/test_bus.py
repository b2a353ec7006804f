"""The commands that talk to a control plane that runs: tail with replay and cursor, send, and keys for an encrypted bus."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from discorder.simulator import Simulator
from discorder.wire import Op

pytestmark = pytest.mark.system
Command = Callable[..., Awaitable[Any]]
SECONDS = 60.0


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1) as simulator:
        yield simulator


@pytest.fixture
async def endpoint(sim: Simulator, environment: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    """The bus of a control plane in a process of its own, which is ready."""
    where = f"ipc://{tmp_path}/bus"
    plane = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "discorder", "serve", "--set", f"gateway.api={sim.api_url}"),
        *("--set", f"publishers.zmq.bind={where}"),
        env=environment | {"DISCORD_BOT_TOKEN": sim.token},
        cwd=tmp_path,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await sim.wait_for(lambda: sim.connected_shards, timeout=SECONDS)
    yield where
    plane.terminate()
    await plane.wait()


async def lines(count: int, *arguments: str, environment: dict[str, str], cwd: Path) -> list[dict[str, Any]]:
    """The first lines of ``discorder tail --json``, which is stopped then."""
    tail = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "discorder", "tail", "--json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        cwd=cwd,
        limit=2**24,
    )
    assert tail.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            return [json.loads(await tail.stdout.readline()) for _ in range(count)]
    finally:
        tail.terminate()
        await tail.communicate()


async def test_tail_begins_with_what_was_before_it(
    sim: Simulator, endpoint: str, environment: dict[str, str], tmp_path: Path
) -> None:
    await sim.dispatch("TYPING_START", {"user_id": "1"})
    seen = await lines(
        2, endpoint, "--replay", "--type", "READY", "--type", "TYPING_START", environment=environment, cwd=tmp_path
    )
    assert [(event["type"], event["shard"]) for event in seen] == [("READY", [0, 1]), ("TYPING_START", [0, 1])]


async def test_tail_goes_on_where_it_was(
    sim: Simulator, endpoint: str, environment: dict[str, str], tmp_path: Path
) -> None:
    options = (endpoint, "--replay", "--type", "TYPING_START", "--cursor", str(tmp_path / "cursor"))
    for number in (1, 2, 3):
        await sim.dispatch("TYPING_START", {"user_id": str(number)})
    first = await lines(3, *options, environment=environment, cwd=tmp_path)
    assert [event["data"]["user_id"] for event in first] == ["1", "2", "3"]
    await sim.dispatch("TYPING_START", {"user_id": "4"})
    again = await lines(1, *options, environment=environment, cwd=tmp_path)
    assert again[0]["data"]["user_id"] in {"3", "4"}, "the line in hand counts when the next one is asked for"


async def test_send_reaches_discord(sim: Simulator, endpoint: str, discorder: Command) -> None:
    outcome = await discorder("send", "--address", endpoint, "presence", "idle", "--text", "resting")
    assert outcome.code == 0, outcome.err
    await sim.wait_for(lambda: [frame for frame in sim.received if frame.op == Op.PRESENCE_UPDATE], timeout=SECONDS)
    (sent,) = (frame.d for frame in sim.received if frame.op == Op.PRESENCE_UPDATE)
    activity = {"name": "Custom Status", "type": 4, "state": "resting"}
    assert (sent["status"], sent["activities"]) == ("idle", [activity])
    outcome = await discorder("send", "--address", endpoint, "members", str(sim.guild_ids[0]), "--limit", "1")
    assert re.fullmatch(r"[0-9a-f]{16}\n", outcome.out), outcome.err
    outcome = await discorder("send", "--address", endpoint, "voice-state", str(sim.guild_ids[0]), "77")
    assert outcome.code == 0, outcome.err
    await sim.wait_for(lambda: [frame for frame in sim.received if frame.op == Op.VOICE_STATE_UPDATE], timeout=SECONDS)
    outcome = await discorder(
        "send", "--address", endpoint, "command", "presence", '{"status":"asleep","activities":[]}'
    )
    assert outcome.code == 1
    assert outcome.err == "discorder: status is 'asleep'; allowed: online, dnd, idle, invisible, offline\n"


async def test_keygen_writes_a_pair_and_prints_the_public_key(discorder: Command, tmp_path: Path) -> None:
    outcome = await discorder("keygen", "bus")
    assert outcome.code == 0, outcome.err
    public = outcome.out.splitlines()[-1]
    assert len(public) == 40
    assert public in (tmp_path / "bus.key").read_text()
    assert (tmp_path / "bus.key_secret").stat().st_mode & 0o777 == 0o600
    again = await discorder("keygen", "bus")
    assert again.code == 78
    assert "exists; choose another name" in again.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("send", "command", "presence", "[]"), "the body is no JSON object"),
        (("send", "--address", "nowhere", "presence"), "is not an endpoint"),
        (("send", "--address", "redis://127.0.0.1", "presence"), "Redis carries no commands; allowed: tcp://"),
        (("tail", "mqtt://127.0.0.1"), "nats:// and tls:// for NATS; redis:// and rediss:// for Redis or Valkey"),
        (("tail", "nats://127.0.0.1", "--server-key", "k"), "--server-key is for a bus of ZeroMQ with CURVE"),
        (
            ("send", "--address", "nats://127.0.0.1", "--secret-file", "k", "presence"),
            "--secret-file is for a bus of ZeroMQ with CURVE; leave it out for nats://",
        ),
        (("tail", "--server-key", "k"), "--server-key and --secret-file go together"),
    ],
)
async def test_a_slip_of_the_finger_is_exit_code_2(discorder: Command, arguments: tuple[str, ...], reason: str) -> None:
    outcome = await discorder(*arguments)
    assert outcome.code == 2
    assert reason in " ".join(outcome.err.replace("│", " ").split())
