"""Required publishers that take events without waiting: no task, no turn of the loop, and the same promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut, PublisherState
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.wire import Event

MakeEvent = Callable[..., Event]

SESSION = "0123456789abcdef"


class Sink:
    """A durable publisher. ``room``: how many events `publish_nowait` takes; ``failing``: what both methods raise."""

    name = "sink"
    durable = True

    def __init__(self) -> None:
        self.in_line: list[int | None] = []
        self.seqs: list[int | None] = []
        self.room = 100
        self.failing: BaseException | None = None

    async def open(self) -> None: ...

    def publish_nowait(self, events: Sequence[Event]) -> int:
        if self.failing is not None:
            raise self.failing
        taken = [event.seq for event in events[: self.room]]
        self.in_line += taken
        self.seqs += taken
        return len(taken)

    async def publish(self, events: Sequence[Event]) -> None:
        if self.failing is not None:
            raise self.failing
        self.seqs += [event.seq for event in events]

    async def close(self) -> None: ...


@pytest.fixture
async def sink(fan_out: FanOut) -> Sink:
    made = Sink()
    fan_out.add(made, DeliveryOptions(required=True, max_events=10))
    await fan_out.open()
    return made


@pytest.fixture
def shard(fan_out: FanOut) -> ShardDelivery:
    return fan_out.shard(0)


def batch(make_event: MakeEvent, *seqs: int) -> list[Event]:
    return [make_event(seq, shard=(0, 1), session=SESSION) for seq in seqs]


async def test_what_is_taken_in_line_is_delivered_at_once(
    sink: Sink, shard: ShardDelivery, fan_out: FanOut, make_event: MakeEvent
) -> None:
    shard.hand_over(batch(make_event, 1, 2, 3))
    assert (sink.in_line, shard.delivered(SESSION), shard.behind) == ([1, 2, 3], 3, [])
    shard.hand_over(batch(make_event, 2, 3, 4))  # a replay that begins early
    assert (sink.in_line, fan_out.health[0].accepted) == ([1, 2, 3, 4], 4)


@pytest.mark.parametrize("error", [OSError("the disk is full"), SystemExit(3)])
async def test_what_fails_in_line_is_offered_again_in_order(
    sink: Sink, shard: ShardDelivery, fan_out: FanOut, clock: FakeClock, make_event: MakeEvent, error: BaseException
) -> None:
    shard.hand_over(batch(make_event, 1))
    sink.failing = error
    shard.hand_over(batch(make_event, 2, 3))
    assert (shard.delivered(SESSION), fan_out.health[0].state) == (1, PublisherState.RETRYING)
    sink.failing = None
    shard.hand_over(batch(make_event, 4))  # must not overtake
    await clock.advance(6.0)
    assert (sink.seqs, shard.delivered(SESSION), shard.behind) == ([1, 2, 3, 4], 4, [])
    shard.hand_over(batch(make_event, 5))
    assert (sink.in_line, shard.delivered(SESSION)) == ([1, 5], 5)


async def test_what_finds_no_room_in_line_waits_and_is_not_dropped(
    sink: Sink, shard: ShardDelivery, fan_out: FanOut, make_event: MakeEvent
) -> None:
    sink.room = 2
    shard.hand_over(batch(make_event, 1, 2, 3, 4))
    assert (sink.seqs, shard.delivered(SESSION), shard.behind) == ([1, 2], 2, ["sink"])
    await settle_loop()
    assert (sink.seqs, shard.delivered(SESSION), shard.behind) == ([1, 2, 3, 4], 4, [])
    assert (fan_out.health[0].accepted, fan_out.dropped) == (4, 0)
