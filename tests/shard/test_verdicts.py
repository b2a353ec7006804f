"""The doctor alone: what it posts, when, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from discorder.clock import FakeClock
from discorder.shard.liveness import LivenessMonitor
from discorder.statemachine import State
from discorder.statemachine.heartbeat import Pulse
from discorder.statemachine.terms import Deadline, Keeper
from discorder.statemachine.triggers import Stable, Timeout, Trigger, Zombie
from discorder.tracking.shard_tracker import ShardTracker

FIVE = Deadline(5.0, Keeper.DOCTOR, "an answer")
REPLAY = Deadline(5.0, Keeper.DOCTOR, "an answer", extended_by_dispatch=True)
INTERVAL = 40.0


class Watched:
    """A running doctor, with each trigger that it posts and the time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tracker = ShardTracker(0, 1, self.clock)
        self.posted: list[tuple[float, Trigger]] = []
        self.doctor = LivenessMonitor(tracker=self.tracker, clock=self.clock, post=self.note)
        self.task = asyncio.ensure_future(self.doctor.run())

    def note(self, what: Trigger) -> None:
        self.posted.append((self.clock.monotonic(), what))

    def enter(self, state: State) -> None:
        self.tracker.entered(state)
        self.doctor.state_entered()

    @property
    def said(self) -> list[tuple[float, type[Trigger]]]:
        return [(at, type(what)) for at, what in self.posted]

    @property
    def why(self) -> str:
        """Return the text of the last error."""
        return str(getattr(self.posted[-1][1], "error", ""))


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """A doctor; it is stopped at the end of the test."""
    it = Watched()
    yield it
    it.task.cancel()
    await asyncio.gather(it.task, return_exceptions=True)


async def test_a_deadline_is_missed_once_and_not_before(watched: Watched) -> None:
    """The timeout carries the visit and says what did not arrive."""
    watched.enter(State.CONNECTING)
    watched.doctor.arm(FIVE, 3)
    await watched.clock.advance(4.9)
    assert watched.said == []
    await watched.clock.advance(60.0)
    watched.doctor.beating()  # it checks again
    await watched.clock.advance(60.0)
    assert watched.said == [(5.0, Timeout)]
    assert watched.why == "an answer did not come within 5 s"


async def test_a_state_that_is_entered_has_no_deadline_of_the_one_before(watched: Watched) -> None:
    """A timeout of the earlier state does not stop the doctor from watching the next."""
    watched.enter(State.CONNECTING)
    watched.doctor.arm(FIVE, 1)
    await watched.clock.advance(4.0)
    watched.enter(State.IDENTIFYING)
    await watched.clock.advance(10.0)
    assert watched.said == []
    watched.doctor.arm(FIVE, 2)
    await watched.clock.advance(10.0)
    watched.tracker.pulse = Pulse(INTERVAL, watched.clock.monotonic())
    watched.enter(State.READY)
    watched.tracker.pulse.sent(watched.clock.monotonic())
    watched.doctor.beating()
    await watched.clock.advance(60.0)
    assert watched.said == [(19.0, Timeout), (44.0, Zombie)]


async def test_an_event_moves_the_deadline_that_says_so_and_no_other(watched: Watched) -> None:
    """The new deadline is five seconds after the last event."""
    watched.tracker.read_last_dispatch_at = lambda: 3.0
    watched.enter(State.RESUMING)
    watched.doctor.arm(REPLAY, 1)
    await watched.clock.advance(30.0)
    watched.enter(State.IDENTIFYING)
    watched.tracker.read_last_dispatch_at = lambda: 31.0
    watched.doctor.arm(FIVE, 2)
    await watched.clock.advance(30.0)
    assert watched.said == [(8.0, Timeout), (35.0, Timeout)]


async def test_an_event_before_the_deadline_was_armed_does_not_bring_it_forward(watched: Watched) -> None:
    """The later of the two counts."""
    watched.tracker.read_last_dispatch_at = lambda: -60.0
    watched.enter(State.RESUMING)
    watched.doctor.arm(REPLAY, 1)
    await watched.clock.advance(30.0)
    assert watched.said == [(5.0, Timeout)]


async def test_a_beat_that_is_not_answered_is_a_zombie_where_there_is_a_heartbeat(watched: Watched) -> None:
    """The limit is half an interval of silence. The error gives the waiting time."""
    pulse = watched.tracker.pulse = Pulse(INTERVAL, 0.0)
    watched.enter(State.CONNECTING)
    pulse.sent(0.0)
    watched.doctor.beating()
    await watched.clock.advance(30.0)
    assert watched.said == []
    watched.enter(State.IDENTIFYING)
    await watched.clock.advance(30.0)
    assert watched.said == [(30.0, Zombie)]
    assert watched.why == "no ACK for a heartbeat sent 30.0 s ago"


async def test_a_beat_that_is_written_while_nothing_else_is_due_is_watched(watched: Watched) -> None:
    """The doctor has no other reason to wake."""
    pulse = watched.tracker.pulse = Pulse(INTERVAL, 0.0)
    watched.enter(State.IDENTIFYING)
    await watched.clock.advance(5.0)
    pulse.sent(5.0)
    watched.doctor.beating()
    await watched.clock.advance(30.0)
    assert watched.said == [(25.0, Zombie)]


async def test_a_doctor_that_was_told_nothing_yet_watches_the_connection_as_it_finds_it(watched: Watched) -> None:
    """The doctor starts between two states."""
    pulse = watched.tracker.pulse = Pulse(INTERVAL, 0.0)
    watched.tracker.entered(State.IDENTIFYING)
    pulse.sent(0.0)
    watched.doctor.beating()
    await watched.clock.advance(30.0)
    assert watched.said == [(20.0, Zombie)]


async def test_a_probe_that_is_not_answered_is_told_apart_from_a_beat_that_is_not(watched: Watched) -> None:
    """The limit is five seconds. A beat that is overdue before that is reported as a beat."""
    pulse = watched.tracker.pulse = Pulse(INTERVAL, 0.0)
    watched.enter(State.READY)
    pulse.sent(0.0)
    await watched.clock.advance(18.0)
    pulse.probe(18.0)
    watched.doctor.beating()
    await watched.clock.advance(10.0)
    assert watched.said == [(20.0, Zombie)]
    assert watched.why == "no ACK for a heartbeat sent 20.0 s ago"
    watched.enter(State.READY)
    pulse.acknowledged(28.0)
    pulse.probe(28.0)
    watched.doctor.beating()
    await watched.clock.advance(10.0)
    assert watched.said[1:] == [(33.0, Zombie)]
    assert watched.why == "no ACK within 5.0 s since the clocks jumped"


async def test_ready_is_stable_once_after_two_minutes_in_it(watched: Watched) -> None:
    """The time counts from entering Ready. No other state becomes stable."""
    watched.enter(State.IDENTIFYING)
    await watched.clock.advance(200.0)
    watched.enter(State.READY)
    await watched.clock.advance(600.0)
    assert watched.said == [(320.0, Stable)]
