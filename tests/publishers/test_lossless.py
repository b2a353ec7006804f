"""Required publishers: positions, the hold buffer, congestion, and how far a shard's events were delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut, PublisherState
from discorder.publishers.delivery.position import HOLD_BYTES, HOLD_EVENTS
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.publishers.options import EventSelection, Overflow
from discorder.publishers.protocol import BusApi
from discorder.wire import Event

SESSION, NEXT_SESSION = "0123456789abcdef", "fedcba9876543210"


class Sink:
    """A durable publisher that fails while ``failing`` is set."""

    durable = True

    def __init__(self, name: str = "sink") -> None:
        self.name = name
        self.seqs: list[int | None] = []
        self.events: list[Event] = []
        self.batches: list[int] = []
        self.opened = 0
        self.failing: Exception | None = None

    async def open(self) -> None:
        if self.failing is not None:
            raise self.failing
        self.opened += 1

    async def publish(self, events: Sequence[Event]) -> None:
        if self.failing is not None:
            raise self.failing
        self.events.extend(events)
        self.batches.append(len(events))
        self.seqs.extend(event.seq for event in events)

    async def close(self) -> None:
        pass


def events(
    numbers: Sequence[int], *, shard: int = 0, session: str = SESSION, kind: str = "MESSAGE_CREATE", size: int = 2
) -> list[Event]:
    data = b"x" * size
    return [Event(kind, (shard, 4), n, None, session, datetime(2026, 1, 1, tzinfo=UTC), data) for n in numbers]


BLOCK = DeliveryOptions(overflow=Overflow.BLOCK, max_events=10)
REQUIRED = DeliveryOptions(required=True, max_events=10)


@pytest.fixture
async def stuck(fan_out: FanOut) -> Sink:
    """A required publisher with room for ten events, which fails until `mend` is called."""
    sink = Sink()
    fan_out.add(sink, REQUIRED)
    await fan_out.open()
    sink.failing = OSError("the disk is away")
    return sink


@pytest.fixture
def congested(shard: ShardDelivery) -> list[str]:
    """Return the names of the publishers that reported congestion."""
    reports: list[str] = []
    shard.when_congested(reports.append)
    return reports


@pytest.fixture
def shard(fan_out: FanOut) -> ShardDelivery:
    return fan_out.shard(0)


async def mend(sink: Sink, clock: FakeClock) -> None:
    sink.failing = None
    await clock.advance(6.0)  # the longest pause between two retries


async def test_a_session_is_not_delivered_before_the_gap_in_front_of_a_ready_that_the_publisher_does_not_want(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    """The store deletes the unreported gap as soon as an event of the next session is delivered."""
    sink = Sink()
    fan_out.add(sink, DeliveryOptions(required=True, events=EventSelection(include=("MESSAGE_*",))))
    await fan_out.open()
    sink.failing = OSError("the disk is away")
    shard.session_dropped((0, 4), SESSION, "op 9 false", clock.now())
    shard.announce_lost(clock.now(), ended=False)
    shard.hand_over(events([1], session=NEXT_SESSION, kind="READY"))
    assert (shard.delivered(NEXT_SESSION), shard.behind) == (None, ["sink"])
    await mend(sink, clock)
    assert (shard.delivered(NEXT_SESSION), shard.behind) == (1, [])


async def test_a_replay_reaches_only_those_who_lack_it(fan_out: FanOut, shard: ShardDelivery) -> None:
    early, late = Sink("early"), Sink("late")
    fan_out.add(early, BLOCK)
    await fan_out.open()
    shard.hand_over(events([1, 2, 3]))
    fan_out.add(late)
    shard.hand_over(events([2, 3, 4, 5]))
    shard.hand_over(events([5]))
    await settle_loop()
    assert (early.seqs, late.seqs) == ([1, 2, 3, 4, 5], [2, 3, 4, 5])
    shard.hand_over(events([1], session=NEXT_SESSION))
    await settle_loop()
    assert early.seqs[-1] == 1, "another session begins anew"


async def test_delivered_waits_for_the_required_publisher(shard: ShardDelivery, stuck: Sink, clock: FakeClock) -> None:
    assert shard.delivered(SESSION) is None
    stuck.failing = None
    shard.hand_over(events([1, 2]))
    await settle_loop()
    assert shard.delivered(SESSION) == 2
    stuck.failing = OSError("full")
    shard.hand_over(events([3, 4, 7]))
    await settle_loop()
    assert shard.delivered(SESSION) == 2
    assert shard.behind == ["sink"]
    assert shard.resume_seq(SESSION, 7) == 7, "what is queued here need not be sent again"
    await mend(stuck, clock)
    assert shard.delivered(SESSION) == 7
    assert shard.behind == []


async def test_ready_of_a_new_session_counts_only_once_it_is_accepted(
    shard: ShardDelivery, stuck: Sink, clock: FakeClock
) -> None:
    shard.hand_over(events([1], kind="READY"))
    await settle_loop()
    assert shard.delivered(SESSION) is None
    await mend(stuck, clock)
    assert shard.delivered(SESSION) == 1
    stuck.failing = OSError("full")
    shard.hand_over(events([1], kind="READY", session=NEXT_SESSION))
    await settle_loop()
    assert (shard.delivered(SESSION), shard.delivered(NEXT_SESSION)) == (None, None)


async def test_what_a_publisher_does_not_want_counts_as_accepted(fan_out: FanOut, shard: ShardDelivery) -> None:
    sink = Sink()
    fan_out.add(sink, DeliveryOptions(required=True, events=EventSelection(exclude=("TYPING_START",))))
    await fan_out.open()
    shard.hand_over([*events([1]), *events([2, 3], kind="TYPING_START")])
    await settle_loop()
    assert (sink.seqs, shard.delivered(SESSION)) == ([1], 3)
    shard.hand_over(events([4], kind="TYPING_START"))
    assert shard.delivered(SESSION) == 4
    assert shard.resume_seq(SESSION, 4) == 4


async def test_without_a_required_publisher_handing_over_is_delivery(fan_out: FanOut, shard: ShardDelivery) -> None:
    fan_out.add(Sink("best effort"))
    await fan_out.open()
    shard.hand_over(events([1, 2]))
    assert (shard.delivered(SESSION), shard.resume_seq(SESSION, 9)) == (2, 9)


async def test_an_adopted_session_is_delivered_up_to_where_it_was_stored(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, clock: FakeClock
) -> None:
    shard.adopt((0, 1), SESSION, 40, clock.now())
    assert (shard.delivered(SESSION), shard.resume_seq(SESSION, 40)) == (40, 40)
    shard.hand_over(events([41]))
    await settle_loop()
    assert stuck.seqs == []
    assert shard.delivered(SESSION) == 40, "41 is not accepted: the store keeps the 40 that it has"
    assert fan_out.shard(0) is shard


async def test_what_the_queue_has_no_room_for_is_held_and_follows_in_order(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    lively = Sink("lively")
    fan_out.add(lively)
    shard.hand_over(events(range(1, 101)))
    await settle_loop()
    assert lively.seqs == list(range(1, 101)), "nobody else is held up"
    health = fan_out.health[0]
    assert health.queued_events + health.in_flight == 100
    assert health.state is PublisherState.RETRYING
    await mend(stuck, clock)
    assert stuck.seqs == list(range(1, 101))
    assert stuck.batches == [10] * 10, "all the room there is is used"
    health = fan_out.health[0]
    assert (congested, shard.delivered(SESSION), health.queued_events, health.queued_bytes) == ([], 100, 0, 0)
    await clock.advance(20.0)
    assert congested == [], "the timer of the hold ended with it"


async def test_shards_take_turns_in_what_room_there_is(fan_out: FanOut, stuck: Sink, clock: FakeClock) -> None:
    for number in range(3):
        fan_out.shard(number).hand_over(events(range(1, 41), shard=number))
    await settle_loop()
    await mend(stuck, clock)
    for number in range(3):
        assert [event.seq for event in stuck.events if event.shard[0] == number] == list(range(1, 41))
    first_of = [next(i for i, e in enumerate(stuck.events) if e.shard[0] == number) for number in range(3)]
    last_of = [max(i for i, e in enumerate(stuck.events) if e.shard[0] == number) for number in range(3)]
    assert max(first_of) < min(last_of), "no shard waits until another one is done"


async def test_a_hold_that_lasts_too_long_is_congestion(
    shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    shard.hand_over(events(range(1, 50)))
    await clock.advance(9.5)
    assert (congested, shard.may_open()) == ([], True)
    await clock.advance(0.5)
    assert congested == ["sink"]
    shard.hand_over(events(range(50, 60)))
    assert shard.resume_seq(SESSION, 59) == 49, "what it refused must come again"
    await clock.advance(44.5)
    assert (congested, shard.may_open()) == (["sink"], False)
    await clock.advance(0.5)
    assert shard.may_open(), "the session must not expire"
    shard.connection_opened()
    shard.hand_over(events(range(50, 70)))
    await mend(stuck, clock)
    assert stuck.seqs == list(range(1, 70))


async def test_a_hold_is_not_too_long_for_a_connection_that_has_brought_nothing_yet(
    shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    """During a dial nothing can act on the report, and a congested publisher would refuse the whole replay."""
    shard.hand_over(events(range(1, 50)))
    await clock.advance(5.0)
    shard.connection_opened()
    await clock.advance(30.0)
    assert congested == []
    shard.hand_over(events(range(50, 60)))
    assert shard.resume_seq(SESSION, 59) == 59
    await clock.advance(9.9)
    assert congested == []
    await clock.advance(0.2)
    assert congested == ["sink"]


async def test_a_congested_publisher_that_drains_lets_the_shard_reconnect_at_once(
    shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    shard.hand_over(events(range(1, 31)))
    await clock.advance(10.1)
    assert (congested, shard.may_open()) == (["sink"], False)
    await mend(stuck, clock)
    assert shard.may_open()
    assert stuck.seqs == list(range(1, 31)), "what was held when it happened is not thrown away"
    shard.hand_over(events([31]))
    assert shard.resume_seq(SESSION, 31) == 30, "still the old connection: there may be a hole before this one"
    shard.connection_opened()
    shard.hand_over(events([31]))
    assert shard.resume_seq(SESSION, 31) == 31


async def test_a_congested_publisher_asks_to_wait_while_a_large_event_is_still_held(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    """Its queue is half empty, but the next event still does not fit."""
    sink = Sink()
    fan_out.add(sink, DeliveryOptions(required=True, max_bytes=100))
    await fan_out.open()
    sink.failing = OSError("the disk is away")
    shard.hand_over(events([1], size=90))
    await settle_loop()  # that one is being published
    shard.hand_over([*events([2], size=40), *events([3], size=80)])
    await clock.advance(10.1)
    assert fan_out.health[0].queued_bytes == 120
    assert not shard.may_open()
    await mend(sink, clock)
    assert shard.may_open()


async def test_what_is_held_while_a_session_is_opened_shuts_nobody_out(
    shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    """Dialling and waiting for a ticket may take a minute, without a reaction to congestion: READY must be accepted."""
    shard.hand_over(events(range(1, 50)))
    shard.connection_opened()
    await clock.advance(60.0)
    assert congested == []
    shard.hand_over([*events([1], kind="READY", session=NEXT_SESSION), *events([2], session=NEXT_SESSION)])
    assert shard.resume_seq(NEXT_SESSION, 99) == 2
    await clock.advance(10.1)
    assert congested == ["sink"], "from the first event on, the time counts as ever"
    await mend(stuck, clock)
    assert stuck.seqs == [*range(1, 50), 1, 2]


async def test_a_connection_that_was_opened_is_not_asked_to_wait(
    shard: ShardDelivery, stuck: Sink, clock: FakeClock
) -> None:
    shard.connection_opened()  # the first one: no event has come yet
    shard.hand_over(events(range(1, 50)))
    await clock.advance(10.0)
    assert shard.holding == ["sink"]
    shard.connection_opened()
    assert shard.holding == []


async def test_a_congested_publisher_asks_to_wait_until_less_than_half_of_its_queue_is_full(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    class OneByOne(Sink):
        """A publisher that accepts one batch each time it is released."""

        def __init__(self) -> None:
            super().__init__()
            self.free = asyncio.Event()

        async def publish(self, events: Sequence[Event]) -> None:
            await self.free.wait()
            self.free.clear()

    sink = OneByOne()
    fan_out.add(sink, REQUIRED)
    await fan_out.open()
    shard.hand_over(events([1]))
    await settle_loop()  # being published
    shard.hand_over(events(range(2, 17)))  # ten in the queue, five held
    await clock.advance(10.0)
    for asked in (["sink"], []):
        sink.free.set()
        await settle_loop()
        assert shard.holding == asked


async def test_a_hold_that_fills_up_before_its_time_is_reported_once(
    shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    shard.hand_over(events(range(1, 50)))
    await clock.advance(5.0)
    shard.hand_over(events(range(50, 5_000)))
    assert congested == ["sink"]
    await clock.advance(6.0)
    assert congested == ["sink"]


@pytest.mark.parametrize(("size", "fitting"), [(2, HOLD_EVENTS), (HOLD_BYTES // 4, 4)])
async def test_a_hold_that_is_full_is_congestion_at_once(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, congested: list[str], size: int, fitting: int
) -> None:
    shard.hand_over(events([1]))
    await settle_loop()  # being published
    shard.hand_over(events(range(2, 12)))  # the queue
    shard.hand_over(events(range(12, 12 + fitting), size=size))
    assert congested == []
    shard.hand_over(events(range(12 + fitting, 20 + fitting), size=size))
    shard.hand_over(events([20 + fitting]))
    assert congested == ["sink"], "once per connection"
    assert shard.resume_seq(SESSION, 99_999) == 11 + fitting
    assert fan_out.health[0].queued_events == 10 + fitting
    other = fan_out.shard(1)
    other.hand_over(events([1], shard=1))
    assert (other.resume_seq(SESSION, 1), other.may_open(), congested) == (1, True, ["sink"]), "each shard has its own"


async def test_ready_is_held_even_when_the_hold_is_full(
    shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    shard.hand_over(events(range(1, 5_000)))
    await settle_loop()  # a batch is being published, and held events have moved up: fill the room that they left
    shard.connection_opened()
    shard.hand_over(events(range(1, 5_000)))
    assert congested == ["sink", "sink"]
    shard.connection_opened()
    shard.hand_over([*events([1], kind="READY", session=NEXT_SESSION), *events([2], session=NEXT_SESSION)])
    assert shard.resume_seq(NEXT_SESSION, 2) == 1, "Discord replays what comes after READY, but not READY"
    shard.connection_opened()
    await mend(stuck, clock)
    shard.hand_over(events([2, 3], session=NEXT_SESSION))
    await settle_loop()
    assert [e.seq for e in stuck.events if e.session == NEXT_SESSION] == [1, 2, 3]


async def test_a_required_publisher_is_tried_for_as_long_as_it_takes(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, clock: FakeClock
) -> None:
    shard.hand_over(events([1]))
    await clock.advance(3600.0)
    health = fan_out.health[0]
    assert (health.state, health.dropped, health.in_flight) == (PublisherState.RETRYING, 0, 1)
    assert "the disk is away" in health.last_error
    await mend(stuck, clock)
    assert stuck.seqs == [1]
    assert fan_out.health[0].state is PublisherState.HEALTHY


async def test_a_blocking_publisher_that_is_removed_is_waited_for_no_more(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    shard.hand_over(events(range(1, 5_000)))
    assert not shard.may_open()
    fan_out.remove("sink")
    assert (shard.may_open(), shard.resume_seq(SESSION, 4_999), shard.delivered(SESSION)) == (True, 4_999, 4_999)
    await clock.advance(2.0)
    assert congested == ["sink"]


async def test_a_publisher_that_is_leaving_interrupts_no_connection(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    """Its hold would have become too long half a second after it was removed."""
    shard.hand_over(events(range(1, 50)))
    await clock.advance(9.5)
    fan_out.remove("sink")
    await clock.advance(2.0)
    assert congested == []


async def test_what_is_not_accepted_at_the_end_is_counted_and_not_delivered(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, congested: list[str], clock: FakeClock
) -> None:
    stuck.failing = None
    shard.hand_over(events([1]))
    await settle_loop()
    stuck.failing = OSError("full")
    shard.hand_over(events(range(2, 60)))
    await settle_loop()
    draining = asyncio.ensure_future(fan_out.drain(0.5))
    await clock.advance(0.6)
    await draining
    assert shard.delivered(SESSION) == 1
    closing = asyncio.ensure_future(fan_out.close())
    await clock.advance(1.0)
    await closing
    health = fan_out.health[0]
    assert (health.dropped, health.queued_events, health.queued_bytes, health.in_flight) == (58, 0, 0, 0)
    await clock.advance(11.0)
    assert congested == [], "nor is a connection interrupted for it"


async def test_a_congested_publisher_that_was_closed_asks_nobody_to_wait(
    fan_out: FanOut, shard: ShardDelivery, stuck: Sink, clock: FakeClock
) -> None:
    shard.hand_over(events(range(1, 50)))
    await clock.advance(10.0)
    assert shard.holding == ["sink"]
    await fan_out.close()
    assert shard.holding == []


async def test_one_that_is_added_late_is_opened_for_as_long_as_it_takes(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    await fan_out.open()
    late = Sink("late")
    late.failing = OSError("not mounted yet")
    fan_out.add(late, REQUIRED)
    shard.hand_over(events([1, 2]))
    await clock.advance(400.0)
    assert fan_out.health[0].state is PublisherState.RETRYING
    assert "not mounted yet" in fan_out.health[0].last_error
    await mend(late, clock)
    assert (late.opened, late.seqs) == (1, [1, 2])


async def test_an_adopted_session_is_announced_to_who_answers_its_readers(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    class Answering(Sink):
        def answer_from(self, bus_api: BusApi) -> None: ...

        def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
            told.append((shard, session, seq))

    told: list[tuple[tuple[int, int], str, int]] = []
    fan_out.add(Answering("answers"))
    fan_out.add(Sink())
    shard.adopt((0, 1), SESSION, 40, clock.now())
    assert told == [((0, 1), SESSION, 40)]
