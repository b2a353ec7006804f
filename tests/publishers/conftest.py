"""Helpers that the tests of publishers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest

from discorder.clock import FakeClock
from discorder.publishers.delivery.fanout import FanOut
from discorder.wire import Event

MakeEvent = Callable[..., Event]


@pytest.fixture
def make_event() -> MakeEvent:
    """Return a function that makes an event with a given seq."""

    def make(
        seq: int,
        kind: str = "MESSAGE_CREATE",
        data: bytes = b"{}",
        *,
        shard: tuple[int, int] = (0, 1),
        session: str = "0123456789abcdef",
        prev: int | None = None,
    ) -> Event:
        return Event(kind, shard, seq, prev, session, datetime(2026, 1, 1, tzinfo=UTC), data)

    return make


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that only the test moves."""
    return FakeClock()


@pytest.fixture
async def fan_out(clock: FakeClock) -> AsyncIterator[FanOut]:
    """A fan-out on a clock that the test moves. It is closed afterwards, within a second whatever its publishers do."""
    made = FanOut(clock)
    yield made
    closing = asyncio.create_task(made.close())
    await clock.advance(1.0)
    assert closing.done()
    await closing
