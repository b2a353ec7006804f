"""The driver's inbox: what overtakes, what is late, and what becomes of a breach."""

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
    """What an old connection still has to say is not said of the new one (fault case 13)."""
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
    """Hello came first, the stop is taken first: nothing is asked of the gate."""
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
    """The gate has others to serve."""
    driven.admits.clear()
    driven.line.hello()
    await settle_loop()
    assert driven.waiting == 1
    driven.line.lose()
    await settle_loop()
    assert driven.waiting == 0


async def test_what_comes_late_from_the_wire_is_counted_and_no_breach(driven: Driven) -> None:
    """The table ignores it; nothing fails because of it."""
    driven.line.lose()
    await settle_loop()
    driven.driver.post(trigger.Reconnect(), generation=1)
    await settle_loop()
    assert driven.tracker.stats.unexpected_count == 1
    assert [step.target for step in driven.tracker.transitions][-1] is State.RESTARTING


async def test_the_timers_of_a_state_are_void_once_it_is_left(driven: Driven) -> None:
    """The six seconds of Unhealthy are over in the next generation, and nobody hears of them."""
    driven.line.lose()
    await driven.dials_again()
    await driven.clock.advance(9.0)
    assert driven.tracker.state is State.CONNECTING
    assert (driven.tracker.stats.unexpected_count, driven.tracker.stats.stale_count) == (0, 0)


async def test_a_trigger_of_the_wire_that_the_state_rejects_is_a_breach(driven: Driven) -> None:
    """RESUMED before Hello: the connection is given up for it, and the cause says why."""
    driven.driver.post(trigger.Resumed(), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "resumed came in Connecting" in (driven.tracker.cause or "")
    assert driven.tracker.stats.unexpected_count == 1


async def test_a_second_hello_in_a_session_that_is_up_is_a_breach_too(driven: Driven) -> None:
    """It begins a new count of beats, which those that are under way do not know of."""
    line = await driven.is_ready()
    line.hello()
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "hello came in Ready" in (driven.tracker.cause or "")


async def test_a_resume_begins_where_the_publisher_that_must_not_lose_has_come_to(driven: Driven) -> None:
    """Behind what was received: Discord is to send again what that publisher lacks."""
    line = await driven.is_ready()
    line.feed(*(line.dispatched("A", seq=seq) for seq in (2, 3, 4)))
    await settle_loop()
    driven.audit.offer(driven.events[:2])
    line.lose()
    line = await driven.dials_again()
    line.hello()
    await settle_loop()
    assert [resume["seq"] for resume in line.ops(Op.RESUME)] == [2]


async def test_a_deadline_of_an_earlier_visit_is_ignored(driven: Driven) -> None:
    """Timers race with what they watch."""
    driven.driver.post(trigger.Timeout(0, TaskDied("late")), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.CONNECTING


async def test_every_step_is_recorded(driven: Driven) -> None:
    """When, from, trigger, to, cause, generation and the milliseconds that the state lasted."""
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
