"""The bot's end of the bus, against a real publisher."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from discorder.bot.commands import Commands
from discorder.bot.subscriber import CurveKeys, Subscription, subscribe
from discorder.curve import generate
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.subscriptions import connections
from discorder.wire import Event, ReceivedEvent

OWN = 2  # subscriptions besides the given types: gaps and positions
MOMENT = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)


class Message(msgspec.Struct):
    content: str


@pytest.fixture
async def bus() -> AsyncIterator[ZmqPublisher]:
    """An open bus on a port of the system's choice."""
    made = ZmqPublisher("tcp://127.0.0.1:*")
    await made.open()
    yield made
    await made.close()


def event(seq: int, kind: str = "MESSAGE_CREATE", data: bytes = b'{"content":"hi"}') -> Event:
    return Event(kind, (0, 1), seq, seq - 1, "0123456789abcdef", MOMENT, data)


async def subscribed(bus: ZmqPublisher, count: int) -> None:
    async with asyncio.timeout(5):
        while bus.subscriptions != count:  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
            await asyncio.sleep(0.005)


async def take(events: Subscription[ReceivedEvent], count: int) -> Sequence[int | None]:
    async with asyncio.timeout(5):
        return [(await event_of(events)).seq for _ in range(count)]


async def event_of(events: Subscription[ReceivedEvent]) -> ReceivedEvent:
    """The next item, which must be an event."""
    item = await anext(events)
    assert isinstance(item, ReceivedEvent), item
    return item


async def test_an_event_arrives_typed_with_its_data_unchanged(bus: ZmqPublisher) -> None:
    data = '{"content":"نمر",  "n":123456789012345678901234567890}'.encode()
    async with subscribe(bus.endpoints[0]) as events:
        await subscribed(bus, 1)
        bus.publish_nowait([event(7, data=data)])
        received = await event_of(events)
    assert (received.type, received.shard, received.seq, received.prev) == ("MESSAGE_CREATE", (0, 1), 7, 6)
    assert (received.session, received.timestamp, received.data) == ("0123456789abcdef", MOMENT, data)
    assert received.json()["content"] == received.decode(Message).content == "نمر"
    assert repr(received) == f"<MESSAGE_CREATE shard=0/1 seq=7 data={len(data)} bytes>"


async def test_types_are_compared_exactly_although_topics_match_by_prefix(bus: ZmqPublisher) -> None:
    async with subscribe(bus.endpoints[0], types=["MESSAGE_DELETE", "READY"]) as events:
        await subscribed(bus, 2 + OWN)
        kinds = ["MESSAGE_DELETE", "MESSAGE_DELETE_BULK", "MESSAGE_CREATE", "READY"]
        bus.publish_nowait([event(seq, kind) for seq, kind in enumerate(kinds, 1)])
        assert await take(events, 2) == [1, 4]


async def test_one_type_may_be_given_as_a_plain_string(bus: ZmqPublisher) -> None:
    async with subscribe(bus.endpoints[0], types="READY") as events:
        await subscribed(bus, 1 + OWN)
        bus.publish_nowait([event(1), event(2, "READY")])
        assert await take(events, 1) == [2]


async def test_a_flood_arrives_in_order_and_lets_other_tasks_run(bus: ZmqPublisher) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with subscribe(bus.endpoints[0]) as events:
        await subscribed(bus, 1)
        bus.publish_nowait([event(seq) for seq in range(1, 5001)])
        counting = asyncio.create_task(count_turns())
        assert await take(events, 5000) == list(range(1, 5001))
        counting.cancel()
    assert turns >= 10


async def test_events_that_come_one_by_one_each_wake_the_bot(bus: ZmqPublisher) -> None:
    """Also those that come while the bot is busy with the one before."""
    async with subscribe(bus.endpoints[0]) as events:
        await subscribed(bus, 1)
        for seq in range(1, 200, 2):
            bus.publish_nowait([event(seq)])
            assert await take(events, 1) == [seq]
            bus.publish_nowait([event(seq + 1)])
            await asyncio.sleep(0.001)
            assert await take(events, 1) == [seq + 1]


async def test_closing_ends_an_iteration_that_waits_and_leaves_nothing(bus: ZmqPublisher) -> None:
    threads = threading.active_count()
    events = subscribe(bus.endpoints[0])
    reading = asyncio.create_task(anext(events))
    await subscribed(bus, 1)
    await events.aclose()
    await events.aclose()
    with pytest.raises(StopAsyncIteration):
        await reading
    assert [left async for left in events] == []
    assert threading.active_count() == threads
    async with asyncio.timeout(5):
        while connections(bus.endpoints):  # noqa: ASYNC110  # the kernel reports them only when asked
            await asyncio.sleep(0.005)


async def test_breaking_out_of_the_loop_is_enough(bus: ZmqPublisher) -> None:
    threads = threading.active_count()

    async def first_two() -> list[int | None]:
        seen: list[int | None] = []
        async for received in subscribe(bus.endpoints[0]):
            assert isinstance(received, ReceivedEvent)
            seen.append(received.seq)
            if len(seen) == 2:
                break
        return seen

    reading = asyncio.create_task(first_two())
    await subscribed(bus, 1)
    bus.publish_nowait([event(1)])
    await asyncio.sleep(0.01)
    bus.publish_nowait([event(2)])
    assert await reading == [1, 2]
    gc.collect()
    assert threading.active_count() == threads


async def test_the_bus_may_come_later_and_come_back() -> None:
    first = ZmqPublisher("tcp://127.0.0.1:*")
    await first.open()
    address = first.endpoints[0]
    await first.close()
    bus = ZmqPublisher(address)
    async with subscribe(address) as events:
        for seq in (1, 2):
            await bus.open()
            reading = asyncio.create_task(take(events, 1))  # ZeroMQ subscribes anew only while somebody reads
            await subscribed(bus, 1)
            bus.publish_nowait([event(seq)])
            assert await reading == [seq]
            await bus.close()


async def test_another_program_at_the_address_is_an_error_that_names_it() -> None:
    context = zmq.Context()
    stranger = context.socket(zmq.XPUB)
    port = stranger.bind_to_random_port("tcp://127.0.0.1")
    async with subscribe(f"tcp://127.0.0.1:{port}") as events:
        await asyncio.to_thread(stranger.recv)  # the subscription
        good = [b"MESSAGE_CREATE", event(1).document]
        for frames in (
            [b"one frame"],
            [*good, b"a third frame"],
            [b"READY", b"not json"],
            [b"READY", b'{"type":"READY"}'],
            [b"\xff", b"{}"],
        ):
            stranger.send_multipart(frames)
            with pytest.raises(
                ValueError, match=f"tcp://127.0.0.1:{port} carries something else than Discorder's events"
            ):
                await anext(events)
        stranger.send_multipart(good)
        assert await take(events, 1) == [1]
    stranger.close(linger=0)
    context.term()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "6000",
        "127.0.0.1:6000",
        "tcp://*:6000",
        "tcp://127.0.0.1:0",
        "http://x:1",
        "mqtt://x",
        "nats:/x:1",
        "ipc://",
    ],
)
def test_an_address_that_is_no_endpoint_is_refused(address: str) -> None:
    bus = "is not an endpoint; allowed: tcp://HOST:PORT and ipc://PATH"
    with pytest.raises(ValueError, match=f"{bus}.*nats:// and tls:// for NATS; redis:// and rediss:// for Redis"):
        subscribe(address)
    with pytest.raises(ValueError, match=f"{bus}.*nats:// and tls:// for NATS$"):
        Commands(address)


@pytest.mark.parametrize("start", ["newest", "Oldest", 0, None])
@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:6000", "ipc:///tmp/none", ["ipc:///tmp/none", "ipc:///tmp/other"]]
)
def test_a_start_that_is_none_is_refused(address: Any, start: Any) -> None:
    with pytest.raises(ValueError, match=f'start is {start!r}, and must be "now" or "oldest"'):
        subscribe(address, start=start)


async def test_a_tilde_is_the_home_directory_on_both_sides_of_the_bus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = {name: generate(tmp_path / name)[2] for name in ("bus", "bot")}
    bus = ZmqPublisher(
        "ipc://~/bus.sock",
        curve_secret_file="~/bus.key_secret",
        curve_clients=[made["bot"]],
        replay="ipc://~/replay.sock",
    )
    await bus.open()
    keys = CurveKeys(made["bus"], "~/bot.key_secret")
    async with subscribe("ipc://~/bus.sock", ["MESSAGE_CREATE"], keys=keys, live_only=True) as events:
        await subscribed(bus, 1 + OWN)
        bus.publish_nowait([event(1)])
        assert await take(events, 1) == [1]
    await bus.close()


@pytest.mark.parametrize("types", [[], [""], ""])
def test_empty_types_are_refused(types: list[str] | str) -> None:
    with pytest.raises(ValueError, match="types names no event"):
        subscribe(types=types)
