"""The driver's inbox: what overtakes, what is late, and what becomes of a breach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.errors import Closed, TaskDied
from discorder.publishers.fanout import FanOut
from discorder.rest import Token
from discorder.sessions import Ticket
from discorder.shard.driver import ShardDriver
from discorder.shard.outside import Outside
from discorder.shard.reception import Reception
from discorder.statemachine import Session, ShardMachine, State, Task
from discorder.statemachine import triggers as trigger
from discorder.statemachine.table import Name
from discorder.tracking.shard_tracker import ShardTracker

if TYPE_CHECKING:
    from tests.stage import Exchange, Hasty


class Kept:
    """Where the sessions of a driver go in these tests."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    def save(self, session: Session) -> None:
        self.sessions.append(session)

    def drop(self) -> None:
        self.sessions.clear()

    def finish(self) -> None:
        """The driver has ended."""


class Driven:
    """A driver on lines in memory, with nothing around it."""

    def __init__(self, exchange: Exchange, rng: Hasty) -> None:
        self.clock = FakeClock()
        self.exchange = exchange
        self.kept = Kept()
        self.refunds = 0
        self.tracker = ShardTracker(0, 1, self.clock)
        self.machine = ShardMachine()
        delivery = FanOut(self.clock).shard(0)
        reception = Reception((0, 1), self.clock, self.tracker.stats, delivery)
        outside = Outside(
            clock=self.clock,
            rng=rng,
            token=Token("MTIz.in-memory.not-a-secret"),
            intents=1,
            payload_compression=False,
            log_heartbeats=False,
            transport=lambda: exchange.dial((0, 1)),
            url=self._url,
            admit=self._admit,
            keeper=self.kept,
            delivery=delivery,
            changed=lambda: None,
        )
        self.driver = ShardDriver(self.tracker, self.machine, reception, outside)
        self.task = asyncio.ensure_future(self.driver.run())

    async def _url(self, host: str) -> str:
        return host or "ws://main.test"

    async def _admit(self, shard_id: int) -> Ticket:
        def refund(_: Ticket) -> None:
            self.refunds += 1

        return Ticket(shard_id, 0, "ticket", on_sent=lambda _: None, on_refund=refund)


@pytest.fixture
async def driven(exchange: Exchange, rng: Hasty) -> AsyncIterator[Driven]:
    """A driver that has dialled its first line."""
    it = Driven(exchange, rng)
    await settle_loop()
    yield it
    it.driver.stop(goodbye=False)
    await it.clock.advance(1.0)
    await asyncio.gather(it.task, return_exceptions=True)


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
    driven.driver.post(trigger.Hello(), generation=1)
    await asyncio.sleep(0)
    driven.driver.post(trigger.Reconnect(), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert driven.exchange.lines[0].sent == []
    assert driven.refunds <= 1
    assert driven.tracker.stats.identify_count == 0


async def test_a_trigger_of_the_wire_that_the_state_rejects_is_a_breach(driven: Driven) -> None:
    """RESUMED before Hello: the connection is given up for it, and the cause says why."""
    driven.driver.post(trigger.Resumed(), generation=1)
    await settle_loop()
    assert driven.tracker.state is State.RESTARTING
    assert "resumed came in Connecting" in (driven.tracker.cause or "")
    assert driven.tracker.stats.unexpected_count == 1


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
    for _ in range(150):
        await driven.clock.advance(35.0)
        driven.exchange.lines[-1].lose()
        await settle_loop()
    assert len(driven.tracker.transitions) == 256


async def test_a_driver_that_is_cancelled_leaves_nothing_behind(driven: Driven) -> None:
    """Socket dropped, tasks gone."""
    tasks = list(driven.tracker.tasks.values())
    driven.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driven.task
    assert driven.exchange.lines[0].closed
    assert all(task.done() for task in tasks)
