"""A publisher that refuses events of shards which another process owns (`Fenced`), and what the queues do then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.errors import Fenced
from discorder.publishers.delivery.fanout import FanOut
from discorder.publishers.delivery.health import PublisherState
from discorder.publishers.options import DeliveryOptions
from discorder.records import resumed_record
from discorder.wire import Event

MakeEvent = Callable[..., Event]

OLD, NEW = "01d", "4e3"  # sessions
LOSSLESS, BEST_EFFORT = DeliveryOptions(required=True, max_events=4), DeliveryOptions()


class Log:
    """A log that refuses the shards of other processes, as a broker does, and accepts the rest of a batch."""

    name, durable, all_records = "log", True, True

    def __init__(self) -> None:
        self.foreign: set[int] = set()
        self.failing = False
        self.stored: list[tuple[int, str | None, int | None]] = []
        self.batches = 0

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        if self.failing:
            raise OSError
        self.batches += 1
        self.stored += [
            (event.shard[0], event.session, event.seq) for event in events if event.shard[0] not in self.foreign
        ]
        if refused := {event.shard[0] for event in events} & self.foreign:
            raise Fenced(refused)

    async def close(self) -> None: ...


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(params=[LOSSLESS, BEST_EFFORT], ids=["lossless", "best effort"])
async def plane(request: pytest.FixtureRequest, fan_out: FanOut, log: Log) -> FanOut:
    fan_out.add(log, request.param)
    await fan_out.open()
    return fan_out


def hand(plane: FanOut, make_event: MakeEvent, shard: int, session: str, *seqs: int) -> None:
    plane.shard(shard).hand_over([make_event(seq, shard=(shard, 2), session=session) for seq in seqs])


async def mended(log: Log, clock: FakeClock) -> None:
    log.failing = False
    await clock.advance(10.0)


async def test_a_fenced_shard_leaves_the_queue_and_blocks_nothing_else(
    plane: FanOut, log: Log, make_event: MakeEvent, clock: FakeClock
) -> None:
    """Its events have moved to another process: they are neither accepted nor dropped, and leave no gap."""
    log.failing = True
    hand(plane, make_event, 0, OLD, 1)
    await settle_loop()
    for seq in range(1, 9):  # for the lossless queue more than it has room for
        hand(plane, make_event, 1, OLD, seq)
    hand(plane, make_event, 0, OLD, 2)
    log.foreign = {1}
    await mended(log, clock)
    hand(plane, make_event, 0, OLD, 3)
    await settle_loop()
    assert log.stored == [(0, OLD, seq) for seq in (1, 2, 3)]
    health = plane.health[0]
    assert (health.accepted, health.dropped, health.gaps, health.queued_events, health.in_flight) == (3, 0, 0, 0, 0)
    assert health.state is PublisherState.HEALTHY
    assert plane.shard(0).delivered(OLD) == 3


async def test_nothing_more_of_a_fenced_shard_is_offered(
    plane: FanOut, log: Log, make_event: MakeEvent, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither events nor records, also after a replay: an old owner that wakes up must not disturb the new one."""
    log.foreign = {1}
    hand(plane, make_event, 1, OLD, 1)
    await settle_loop()
    assert log.batches == 1
    hand(plane, make_event, 1, OLD, 1, 2)
    plane.shard(1).connection_opened()
    hand(plane, make_event, 1, OLD, 1, 2, 3)
    plane.shard(1).announce(resumed_record((1, 2), OLD, clock.now(), 5))
    await clock.advance(60.0)
    assert (log.batches, log.stored) == (1, [])
    assert "another process publishes the events of shard 1; this one publishes no more of them" in caplog.text


async def test_the_resume_point_of_a_fenced_shard_stays_where_the_log_was(
    fan_out: FanOut, log: Log, make_event: MakeEvent
) -> None:
    fan_out.add(log, LOSSLESS)
    await fan_out.open()
    delivery = fan_out.shard(1)
    hand(fan_out, make_event, 1, OLD, 1, 2)
    await settle_loop()
    log.foreign = {0, 1}
    hand(fan_out, make_event, 1, OLD, 3, 4)
    hand(fan_out, make_event, 0, OLD, 1)
    await settle_loop()
    assert (delivery.delivered(OLD), delivery.resume_seq(OLD, 4), delivery.behind) == (2, 2, [])
    assert fan_out.shard(0).delivered(OLD) is None, "not even READY was accepted"


async def test_a_shard_that_comes_back_goes_on_from_the_adopted_position(
    plane: FanOut, log: Log, make_event: MakeEvent, clock: FakeClock
) -> None:
    """Whether it was fenced or not: no event of the first ownership goes out, and the old mark is forgotten."""
    log.foreign = {1}
    hand(plane, make_event, 1, OLD, 1, 2, 3)
    await settle_loop()
    log.foreign, log.failing = set(), True
    hand(plane, make_event, 0, OLD, 1, 2)
    await settle_loop()
    hand(plane, make_event, 0, OLD, 3)
    for shard in (0, 1):
        plane.shard(shard).adopt((shard, 2), NEW, 1, clock.now())
        assert (plane.shard(shard).delivered(NEW), plane.shard(shard).resume_seq(NEW, 1)) == (1, 1)
        assert plane.shard(shard).delivered(OLD) is None
        hand(plane, make_event, shard, NEW, 1, 2, 3)
    await mended(log, clock)
    assert sorted(log.stored) == [(shard, NEW, seq) for shard in (0, 1) for seq in (2, 3)]
    assert [plane.shard(shard).delivered(NEW) for shard in (0, 1)] == [3, 3]


async def test_a_fence_of_what_was_released_meanwhile_does_not_count(
    fan_out: FanOut, make_event: MakeEvent, clock: FakeClock
) -> None:
    """The refused batch was of the first ownership; the shard is this process's own again."""

    class Slow(Log):
        async def publish(self, events: Sequence[Event]) -> None:
            await clock.sleep(1.0)
            await super().publish(events)

    slow = Slow()
    slow.foreign = {1}
    fan_out.add(slow, LOSSLESS)
    await fan_out.open()
    hand(fan_out, make_event, 1, OLD, 1)
    await settle_loop()
    fan_out.shard(1).adopt((1, 2), OLD, 1, clock.now())
    hand(fan_out, make_event, 1, OLD, 2)
    await clock.advance(1.0)
    slow.foreign = set()
    await clock.advance(1.0)
    assert slow.stored == [(1, OLD, 2)]
    assert fan_out.shard(1).delivered(OLD) == 2
