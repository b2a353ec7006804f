"""The driver's inbox: what is processed first, what comes late, and how a breach is handled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from discorder.clock import settle_loop
from discorder.errors import Closed, TaskDied
from discorder.statemachine import State, Task
from discorder.statemachine import triggers as trigger
from discorder.statemachine.table import Name
from discorder.wire import Op

if TYPE_CHECKING:
    from tests.shard.conftest import Driven


async def test_reports_of_an_older_generation_are_dropped_and_counted(driven: Driven) -> None:
    """A report of an old connection does not count for the new one (fault case 13)."""
    driven.exchange.lines[0].lose()
    await driven.clock.advance(1.0)
    assert (driven.tracker.state, driven.tracker.generation) == (State.CONNECTING, 2)
    driven.driver.post(trigger.Hello(), generation=1)
    driven.driver.post(trigger.Closed(4004, Closed(4004, "peer")), generation=1)
    driven.driver.post(trigger.TaskFailed(Task.DOCTOR, TaskDied("late")), generation=1)
    await settle_loop()
    assert (driven.tracker.state, driven.tracker.generation) == (State.CONNECTING, 2)
    assert driven.tracker.stats.stale_count == 3
    assert driven.tracker.stats.unexpected_count == 0


async def test_a_stop_overtakes_what_waits_in_the_inbox(driven: Driven) -> None:
    """The stop is processed before the earlier Hello: no IDENTIFY is requested from the gate."""
    driven.driver.post(trigger.Hello(), generation=1)
    driven.driver.post(trigger.Reconnect(), generation=1)
    driven.driver.stop(goodbye=False)
    await settle_loop()
    await driven.task
    assert [step.target for step in driven.tracker.transitions] == [State.CONNECTING, State.STOPPING, State.EXITED]


async def test_a_ticket_that_was_granted_and_not_used_goes_back(driven: Driven) -> None:
    """Op 7 was posted before the ticket: the ticket is refunded once, and no IDENTIFY is sent."""
    driven.admits.clear()
    driven.line.hello()
    await settle_loop()
    driven.admits.set()
    driven.driver.post(trigger.Reconnect(), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert driven.exchange.lines[0].sent == []
    assert driven.refunds == 1
    assert driven.tracker.stats.identify_count == 0


async def test_a_request_that_is_not_answered_is_withdrawn_when_the_connection_ends(driven: Driven) -> None:
    """The gate can serve the other requests."""
    driven.admits.clear()
    driven.line.hello()
    await settle_loop()
    assert driven.waiting == 1
    driven.line.lose()
    await settle_loop()
    assert driven.waiting == 0


async def test_what_comes_late_from_the_wire_is_counted_and_no_breach(driven: Driven) -> None:
    """The table ignores such a trigger, so nothing fails."""
    driven.line.lose()
    await settle_loop()
    driven.driver.post(trigger.Reconnect(), generation=1)
    await settle_loop()
    assert driven.tracker.stats.unexpected_count == 1
    assert [step.target for step in driven.tracker.transitions][-1] is State.RESTARTING


async def test_the_timers_of_a_state_are_void_once_it_is_left(driven: Driven) -> None:
    """The six seconds of Unhealthy end during the next generation; the timeout is not delivered."""
    driven.line.lose()
    await driven.dials_again()
    await driven.clock.advance(9.0)
    assert driven.tracker.state is State.CONNECTING
    assert (driven.tracker.stats.unexpected_count, driven.tracker.stats.stale_count) == (0, 0)


async def test_a_trigger_of_the_wire_that_the_state_rejects_is_a_breach(driven: Driven) -> None:
    """RESUMED before Hello ends the connection, and the cause says why."""
    driven.driver.post(trigger.Resumed(), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "resumed came in Connecting" in (driven.tracker.cause or "")
    assert driven.tracker.stats.unexpected_count == 1


async def test_a_second_hello_changes_nothing(driven: Driven) -> None:
    """A gateway proxy may forward the Hello of its upstream after its own. The heartbeat keeps the first interval."""
    line = await driven.is_ready()
    line.hello(1_000)
    await settle_loop()
    assert driven.tracker.state is State.READY
    assert driven.tracker.heartbeat_interval_ms == 41_250
    assert driven.tracker.stats.odd_frames == {"a second Hello": 1}


async def test_a_resume_begins_where_the_publisher_that_must_not_lose_has_come_to(driven: Driven) -> None:
    """RESUME names an earlier sequence than the last received one: Discord resends what that publisher has not accepted."""
    line = await driven.is_ready()
    line.feed(*(line.dispatched("A", seq=seq) for seq in (2, 3, 4)))
    await settle_loop()
    driven.audit.take_in(driven.events[:2])
    line.lose()
    line = await driven.dials_again()
    line.hello()
    await settle_loop()
    assert [resume["seq"] for resume in line.ops(Op.RESUME)] == [2]


async def test_a_deadline_of_an_earlier_visit_is_ignored(driven: Driven) -> None:
    """A timer may fire just as its deadline becomes obsolete."""
    driven.driver.post(trigger.Timeout(0, TaskDied("late")), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.CONNECTING


async def test_every_step_is_recorded(driven: Driven) -> None:
    """Each record has the time, source, trigger, target, cause, generation and the milliseconds spent in the state."""
    await driven.clock.advance(2.5)
    driven.exchange.lines[0].lose(4000)
    await settle_loop()
    to_unhealthy = driven.tracker.transitions[1]
    assert (to_unhealthy.source, to_unhealthy.trigger, to_unhealthy.target) == (
        State.CONNECTING,
        Name.CLOSED,
        State.UNHEALTHY,
    )
    assert to_unhealthy.milliseconds == pytest.approx(2500.0)
    assert to_unhealthy.generation == 1
    assert "4000" in (to_unhealthy.cause or "")
    assert (to_unhealthy.at - driven.clock.now()).total_seconds() == 0.0
    assert driven.tracker.transitions.maxlen == 256
