"""Several buses read as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.bot.positions import Gap
from discorder.bot.subscriber import Subscription, subscribe
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event, ReceivedEvent

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
BUSES = 2


@pytest.fixture
async def buses(tmp_path: Path) -> AsyncIterator[list[ZmqPublisher]]:
    """Two buses with their sockets in one folder."""
    made = [ZmqPublisher(f"ipc://{tmp_path}/{number}") for number in range(BUSES)]
    for bus in made:
        await bus.open()
    yield made
    for bus in made:
        await bus.close()


def events(shard: int, first: int, last: int) -> list[Event]:
    return [Event("A", (shard, BUSES), seq, seq - 1, f"{shard}" * 16, MOMENT, b"{}") for seq in range(first, last + 1)]


async def take(reading: Subscription[ReceivedEvent], count: int) -> dict[int, list[int | None]]:
    """Read ``count`` events; return the sequences of each shard."""
    taken: dict[int, list[int | None]] = {}
    async with asyncio.timeout(30):
        for _ in range(count):
            item = await anext(reading)
            assert not isinstance(item, Gap), item
            taken.setdefault(item.shard[0], []).append(item.seq)
    return taken


async def subscribed(*buses: ZmqPublisher) -> None:
    async with asyncio.timeout(30):
        while any(bus.subscriptions == 0 for bus in buses):  # noqa: ASYNC110  # ZeroMQ reports subscriptions only when asked
            await asyncio.sleep(0.005)


async def test_the_events_of_each_bus_come_in_their_order(buses: list[ZmqPublisher]) -> None:
    async with subscribe([bus.endpoints[0] for bus in buses]) as reading:
        await subscribed(*buses)
        for shard, bus in enumerate(buses):
            bus.publish_nowait(events(shard, 1, 500))
        assert await take(reading, 1000) == {shard: list(range(1, 501)) for shard in range(BUSES)}


async def test_a_folder_is_read_with_the_sockets_that_appear_in_it(buses: list[ZmqPublisher], tmp_path: Path) -> None:
    late = ZmqPublisher(f"ipc://{tmp_path}/{BUSES}")
    async with subscribe(f"ipc://{tmp_path}/", start="oldest") as reading:
        for shard, bus in enumerate(buses):
            bus.publish_nowait(events(shard, 1, 3))
        assert await take(reading, 6) == {0: [1, 2, 3], 1: [1, 2, 3]}
        await late.open()
        late.publish_nowait(events(BUSES, 1, 2))
        assert await take(reading, 2) == {BUSES: [1, 2]}
    await late.close()


async def test_one_cursor_remembers_how_far_each_bus_was_dealt_with(buses: list[ZmqPublisher], tmp_path: Path) -> None:
    """Also that of a bus whose event was taken in, but not dealt with."""
    addresses = [bus.endpoints[0] for bus in buses]
    for shard, bus in enumerate(buses):
        bus.publish_nowait(events(shard, 1, 5))
    async with subscribe(addresses, cursor=tmp_path / "bot.cursor", start="oldest") as reading:
        first = await take(reading, 5)
        await reading.commit()
    async with subscribe(addresses, cursor=tmp_path / "bot.cursor") as reading:
        second = await take(reading, 5)
    assert {shard: first.get(shard, []) + second.get(shard, []) for shard in range(BUSES)} == {
        shard: [1, 2, 3, 4, 5] for shard in range(BUSES)
    }


async def test_closing_ends_an_iteration_that_waits(buses: list[ZmqPublisher]) -> None:
    reading = subscribe([bus.endpoints[0] for bus in buses])
    waiting = asyncio.ensure_future(anext(reading, None))
    await subscribed(*buses)
    await reading.aclose()
    async with asyncio.timeout(30):
        assert await waiting is None


async def test_an_address_that_is_none_is_refused(buses: list[ZmqPublisher]) -> None:
    with pytest.raises(ValueError, match="names no bus"):
        subscribe([])
    with pytest.raises(ValueError, match="not an endpoint"):
        subscribe([buses[0].endpoints[0], "nonsense"])
    with pytest.raises(ValueError, match="replay"):
        subscribe([bus.endpoints[0] for bus in buses], replay="tcp://127.0.0.1:7000")
