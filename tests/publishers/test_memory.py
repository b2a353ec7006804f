"""A publisher that hangs uses no more memory than its bounds allow, however many events arrive meanwhile (fault case 18)."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from discorder.clock import settle_loop
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut
from discorder.publishers.delivery.position import HOLD_BYTES
from discorder.publishers.delivery.queue import BATCH_BYTES
from discorder.publishers.options import Overflow
from discorder.wire import Event

MEGABYTE = 1_000_000
QUEUE = 8 * MEGABYTE
SLACK = 2 * MEGABYTE  # for the test, the loop and the bookkeeping


class Hanging:
    """A publisher whose publish never returns."""

    name = "hanging"
    durable = True

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None: ...


class Bus(Hanging):
    """A publisher with `publish_nowait` that builds every document, as ZeroMQ does. The event keeps the document."""

    name = "bus"
    carried = 0

    def publish_nowait(self, events: Sequence[Event]) -> int:
        self.carried += sum(len(event.document) for event in events)
        return len(events)


def guild(seq: int) -> Event:
    return Event("GUILD_CREATE", (0, 1), seq, None, "0" * 16, datetime(2026, 1, 1, tzinfo=UTC), b"x" * MEGABYTE)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("overflow", list(Overflow))
@pytest.mark.usefixtures("traced")
async def test_a_burst_of_large_guilds_stays_within_the_bounds(fan_out: FanOut, overflow: Overflow) -> None:
    bus = Bus()
    fan_out.add(Hanging(), DeliveryOptions(overflow=overflow, max_bytes=QUEUE))
    fan_out.add(bus)
    await fan_out.open()
    shard = fan_out.shard(0)
    waiting = QUEUE + (HOLD_BYTES if overflow is Overflow.BLOCK else 0)
    before, peak = tracemalloc.get_traced_memory()[0], 0
    for seq in range(1, 91):
        shard.hand_over([guild(seq)])
        await settle_loop(2)
        peak = max(peak, tracemalloc.get_traced_memory()[0] - before)
        assert fan_out.health[0].queued_bytes <= waiting
    assert bus.carried > 90 * MEGABYTE, "nobody else is held up"
    assert peak <= 2 * (waiting + BATCH_BYTES) + SLACK, (
        "data and document of each event that waits, and one batch in hand"
    )
    assert peak >= waiting, "the bounds are used"
