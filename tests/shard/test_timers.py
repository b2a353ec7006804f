"""The timers of the driver: when they fire, and that leaving a state cancels them."""

from __future__ import annotations

import random
from datetime import timedelta

from discorder.clock import FakeClock
from discorder.shard.state_work import StateTimers
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.backoff import Window
from discorder.statemachine.terms import Deadline, Keeper

SHORT, LONG = Window(1.0, 1.0), Window(4.0, 4.0)


async def test_a_restart_waits_for_the_longest_of_its_windows() -> None:
    """The back-off and the pause that the cause requires run side by side."""
    clock, posted = FakeClock(), list[trigger.Trigger]()
    timers = StateTimers(clock, random.Random(0), posted.append)
    assert timers.schedule_restart(command.ScheduleRestart((SHORT, LONG), None)) == 4.0
    await clock.advance(3.9)
    assert posted == []
    await clock.advance(0.2)
    assert posted == [trigger.RestartDue()]


async def test_a_parked_shard_waits_until_the_moment_that_the_gate_named() -> None:
    """A moment before the end of the back-off changes nothing."""
    clock, posted = FakeClock(), list[trigger.Trigger]()
    timers = StateTimers(clock, random.Random(0), posted.append)
    until = clock.now() + timedelta(seconds=90)
    assert timers.schedule_restart(command.ScheduleRestart((SHORT,), until)) == 90.0
    timers.cancel()
    early = clock.now() + timedelta(seconds=2)
    assert timers.schedule_restart(command.ScheduleRestart((LONG,), early)) == 4.0


async def test_what_was_armed_in_a_state_is_void_once_it_is_left() -> None:
    """The timeout names the visit for which it was armed."""
    clock, posted = FakeClock(), list[trigger.Trigger]()
    timers = StateTimers(clock, random.Random(0), posted.append)
    timers.arm(Deadline(0.5, Keeper.DRIVER, "the close"), 7)
    timers.schedule_restart(command.ScheduleRestart((SHORT,), None))
    timers.cancel()
    await clock.advance(60.0)
    assert posted == []
    timers.arm(Deadline(0.5, Keeper.DRIVER, "the close"), 8)
    await clock.advance(1.0)
    (timeout,) = posted
    assert isinstance(timeout, trigger.Timeout)
    assert timeout.visit == 8
    assert "the close did not come within 0.5 s" in str(timeout.error)


async def test_a_restart_that_is_woken_is_due_once_the_wait_that_was_asked_for_is_over() -> None:
    """The last window is that wait; the back-off before it is not waited for, and its timer is gone."""
    clock, posted = FakeClock(), list[trigger.Trigger]()
    timers = StateTimers(clock, random.Random(0), posted.append)
    timers.schedule_restart(command.ScheduleRestart((Window(30.0, 30.0), LONG), None))
    await clock.advance(1.0)
    assert timers.wake_restart(command.WakeRestart(None)) == 3.0
    assert timers.wake_restart(command.WakeRestart(None)) == 3.0
    await clock.advance(2.9)
    assert posted == []
    await clock.advance(60.0)
    assert posted == [trigger.RestartDue()]
    assert timers.wake_restart(command.WakeRestart(None)) == 0.0
    await clock.advance(0.0)
    assert posted == [trigger.RestartDue()] * 2


async def test_a_restart_that_is_woken_waits_for_the_moment_that_the_gate_named() -> None:
    """Also after the state was left and entered again, and when nothing was scheduled before."""
    clock, posted = FakeClock(), list[trigger.Trigger]()
    timers = StateTimers(clock, random.Random(0), posted.append)
    until = clock.now() + timedelta(seconds=90)
    assert timers.wake_restart(command.WakeRestart(until)) == 90.0
    timers.schedule_restart(command.ScheduleRestart((SHORT,), until))
    timers.cancel()
    await clock.advance(30.0)
    assert timers.wake_restart(command.WakeRestart(until)) == 60.0
