"""A driver on lines in memory, with nothing around it but what a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.publishers.blocking import BlockingLane
from discorder.publishers.delivery import ShardDelivery
from discorder.publishers.options import DeliveryOptions
from discorder.rest import Token
from discorder.sessions import Ticket
from discorder.shard.driver import ShardDriver
from discorder.shard.outside import Outside
from discorder.shard.reception import Reception
from discorder.statemachine import Session, ShardMachine, State
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Event, Op
from tests.stage import Line, Recorder

if TYPE_CHECKING:
    from tests.stage import Exchange, Hasty

STORED_SEQ = 7


class Kept:
    """Where the sessions of a driver go in these tests."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.finished = 0

    def save(self, session: Session) -> None:
        self.sessions.append(session)

    def drop(self) -> None:
        self.sessions.clear()

    def finish(self) -> None:
        """The driver has ended."""
        self.finished += 1


class Audit(BlockingLane):
    """A publisher that must not lose, with nothing behind it: it is full when the test says so."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(Recorder("audit"), "audit", DeliveryOptions(), clock, lambda _: None)
        self.full = False
        self.connections = 0
        self.records: list[Event] = []

    def connection_opened(self, shard: int) -> None:
        self.connections += 1

    def may_open(self, shard: int) -> bool:
        return not self.full

    def offer_record(self, record: Event) -> None:
        self.records.append(record)


class Driven:
    """A driver that has not taken its first step."""

    def __init__(self, exchange: Exchange, rng: Hasty, machine: ShardMachine | None = None) -> None:
        """``machine``: one with a session goes on with it, as stored by an earlier process."""
        self.clock = FakeClock()
        self.exchange = exchange
        self.kept = Kept()
        self.admits = asyncio.Event()  # cleared: the gate lets a request wait
        self.admits.set()
        self.waiting = self.refunds = self.spent = self.changes = 0
        self.machine = machine or ShardMachine()
        self.tracker = ShardTracker(0, 1, self.clock)
        self.audit = Audit(self.clock)
        self.events: list[Event] = []
        self.delivery = ShardDelivery(0, hand_over=self.events.extend, lanes=lambda: (self.audit,))
        self.reception = Reception((0, 1), self.clock, self.tracker.stats, self.delivery)
        if self.machine.session is not None:
            self.reception.adopt(self.machine.session, STORED_SEQ, b'{"stored":true}', self.clock.now())
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
            delivery=self.delivery,
            changed=self._changed,
        )
        self.driver = ShardDriver(self.tracker, self.machine, self.reception, outside)
        self.task = asyncio.ensure_future(self.driver.run())

    def _changed(self) -> None:
        self.changes += 1

    async def _url(self, host: str) -> str:
        return host or "ws://main.test"

    async def _admit(self, shard_id: int) -> Ticket:
        def refund(_: Ticket) -> None:
            self.refunds += 1

        def spend(_: Ticket) -> None:
            self.spent += 1

        self.waiting += 1
        try:
            await self.admits.wait()
        finally:
            if not self.admits.is_set():
                await settle_loop(30)  # a gate has its books to do
            self.waiting -= 1
        return Ticket(shard_id, 0, "ticket", on_sent=spend, on_refund=refund)

    @property
    def line(self) -> Line:
        """That of the present generation."""
        return self.exchange.lines[-1]

    async def identifies(self) -> Line:
        """The line, on which IDENTIFY has been sent."""
        self.line.hello()
        await settle_loop()
        assert self.line.ops(Op.IDENTIFY)
        return self.line

    async def is_ready(self) -> Line:
        """The line, on which the shard is Ready in a new session."""
        line = await self.identifies()
        line.ready()
        await settle_loop()
        assert self.tracker.state is State.READY
        return line

    async def dials_again(self) -> Line:
        """The line of the next generation, once the back-off is over."""
        known = len(self.exchange.lines)
        for _ in range(100):
            if len(self.exchange.lines) > known:
                return self.line
            await self.clock.advance(0.5)
        pytest.fail(f"no new line; {self.tracker!r}")

    async def resumes(self) -> Line:
        """The line of the next generation, on which the shard is Ready in the same session."""
        line = await self.dials_again()
        line.hello()
        await settle_loop()
        line.goes_on_after(line.ops(Op.RESUME)[0]["seq"])
        line.feed(line.dispatched("RESUMED"))
        await settle_loop()
        assert self.tracker.state is State.READY
        return line

    async def ends(self) -> BaseException | None:
        """What `run` raises; it must end by itself within a second of the clock."""
        await self.clock.advance(1.0)
        assert self.task.done(), self.tracker
        return self.task.exception()


Drive = Callable[..., Driven]


@pytest.fixture
async def drive(exchange: Exchange, rng: Hasty) -> AsyncIterator[Drive]:
    """Makes drivers; what still runs at the end of the test is stopped."""
    running: list[Driven] = []
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))

    def start(machine: ShardMachine | None = None) -> Driven:
        running.append(Driven(exchange, rng, machine))
        return running[-1]

    yield start
    for it in running:
        it.driver.stop(goodbye=False)
        await it.clock.advance(1.0)
        it.task.cancel()
        await asyncio.gather(it.task, return_exceptions=True)  # what it raised is the test's to look at
    assert broken == [], "what nobody was told of"


@pytest.fixture
async def driven(drive: Drive) -> Driven:
    """A driver that has dialled its first line."""
    it = drive()
    await settle_loop()
    return it
