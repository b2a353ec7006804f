"""A state that outlives its deadline is found, whatever state it is; what merely waits is not."""

from __future__ import annotations

import pytest

from discorder.clock import FakeClock
from discorder.statemachine import State
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.table import DEADLINES
from discorder.tracking.overdue import GRACE_SECONDS, find_overdue
from discorder.tracking.shard_tracker import ArmedDeadline, Backoff, ShardTracker


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def shard(clock: FakeClock) -> ShardTracker:
    return ShardTracker(3, 4, clock)


async def found_after(seconds: float, shard: ShardTracker, clock: FakeClock) -> list[str]:
    """Return what is found a second after ``seconds``; a second before, there was nothing."""
    await clock.advance(seconds - 1.0)
    assert find_overdue([shard], clock) == []
    await clock.advance(2.0)
    return find_overdue([shard], clock)


@pytest.mark.parametrize("state", sorted(DEADLINES))
async def test_each_deadline_has_a_grace(state: State, shard: ShardTracker, clock: FakeClock) -> None:
    shard.entered(state)
    shard.armed = ArmedDeadline(DEADLINES[state], clock.monotonic())
    (sentence,) = await found_after(DEADLINES[state].seconds + GRACE_SECONDS, shard, clock)
    assert sentence == f"shard 3: {state} should have ended 31 s ago"


async def test_a_replay_that_goes_on_may_take_its_time(shard: ShardTracker, clock: FakeClock) -> None:
    shard.entered(State.RESUMING)
    shard.armed = ArmedDeadline(DEADLINES[State.RESUMING], clock.monotonic())
    shard.read_last_dispatch_at = lambda: clock.monotonic() - 1.0
    await clock.advance(600.0)
    assert find_overdue([shard], clock) == []


@pytest.mark.parametrize("state", [State.DISCONNECTED, State.READY, State.RESTARTING, State.EXITED])
async def test_a_state_without_a_deadline_may_last(state: State, shard: ShardTracker, clock: FakeClock) -> None:
    """An outage of a day, a spent budget, a back-off without an end."""
    shard.entered(state)
    await clock.advance(86_400.0)
    assert find_overdue([shard], clock) == []


async def test_a_back_off_ends_when_it_is_due(shard: ShardTracker, clock: FakeClock) -> None:
    shard.entered(State.RESTARTING)
    shard.backoff = Backoff(3600.0, clock.monotonic() + 3600.0)
    assert await found_after(3600.0 + GRACE_SECONDS, shard, clock)


async def test_a_dead_connection_does_not_stay_ready(shard: ShardTracker, clock: FakeClock) -> None:
    shard.entered(State.READY)
    shard.pulse = Pulse(40.0, clock.monotonic())
    shard.pulse.sent(clock.monotonic())
    due = shard.pulse.zombie_at()
    assert due is not None
    assert await found_after(due - clock.monotonic() + GRACE_SECONDS, shard, clock)
