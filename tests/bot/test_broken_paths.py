"""The connections between a bot and the bus break in every way; another program answers, or none does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import zmq

import discorder
from discorder.bot import bus as bus_module
from discorder.bot import replays, sockets
from discorder.bot.subscriber import Gap, Subscription, subscribe
from discorder.errors import CommandRefused
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event
from tests.relay import relay_to

SECONDS = 60.0
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DATA = b'"' + b"x" * 2_000 + b'"'


@pytest.fixture
async def bus() -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:*")
    await made.open()
    yield made
    await made.close()


def events(first: int, last: int) -> list[Event]:
    return [Event("A", (0, 1), seq, seq - 1, "0123456789abcdef", MOMENT, DATA) for seq in range(first, last + 1)]


async def take(subscription: Subscription[Any], count: int) -> list[Any]:
    """Sequences of events; (from, to) of gaps."""
    async with asyncio.timeout(SECONDS):
        items = [await anext(subscription) for _ in range(count)]
    return [(item.from_seq, item.to_seq) if isinstance(item, Gap) else item.seq for item in items]


async def take_upto(subscription: Subscription[Any], last: int) -> list[Any]:
    seen: list[Any] = []
    while last not in seen:
        seen += await take(subscription, 1)
    return seen


async def test_a_replay_continues_after_a_reset_where_it_stopped(
    bus: ZmqPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection is reset after a tenth of it, so that starting over would never come to the end."""
    monkeypatch.setattr(replays, "ANSWER_TIMEOUT", 0.2)
    bus.publish_nowait(events(1, 1_000))
    async with relay_to(bus.replay_endpoint, reset_after=200_000) as (relay, address):  # noqa: SIM117  # it needs the address
        async with subscribe(bus.endpoints[0], start="oldest", replay=address) as reading:
            assert await take(reading, 1_000) == list(range(1, 1_001))
            bus.publish_nowait(events(1_001, 1_001))
            assert await take(reading, 1) == [1_001]
    assert relay.resets >= 9


BOT = """
import asyncio, sys, discorder
from discorder.bot import replays
replays.ANSWER_TIMEOUT = 0.03

async def main():
    async with discorder.subscribe(sys.argv[1], start="oldest", replay=sys.argv[2]) as reading:
        seen = [(await anext(reading)) for _ in range(int(sys.argv[3]))]
        print([item.seq for item in seen] == list(range(1, len(seen) + 1)))

asyncio.run(main())
"""


@pytest.mark.heavy
@pytest.mark.system
async def test_a_bot_survives_hundreds_of_resets_in_the_middle_of_answers(bus: ZmqPublisher) -> None:
    """With ZMQ_IMMEDIATE libzmq 4.3.5 aborts the process within a few of them."""
    bus.publish_nowait(events(1, 2_500))
    async with relay_to(bus.replay_endpoint, reset_after=20_000) as (relay, address):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BOT, bus.endpoints[0], address, "2500"), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(SECONDS * 2):
            out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"True\n")
    assert relay.resets >= 200


@pytest.mark.parametrize("live_only", [False, True])
async def test_a_connection_that_dies_without_a_fin_is_noticed(
    bus: ZmqPublisher, monkeypatch: pytest.MonkeyPatch, live_only: bool
) -> None:
    monkeypatch.setattr(sockets, "HEARTBEAT_EVERY_MS", 200)
    monkeypatch.setattr(sockets, "HEARTBEAT_TIMEOUT_MS", 300)
    async with relay_to(bus.endpoints[0]) as (relay, address):  # noqa: SIM117  # it needs the address
        async with subscribe(address, live_only=live_only, replay=bus.replay_endpoint) as reading:
            first = asyncio.create_task(take(reading, 1))
            while not bus.subscriptions:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
                await asyncio.sleep(0.01)
            bus.publish_nowait(events(1, 1))
            assert await first == [1]
            relay.freeze()
            bus.publish_nowait(events(2, 5))
            expected = [(2, 5)] if live_only else [2, 3, 4, 5]
            assert await take(reading, len(expected)) == expected
    assert relay.accepted >= 2


async def test_a_silent_bus_is_reconnected_and_asked_for_a_replay(
    bus: ZmqPublisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bus_module, "SILENT", 0.5)
    async with (
        relay_to(bus.endpoints[0]) as (relay, address),
        subscribe(address, replay=bus.replay_endpoint) as reading,
    ):
        first = asyncio.create_task(take(reading, 1))
        while not bus.subscriptions:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
            await asyncio.sleep(0.01)
        bus.publish_nowait(events(1, 1))
        assert await first == [1]
        relay.freeze()  # the heartbeats would take 12 s
        bus.publish_nowait(events(2, 5))
        assert await take(reading, 4) == [2, 3, 4, 5]
    assert "connecting anew" in caplog.text


ANSWERS: dict[str, Callable[[bytes], list[bytes] | None]] = {
    "one frame": lambda _: [b"pong"],
    "no JSON": lambda number: [number, b"", b"hello"],
    "no object": lambda number: [number, b"", b"[]"],
    "deep": lambda number: [number, b"", b"[" * 5_000],
    "no end": lambda number: [number, b"", b'{"ok":true}'],
    "no shards": lambda number: [number, b"", b'{"ok":true,"shards":[{"shard":5}]}'],
    "no event": lambda number: [number, b"A", b"{}"],
    "a long wait": lambda number: [number, b"", b'{"ok":false,"error":"busy","retry_after":1e300}'],
    "nothing": lambda _: None,
}


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ANSWERS)
async def test_another_program_on_the_port_of_the_router_means_no_replay(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events go on, the lost ones are a gap, and it is logged once."""
    monkeypatch.setattr(replays, "GIVE_UP", 0.5)
    bus = ZmqPublisher("tcp://127.0.0.1:*", replay="")
    await bus.open()
    context = zmq.Context()
    other = context.socket(zmq.ROUTER)
    port = other.bind_to_random_port("tcp://127.0.0.1")

    async def answer() -> None:
        while True:
            await asyncio.sleep(0.01)
            while other.poll(0):
                who, request = other.recv_multipart()
                reply = ANSWERS[kind](str(msgspec.json.decode(request)["id"]).encode())
                if reply is not None:
                    other.send_multipart([who, *reply])

    answering = asyncio.create_task(answer())
    where = f"tcp://127.0.0.1:{port}"
    async with subscribe(bus.endpoints[0], start="oldest", replay=where) as reading:
        seen = asyncio.create_task(take_upto(reading, 5))
        while not bus.subscriptions:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
            await asyncio.sleep(0.01)
        bus.publish_nowait(events(4, 4))
        await asyncio.sleep(1)
        bus.publish_nowait(events(5, 5))
        items = await seen
        gaps = [item for item in items if isinstance(item, tuple)]
        assert [item for item in items if isinstance(item, int)] == [4, 5]
        assert {seq for first, last in gaps for seq in range(first, last + 1)} >= {1, 2, 3}
    assert caplog.text.count("No replay at") == 1
    if kind in {"no end", "no shards"}:
        expected: Any = contextlib.nullcontext()  # for a command that is a whole answer
    else:
        expected = pytest.raises(CommandRefused)
    async with discorder.Commands(bus.endpoints[0], router=where, timeout=0.5) as commands:
        with expected:
            await commands.presence()
    answering.cancel()
    other.close(linger=0)
    context.term()
    await bus.close()
