"""The line before the gate: who stands where, who is waited for, and who is woken."""

from __future__ import annotations

import asyncio

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.sessions.line import Line


@pytest.fixture
def line(clock: FakeClock) -> Line:
    return Line(clock)


def test_it_is_open_once_the_number_of_buckets_is_known(line: Line) -> None:
    known = [line.is_open]
    line.set_concurrency(1)
    known.append(line.is_open)
    assert known == [False, True]


def test_each_bucket_is_a_line_of_its_own_the_lowest_shard_first(line: Line) -> None:
    line.set_concurrency(2)
    requests = {shard: line.enter(shard, 60.0) for shard in (5, 2, 3, 0)}
    assert line.waiting == [0, 2, 3, 5]
    assert {shard: line.before(request) for shard, request in requests.items()} == {0: 0, 2: 1, 3: 0, 5: 1}
    line.leave(requests[0])
    assert line.before(requests[2]) == 0
    assert line.waiting == [2, 3, 5]


def test_of_two_requests_of_one_shard_the_first_goes_first(line: Line) -> None:
    first, second = line.enter(0, 60.0), line.enter(0, 60.0)
    assert (line.before(first), line.before(second)) == (0, 1)


def test_everybody_lines_up_anew_when_the_number_of_buckets_changes(line: Line) -> None:
    """Nobody is lost, nobody stands there twice."""
    line.set_concurrency(1)
    requests = [line.enter(shard, 60.0) for shard in range(4)]
    line.set_concurrency(2)
    assert line.waiting == [0, 1, 2, 3]
    assert [line.before(request) for request in requests] == [0, 0, 1, 1]
    for request in requests:
        line.leave(request)
    assert line.waiting == []


def test_who_leaves_is_withdrawn_and_those_behind_are_woken(line: Line) -> None:
    """Those of the other buckets have nothing to gain by it."""
    line.set_concurrency(2)
    first, behind, other = (line.enter(shard, 60.0) for shard in (0, 2, 1))
    line.leave(first)
    assert [request.withdrawn for request in (first, behind)] == [True, False]
    assert [request.woken.is_set() for request in (behind, other)] == [True, False]
    line.wake_all()
    assert other.woken.is_set()


async def test_who_was_sent_away_is_waited_for_until_it_is_long_overdue(clock: FakeClock, line: Line) -> None:
    """By those behind it in its bucket, until it comes back or a minute after that."""
    line.set_concurrency(2)
    line.send_away(2, 30.0)
    assert {shard: line.coming_back_before(shard) for shard in (0, 2, 3, 4)} == {0: 0, 2: 0, 3: 0, 4: 1}
    await clock.advance(89.9)
    assert line.coming_back_before(4) == 1
    await clock.advance(0.1)
    assert line.coming_back_before(4) == 0
    line.send_away(2, 30.0)
    line.enter(2, 60.0)
    assert line.coming_back_before(4) == 0


async def test_a_pause_ends_when_it_is_over_or_something_has_changed(clock: FakeClock, line: Line) -> None:
    request = line.enter(0, 60.0)
    pausing = asyncio.create_task(line.pause(request, 5.0))
    await clock.advance(4.9)
    assert not pausing.done()
    await clock.advance(0.1)
    assert pausing.done()
    request.woken.clear()
    pausing = asyncio.create_task(line.pause(request, 5.0))
    await settle_loop()
    line.wake(0)
    await settle_loop()
    assert pausing.done()
    assert clock.next_due() is None, "no timer is left of it"


async def test_a_pause_of_no_length_gives_the_others_their_turn(line: Line) -> None:
    """It is over after that, whatever the clock says."""
    request, turns = line.enter(0, 60.0), list[int]()
    asyncio.get_running_loop().call_soon(turns.append, 1)
    async with asyncio.timeout(5.0):
        await line.pause(request, 0.0)
    assert turns == [1]
