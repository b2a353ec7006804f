"""The two clocks are compared once a second: what counts as a jump, and what is drift."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from discorder.runtime.ticker import ClockWatch

START = datetime(2026, 1, 1, tzinfo=UTC)


def looked(*steps: tuple[float, float]) -> list[str]:
    """Return the result of each check, after (wall, monotonic) seconds; "" for no jump."""
    watch, wall, monotonic = ClockWatch(1.0, START, 100.0), START, 100.0
    said = []
    for on_the_wall, passed in steps:
        wall += timedelta(seconds=on_the_wall)
        monotonic += passed
        said.append(str(watch.check(wall, monotonic) or ""))
    return said


def test_clocks_that_run_on_say_nothing() -> None:
    """A loop that is a little late causes no jump on either clock."""
    assert looked((1.0, 1.0), (5.9, 5.9), (1.0, 1.2)) == ["", "", ""]


def test_a_drift_never_adds_up() -> None:
    """NTP slews by a few seconds an hour; each check starts anew."""
    assert looked(*[(1.5, 1.0)] * 3600) == [""] * 3600


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ((601.0, 1.0), "the wall clock went 600.0 s ahead"),
        ((-3599.0, 1.0), "the wall clock went 3600.0 s back"),
        ((6.1, 1.0), "the wall clock went 5.1 s ahead"),
        ((601.0, 601.0), "this process stood still for 600.0 s"),
        ((6.0, 1.0), ""),
    ],
)
def test_a_jump_is_named_once(step: tuple[float, float], says: str) -> None:
    """The host was suspended, a clock was set, or the process was stopped. The next check reports nothing."""
    assert looked((1.0, 1.0), step, (1.0, 1.0)) == ["", says, ""]
