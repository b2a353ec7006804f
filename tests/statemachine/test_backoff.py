"""Back-off and suspicion as arithmetic: bounds that hold for every rung and every moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.statemachine.backoff import (
    FLOOR,
    IDENTIFY_LADDER,
    INVALIDATED,
    RATE_LIMITED,
    RESUME_LADDER,
    Ladder,
    Window,
)
from discorder.statemachine.session import Suspicion

LADDERS = st.builds(Ladder, base=st.floats(0.01, 100), cap=st.floats(1, 10_000), rung=st.integers(0, 10**9))
IDENTIFIES_PER_DAY = 1000


@pytest.mark.parametrize(
    ("window", "low", "high"), [(FLOOR, 0.25, 0.75), (INVALIDATED, 1.0, 2.0), (RATE_LIMITED, 5.0, 6.0)]
)
def test_the_fixed_waits_are_those_of_the_rules(window: Window, low: float, high: float) -> None:
    """Floor, op 9 false, 4008."""
    assert (window.low, window.high) == (low, high)


@given(LADDERS)
def test_a_rung_waits_between_the_floor_and_the_cap(ladder: Ladder) -> None:
    """Every wait lies between floor and cap, and the ladder does not overflow after months of outage."""
    window = ladder.window()
    assert FLOOR.low == window.low < window.high
    assert FLOOR.high <= window.high <= max(FLOOR.high, ladder.cap)


@given(LADDERS)
def test_climbing_never_shortens_the_wait(ladder: Ladder) -> None:
    """Each rung doubles, until the cap."""
    now, later = ladder.window().high, ladder.climbed().window().high
    assert now <= later <= max(2 * now, FLOOR.high)


@given(LADDERS)
def test_a_reset_ladder_begins_anew(ladder: Ladder) -> None:
    """Base and cap stay. The rung returns to the start."""
    assert ladder.climbed().reset() == Ladder(ladder.base, ladder.cap)


@pytest.mark.parametrize(("ladder", "base", "cap"), [(RESUME_LADDER, 1.0, 30.0), (IDENTIFY_LADDER, 5.0, 600.0)])
def test_the_two_ladders_are_those_of_the_rules(ladder: Ladder, base: float, cap: float) -> None:
    """Resume 1 to 30 s, identify 5 to 600 s."""
    assert (ladder.base, ladder.cap, ladder.rung) == (base, cap, 0)


def test_the_identify_ladder_stays_within_the_daily_budget() -> None:
    """A day of nothing but failed IDENTIFYs spends less than Discord allows, on average."""
    mean = IDENTIFY_LADDER.cap / 2
    assert 24 * 3600 / mean < IDENTIFIES_PER_DAY


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20).map(sorted))
def test_a_session_is_condemned_by_number_and_time_together(moments: list[float]) -> None:
    """Three refusals, and 180 s since the first: both are needed, and nothing else counts."""
    suspicion = Suspicion()
    for number, at in enumerate(moments, start=1):
        suspicion = suspicion.refused(at)
        assert suspicion.condemns(at) == (number >= 3 and at - moments[0] >= 180)


def test_nobody_is_condemned_unheard() -> None:
    """Without a refusal, time alone condemns no session."""
    assert not Suspicion().condemns(1e9)
