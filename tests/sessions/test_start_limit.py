"""When the gate asks Discord for the start limit, and how it uses the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.errors import ConnectFailed
from discorder.sessions import IdentifyGate, MemorySessionStore, Refusal, StartLimit, Ticket

HOUR_MS = 3_600_000
LIMIT = StartLimit(1000, 900, HOUR_MS, 2)


class Asking:
    """A gate, and a Discord that answers after ``seconds``."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[float] = []
        self.seconds = 0.0
        self.answer: StartLimit | Exception = LIMIT
        self.gate = IdentifyGate(clock, MemorySessionStore(), look_up=self.look_up)

    async def look_up(self) -> StartLimit:
        self.asked.append(self.clock.monotonic())
        if self.seconds:
            await self.clock.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def pays(self) -> bool:
        """Return whether an IDENTIFY can be paid for; it is refunded."""
        answer = await self.gate.admit(0)
        if isinstance(answer, Ticket):
            answer.refund()
        return isinstance(answer, Ticket)

    async def tell(self, limit: StartLimit) -> None:
        self.gate.set_limits(limit)
        await self.gate.flush()


@pytest.fixture
async def asking(clock: FakeClock) -> AsyncIterator[Asking]:
    it = Asking(clock)
    yield it
    await it.gate.close()


@pytest.mark.parametrize("jump", [0.0, -3600.0])
async def test_an_answer_is_good_until_its_reset(asking: Asking, jump: float) -> None:
    """The old count does not apply after the reset, however recent the answer is, and wherever the wall clock was set."""
    await asking.tell(StartLimit(1000, 900, 20_000, 1))
    asking.clock.jump_wall(jump)
    await asking.clock.advance(19.9)
    assert await asking.pays()
    assert asking.asked == []
    await asking.clock.advance(0.1)
    assert await asking.pays()
    assert asking.asked == [20.0]


async def test_an_answer_without_a_reset_is_good_for_as_long_as_any(asking: Asking) -> None:
    await asking.tell(StartLimit(1000, 900, 0, 1))
    await asking.clock.advance(299.0)
    assert await asking.pays()
    assert asking.asked == []


async def test_discord_is_not_asked_twice_within_ten_seconds(asking: Asking) -> None:
    """The time is counted from request to request, answered or not."""
    asking.answer = ConnectFailed("no route")
    await asking.tell(LIMIT)
    for seconds in (300.0, 9.9, 0.1):
        await asking.clock.advance(seconds)
        assert await asking.pays()
    assert asking.asked == [300.0, 310.0]


async def test_what_is_no_fault_of_the_network_is_raised(asking: Asking) -> None:
    asking.answer = ZeroDivisionError("a mistake")
    await asking.tell(LIMIT)
    await asking.clock.advance(301.0)
    with pytest.raises(ZeroDivisionError):
        await asking.gate.admit(0)


@pytest.mark.parametrize(("reset_after_ms", "seconds"), [(HOUR_MS, 3600.001), (0, 60.0)])
async def test_the_reset_of_a_slow_answer_is_counted_from_the_answer_and_rather_late(
    asking: Asking, reset_after_ms: int, seconds: float
) -> None:
    """It is rounded up to the next millisecond. 0 means that no window runs, and the next try is in a minute."""
    await asking.tell(LIMIT)
    await asking.clock.advance(301.0)
    asking.seconds, asking.answer = 2.0005, StartLimit(1000, 100, reset_after_ms, 2)
    waiting = asyncio.create_task(asking.gate.admit(0))
    await settle_loop()
    await asking.clock.advance(2.0005)
    answer = waiting.result()
    assert isinstance(answer, Refusal)
    assert (
        timedelta()
        <= answer.until - asking.clock.now() - timedelta(seconds=seconds - 0.001)
        <= timedelta(seconds=0.002)
    )


async def test_what_others_use_adds_up_and_is_dated(asking: Asking) -> None:
    for remaining, others in ((900, None), (880, 20), (880, 20), (875, 25)):
        await asking.clock.advance(60.0)
        await asking.tell(StartLimit(1000, remaining, HOUR_MS, 2))
        use = asking.gate.other_use
        assert (use and use.identifies) == others
    assert use is not None
    assert use.seen_at == asking.clock.now()
