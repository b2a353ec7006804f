"""A driver on in-memory connections; the test plays everything around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.publishers.delivery.lossless import LosslessQueue
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.publishers.options import DeliveryOptions
from discorder.rest import Token
from discorder.sessions import Ticket
from discorder.sessions.store import Ordinals
from discorder.shard.dependencies import DialTarget, ShardDependencies
from discorder.shard.driver import ShardDriver
from discorder.shard.receiver import Receiver
from discorder.statemachine import Session, ShardMachine, State
from discorder.tracking.shard_tracker import ShardTracker, Transition
from discorder.wire import Event, Op
from tests.harness import Line, Recorder

if TYPE_CHECKING:
    from tests.harness import Exchange, Hasty

STORED_SEQ = 7


class Kept:
    """Stands in for the session persistence of a driver."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.finished = 0
        self.paused_since: datetime | None = None

    def save(self, session: Session) -> None:
        self.sessions.append(session)

    def opened(self) -> None:
        """Do nothing; these tests store no sessions."""

    def drop(self) -> None:
        self.sessions.clear()

    def finish(self) -> None:
        """Do nothing when the driver has ended."""
        self.finished += 1

    def pause(self, since: datetime) -> None:
        self.paused_since = since

    def unpause(self) -> None:
        self.paused_since = None


class Audit(LosslessQueue):
    """A required publisher without a backend. The test decides when it is full."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(Recorder("audit"), "audit", DeliveryOptions(), clock, lambda _: None)
        self.full = False
        self.connections = 0
        self.events: list[Event] = []
        self.records: list[Event] = []

    def offer(self, events: Sequence[Event]) -> None:
        """Record ``events``. The test calls `take_in` to accept them."""
        self.events.extend(events)

    def take_in(self, events: Sequence[Event]) -> None:
        """Accept everything up to the last of ``events``."""
        super().offer(events)

    def connection_opened(self, shard: int) -> None:
        self.connections += 1

    def may_open(self, shard: int) -> bool:
        return not self.full

    def offer_record(self, record: Event) -> None:
        self.records.append(record)


class Driven:
    """A driver that has not taken its first step."""

    def __init__(self, exchange: Exchange, rng: Hasty, machine: ShardMachine | None = None) -> None:
        """If ``machine`` holds a session, the driver resumes it, as after a restart of the process."""
        self.clock = FakeClock()
        self.exchange = exchange
        self.kept = Kept()
        self.admits = asyncio.Event()  # cleared: the gate lets a request wait
        self.admits.set()
        self.waiting = self.refunds = self.spent = self.changes = 0
        self.machine = machine or ShardMachine()
        self.tracker = ShardTracker(0, 1, self.clock)
        self.audit = Audit(self.clock)
        self.events = self.audit.events
        self.delivery = ShardDelivery(0, lambda: (self.audit,))
        self.receiver = Receiver((0, 1), self.clock, self.tracker.stats, self.delivery, ordinal=Ordinals().take)
        if self.machine.session is not None:
            self.receiver.adopt(self.machine.session, STORED_SEQ, b'{"stored":true}', self.clock.now())
        dependencies = ShardDependencies(
            clock=self.clock,
            rng=rng,
            token=Token("MTIz.in-memory.not-a-secret"),
            intents=1,
            payload_compression=False,
            log_heartbeats=lambda: False,
            transport=lambda: exchange.dial((0, 1)),
            target=self._target,
            resume_url=lambda url: url,
            hold_dials=lambda seconds: None,  # noqa: ARG005  # by its name
            admit=self._admit,
            saver=self.kept,
            delivery=self.delivery,
            why_end=lambda label: None,  # noqa: ARG005  # by its name
            changed=self._changed,
        )
        self.driver = ShardDriver(self.tracker, self.machine, self.receiver, dependencies)
        self.task = asyncio.ensure_future(self.driver.run())

    def _changed(self, shard: ShardTracker, step: Transition) -> None:
        self.changes += 1

    async def _target(self, host: str, known: str) -> DialTarget:  # the expected signature
        return DialTarget(host or "ws://main.test")

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
                await settle_loop(30)  # the gate has to update its ledger
            self.waiting -= 1
        return Ticket(shard_id, 0, "ticket", on_sent=spend, on_refund=refund)

    @property
    def line(self) -> Line:
        """Return the connection of the current generation."""
        return self.exchange.lines[-1]

    async def identifies(self) -> Line:
        """Return the connection after IDENTIFY has been sent."""
        self.line.hello()
        await settle_loop()
        assert self.line.ops(Op.IDENTIFY)
        return self.line

    async def is_ready(self) -> Line:
        """Return the connection on which the shard is Ready in a new session."""
        line = await self.identifies()
        line.ready()
        await settle_loop()
        assert self.tracker.state is State.READY
        return line

    async def dials_again(self) -> Line:
        """Return the connection of the next generation, after the back-off."""
        known = len(self.exchange.lines)
        for _ in range(100):
            if len(self.exchange.lines) > known:
                return self.line
            await self.clock.advance(0.5)
        pytest.fail(f"no new line; {self.tracker!r}")

    async def resumes(self) -> Line:
        """Return the connection of the next generation, on which the shard is Ready in the same session."""
        line = await self.dials_again()
        line.hello()
        await settle_loop()
        line.goes_on_after(line.ops(Op.RESUME)[0]["seq"])
        line.feed(line.dispatched("RESUMED"))
        await settle_loop()
        assert self.tracker.state is State.READY
        return line

    async def ends(self) -> BaseException | None:
        """Return the exception that `run` raises. It must end by itself within a second of the clock."""
        await self.clock.advance(1.0)
        assert self.task.done(), self.tracker
        return self.task.exception()


Drive = Callable[..., Driven]


@pytest.fixture
async def drive(exchange: Exchange, rng: Hasty) -> AsyncIterator[Drive]:
    """Make drivers; stop those that still run at the end of the test."""
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
        await asyncio.gather(it.task, return_exceptions=True)  # the test checks what it raised
    assert broken == [], "what nobody was told of"


@pytest.fixture
async def driven(drive: Drive) -> Driven:
    """A driver that has dialled its first connection."""
    it = drive()
    await settle_loop()
    return it
