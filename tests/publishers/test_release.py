"""Both delivery queues: releasing a shard that moves to another process, and waiting until a queue is idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.publishers.delivery.best_effort import BestEffortQueue
from discorder.publishers.delivery.lossless import LosslessQueue
from discorder.publishers.delivery.queue import DeliveryQueue
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.wire import Event

MakeEvent = Callable[..., Event]


class Gate:
    """A publisher that accepts a batch once the test allows it, or fails."""

    name = "gate"
    durable = True

    def __init__(self) -> None:
        self.offered: list[list[tuple[int, int | None]]] = []
        self.accepted: list[tuple[int, int | None]] = []
        self.passes = asyncio.Semaphore(0)
        self.failing = False

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        batch = [(event.shard[0], event.seq) for event in events]
        self.offered.append(batch)
        await self.passes.acquire()
        if self.failing:
            raise OSError
        self.accepted += batch

    async def close(self) -> None: ...


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture(params=["best effort", "lossless"])
async def queue(request: pytest.FixtureRequest, gate: Gate, clock: FakeClock) -> AsyncIterator[DeliveryQueue]:
    made: DeliveryQueue
    if request.param == "lossless":
        options = DeliveryOptions(overflow=Overflow.BLOCK, max_events=4)
        made = LosslessQueue(gate, "gate", options, clock, lambda _: None)
    else:
        made = BestEffortQueue(gate, "gate", DeliveryOptions(max_events=10), clock)
    await made.open()
    yield made
    await made.close()


def offer(queue: DeliveryQueue, make_event: MakeEvent, shard: int, *seqs: int) -> None:
    queue.offer([make_event(seq, shard=(shard, 2), session=f"session {shard}") for seq in seqs])


async def test_what_waits_of_a_released_shard_is_forgotten_and_the_rest_goes_on(
    queue: DeliveryQueue, gate: Gate, make_event: MakeEvent
) -> None:
    """Queued and held events are neither accepted nor dropped, and no gap is announced."""
    offer(queue, make_event, 0, 1)
    await settle_loop()
    offer(queue, make_event, 0, 2, 3)
    offer(queue, make_event, 1, 1, 2, 3, 4)
    assert queue.release(1) == 4
    assert (queue.mark(1), queue.is_behind(1), queue.is_behind(0)) == (None, False, True)
    gate.passes.release()
    gate.passes.release()
    await settle_loop()
    assert gate.accepted == [(0, 1), (0, 2), (0, 3)]
    health = queue.health
    assert (health.accepted, health.dropped, health.gaps, health.queued_events, health.queued_bytes) == (3, 0, 0, 0, 0)


async def test_a_shard_that_comes_back_begins_anew(queue: DeliveryQueue, gate: Gate, make_event: MakeEvent) -> None:
    """Its old mark does not apply: another process may have delivered fewer events, in another session."""
    offer(queue, make_event, 1, 7)
    queue.release(1)
    offer(queue, make_event, 1, 5, 6)
    gate.passes.release()
    await settle_loop()
    assert gate.accepted == [(1, 5), (1, 6)]
    mark = queue.mark(1)
    assert mark is not None
    assert mark.seq == 6


async def test_a_batch_that_fails_is_offered_again_without_the_released_shard(
    queue: DeliveryQueue, gate: Gate, make_event: MakeEvent, clock: FakeClock
) -> None:
    offer(queue, make_event, 0, 1)
    offer(queue, make_event, 1, 1)
    await settle_loop()
    gate.failing = True
    assert queue.release(1) == 1
    gate.passes.release()
    await settle_loop()
    gate.failing = False
    gate.passes.release()
    await clock.advance(1.0)
    assert gate.offered == [[(0, 1), (1, 1)], [(0, 1)]]
    assert gate.accepted == [(0, 1)]


async def test_a_batch_of_which_nothing_is_left_is_not_offered_again(
    queue: DeliveryQueue, gate: Gate, make_event: MakeEvent, clock: FakeClock
) -> None:
    offer(queue, make_event, 1, 1)
    await settle_loop()
    gate.failing = True
    queue.release(1)
    gate.passes.release()
    await clock.advance(1.0)
    assert gate.offered == [[(1, 1)]]
    await asyncio.wait_for(queue.wait_until_idle(), 1.0)


async def test_one_shard_is_idle_while_another_is_not(queue: DeliveryQueue, gate: Gate, make_event: MakeEvent) -> None:
    await queue.wait_until_idle(0)
    offer(queue, make_event, 0, 1)
    await settle_loop()
    offer(queue, make_event, 1, 1)
    waiting = asyncio.create_task(queue.wait_until_idle(0))
    released = asyncio.create_task(queue.wait_until_idle(1))
    await settle_loop()
    assert not waiting.done()
    assert not released.done()
    gate.passes.release()
    await settle_loop()
    assert waiting.done()
    assert queue.is_behind(1)
    queue.release(1)
    await settle_loop()
    assert released.done()


async def test_what_another_shard_holds_follows_once_the_queue_is_released(
    gate: Gate, clock: FakeClock, make_event: MakeEvent
) -> None:
    """The queue is full of one shard, so the other one's event is held; nothing more comes that would wake the task."""
    queue = LosslessQueue(gate, "gate", DeliveryOptions(overflow=Overflow.BLOCK, max_events=2), clock, lambda _: None)
    await queue.open()
    offer(queue, make_event, 0, 1)
    await settle_loop()
    offer(queue, make_event, 0, 2, 3)
    offer(queue, make_event, 1, 1)
    queue.release(0)
    gate.passes.release()
    await settle_loop()
    gate.passes.release()
    await settle_loop()
    assert gate.accepted == [(0, 1), (1, 1)]
    await queue.close()
