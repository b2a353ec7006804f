"""When Discord is asked what it allows, and what is made of the answer."""

from __future__ import annotations

from asyncio import gather

import pytest

from discorder.clock import FakeClock
from discorder.errors import ConnectFailed
from discorder.sessions import MemorySessionStore, StartLimit
from discorder.sessions.allowance import Allowance
from discorder.sessions.bookkeeper import Bookkeeper

HOUR_MS = 3_600_000
LIMIT = StartLimit(1000, 900, HOUR_MS, 2)


class Asking:
    """An allowance, and Discord, which answers after ``seconds``."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[float] = []
        self.seconds = 0.0
        self.answer: StartLimit | Exception = LIMIT
        self.keeper = Bookkeeper(MemorySessionStore())
        self.allowance = Allowance(clock, self.keeper, self.look_up)

    async def look_up(self) -> StartLimit:
        self.asked.append(self.clock.monotonic())
        if self.seconds:
            await self.clock.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def asking(clock: FakeClock) -> Asking:
    return Asking(clock)


async def test_who_has_heard_nothing_yet_asks(asking: Asking) -> None:
    assert await asking.allowance.refresh(30.0) == LIMIT
    assert (asking.allowance.limit, asking.allowance.age, asking.asked) == (LIMIT, 0.0, [0.0])
    look_up = asking.keeper.book.ledger.look_up
    assert look_up is not None
    assert (look_up.limit, look_up.at) == (LIMIT, asking.clock.now().timestamp())


async def test_an_answer_is_good_until_it_is_as_old_as_was_asked_for(asking: Asking) -> None:
    await asking.allowance.refresh(30.0)
    await asking.clock.advance(29.9)
    assert await asking.allowance.refresh(30.0) is None
    await asking.clock.advance(0.1)
    assert await asking.allowance.refresh(30.0) == LIMIT
    assert asking.asked == [0.0, 30.0]


async def test_an_answer_is_good_until_its_reset(asking: Asking) -> None:
    """However young it is: what was left then is not what is left now."""
    asking.answer = StartLimit(1000, 0, 20_000, 1)
    await asking.allowance.refresh(300.0)
    await asking.clock.advance(19.9)
    assert await asking.allowance.refresh(300.0) is None
    await asking.clock.advance(0.1)
    assert await asking.allowance.refresh(300.0) is not None
    assert asking.asked == [0.0, 20.0]


async def test_discord_is_not_asked_twice_within_ten_seconds(asking: Asking) -> None:
    """Counted from question to question, answered or not."""
    asking.answer = ConnectFailed("no route")
    assert await asking.allowance.refresh(1.0) is None
    await asking.clock.advance(9.9)
    assert await asking.allowance.refresh(1.0) is None
    await asking.clock.advance(0.1)
    assert await asking.allowance.refresh(1.0) is None
    assert asking.asked == [0.0, 10.0]


async def test_what_is_no_fault_of_the_network_is_raised(asking: Asking) -> None:
    asking.answer = ZeroDivisionError("a mistake")
    with pytest.raises(ZeroDivisionError):
        await asking.allowance.refresh(1.0)


async def test_after_the_end_nobody_asks(asking: Asking) -> None:
    asking.allowance.close()
    assert await asking.allowance.refresh(1.0) is None
    assert asking.asked == []


async def test_the_reset_of_a_slow_answer_is_counted_from_the_question_and_rather_late(asking: Asking) -> None:
    """To the next millisecond; one that is over already stays over."""
    asking.seconds = 2.0005
    for reset_after_ms, counted in ((HOUR_MS, HOUR_MS + 2001), (0, 0)):
        asking.answer = StartLimit(1000, 900, reset_after_ms, 2)
        limit, _ = await gather(asking.allowance.refresh(1.0), asking.clock.advance(3.0))
        assert limit == StartLimit(1000, 900, counted, 2)
        await asking.clock.advance(10.0)


async def test_without_a_way_to_ask_only_what_is_told_is_known(clock: FakeClock) -> None:
    allowance = Allowance(clock, Bookkeeper(MemorySessionStore()), None)
    assert await allowance.refresh(0.0) is None
    await allowance.heard(LIMIT, clock.now().timestamp())
    assert allowance.limit == LIMIT


async def test_what_others_use_adds_up_and_is_dated(asking: Asking) -> None:
    allowance, clock = asking.allowance, asking.clock
    for remaining, others in ((900, None), (880, 20), (880, 20), (875, 25)):
        await clock.advance(60.0)
        await allowance.heard(StartLimit(1000, remaining, HOUR_MS, 2), clock.now().timestamp())
        assert (allowance.other_use and allowance.other_use.identifies) == others
    assert allowance.other_use is not None
    assert allowance.other_use.seen_at == clock.now()
