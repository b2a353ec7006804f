"""The arithmetic of rate limits, tested directly: its properties need thousands of orders in which answers arrive."""

from __future__ import annotations

import heapq
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.rest.limits import Bucket, Hold, Limits, SlidingWindow


def limited(now: float = 0.0, **changes: float) -> Bucket:
    bucket = Bucket()
    bucket.take(now)
    bucket.give_back(unanswered=False)
    values = {"limit": 5, "remaining": 4, "reset_after": 10.0, "reset": 100.0, **changes}
    limit, remaining = int(values["limit"]), int(values["remaining"])
    bucket.learn(now, Limits("b", limit, remaining, values["reset_after"], values["reset"]))
    return bucket


@given(
    limit=st.integers(1, 6),
    period=st.integers(1, 8),
    gaps=st.lists(st.integers(0, 3), max_size=20),
)
def test_a_window_never_lets_more_than_its_limit_through_in_any_period(
    limit: int, period: int, gaps: list[int]
) -> None:
    window = SlidingWindow(limit, period)
    now, sent = 0.0, []
    for gap in gaps:
        now += gap
        now += window.wait(now)
        assert window.check(now).allowed
        window.take(now)
        sent.append(now)
    assert all(late - early >= period for early, late in zip(sent, sent[limit:], strict=False))


def test_a_window_waits_no_longer_than_it_must() -> None:
    window = SlidingWindow(2, 10.0)
    window.take(0.0)
    window.take(4.0)
    assert window.wait(5.0) == 5.0
    assert window.wait(10.0) == 0.0


def test_a_hold_lets_nothing_through_until_its_end_and_a_shorter_one_changes_nothing() -> None:
    hold = Hold()
    hold.extend(0.0, 0.0, 8.0, "global")
    hold.extend(0.0, 0.0, 2.0, "user")
    assert (hold.check(1.0).wait, hold.check(1.0).scope) == (7.0, "global")
    assert hold.check(8.0).allowed


class FixedWindowServer:
    """Counts like Discord: a window starts with its first request; more than ``limit`` in one is what must not happen."""

    def __init__(self, limit: int, period: int) -> None:
        self.limit, self.period = limit, period
        self.used, self.ends = 0, -1
        self.worst = 0

    def arrive(self, now: int) -> Limits:
        if now >= self.ends:
            self.used, self.ends = 0, now + self.period
        self.used += 1
        self.worst = max(self.worst, self.used)
        return Limits("b", self.limit, max(0, self.limit - self.used), self.ends - now, 1_000.0 + self.ends)


@given(
    limit=st.integers(1, 5),
    period=st.integers(1, 12),
    trips=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 15)), min_size=1, max_size=40),
    named=st.booleans(),
)
def test_a_bucket_never_sends_more_than_the_server_allows_however_late_and_disordered_the_answers(
    limit: int, period: int, trips: list[tuple[int, int]], named: bool
) -> None:
    """``trips`` are the ways out and back of each request; all are sent as early as the bucket lets them."""
    server, bucket = FixedWindowServer(limit, period), Bucket()
    order = itertools.count()
    on_the_way: list[tuple[int, int, str, int, Limits | None]] = []
    waiting, now = list(trips), 0
    while waiting or on_the_way:
        while on_the_way and on_the_way[0][0] <= now:
            _, _, kind, back, limits = heapq.heappop(on_the_way)
            if kind == "out":
                told = server.arrive(now)
                told = told if named else Limits(told.bucket, told.limit, told.remaining, told.reset_after, None)
                heapq.heappush(on_the_way, (now + back, next(order), "back", 0, told))
            elif limits is not None:
                bucket.give_back(unanswered=False)
                bucket.learn(now, limits)
        while waiting and bucket.check(now).allowed:
            out, back = waiting.pop(0)
            bucket.take(now)
            heapq.heappush(on_the_way, (now + out, next(order), "out", back, None))
        if on_the_way:
            now = max(now, on_the_way[0][0]) if not waiting else now + 1
        elif waiting:
            now += 1
        assert now < 40 * (period + 25), "the bucket must not stand still"
    assert server.worst <= limit


def test_a_known_bucket_subtracts_what_is_under_way_and_is_certain_only_when_the_server_said_zero() -> None:
    bucket = limited()
    for _ in range(4):
        assert bucket.check(1.0).allowed
        bucket.take(1.0)
    assert bucket.check(1.0).wait == 9.0
    assert not bucket.check(1.0).certain
    assert limited(remaining=0).check(1.0).certain


def test_the_window_reopens_at_its_reset_with_the_full_limit() -> None:
    bucket = limited(remaining=0)
    assert not bucket.check(9.99).allowed
    assert bucket.check(10.0).allowed
    assert bucket.remaining == 5


def test_an_answer_of_an_older_window_is_ignored() -> None:
    bucket = limited(reset=100.0)
    bucket.learn(1.0, Limits("b", 5, 3, 10.0, 110.0))
    bucket.learn(2.0, Limits("b", 5, 0, 0.5, 100.0))
    assert (bucket.remaining, bucket.resets_at) == (3, 11.0)


def test_disordered_answers_of_one_window_keep_the_lowest_count() -> None:
    bucket = limited(remaining=1)
    bucket.learn(0.1, Limits("b", 5, 3, 9.9, 100.0))
    assert bucket.remaining == 1


def test_lost_answers_are_charged_but_cannot_lock_the_bucket_for_good() -> None:
    bucket = limited()
    assert bucket.check(20.0).allowed  # the window is over; the next one has not been heard of
    for _ in range(5):
        bucket.take(20.0)
        bucket.give_back(unanswered=True)
    assert bucket.remaining == 0
    assert bucket.check(20.0).allowed, "one probe"
    bucket.take(20.0)
    assert not bucket.check(20.0).allowed


def test_a_hold_names_its_scope_and_outlasts_the_window() -> None:
    bucket = limited()
    bucket.hold.extend(0.0, 0.0, 600.0, "shared")
    decision = bucket.check(15.0)
    assert (decision.wait, decision.scope, decision.certain) == (585.0, "shared", True)
    assert bucket.check(600.0).allowed


@pytest.mark.parametrize(("now", "idle"), [(5.0, False), (10.0, True)])
def test_a_bucket_is_idle_when_its_window_is_over(now: float, idle: bool) -> None:
    assert limited().is_idle(now) is idle


def test_a_bucket_under_way_or_held_is_not_idle() -> None:
    busy, held = limited(), limited()
    busy.take(0.0)
    held.hold.extend(0.0, 0.0, 60.0, "user")
    assert not busy.is_idle(30.0)
    assert not held.is_idle(30.0)
