"""Records in the fan-out: which publisher gets which, in which place, and where a gap begins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.publishers.delivery.fanout import DeliveryOptions, FanOut, PublisherState
from discorder.publishers.delivery.shard_progress import LostSession, ShardDelivery
from discorder.publishers.options import EventSelection, Overflow
from discorder.records import LossKind, LostEvents, StateChange, state_record
from discorder.wire import Event

SESSION, NEXT_SESSION = "0123456789abcdef", "fedcba9876543210"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Sink:
    """A durable publisher that accepts a batch unless it fails or is held."""

    durable = True

    def __init__(self, name: str = "sink") -> None:
        self.name = name
        self.everything: list[Event] = []
        self.failing: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        assert events, "nobody is bothered with nothing"
        await self.free.wait()
        if self.failing is not None:
            raise self.failing
        self.everything.extend(events)

    async def close(self) -> None: ...

    @property
    def shapes(self) -> list[object]:
        """Return events as their seq, gaps as (kind, from, to), other records as their type."""
        return [_shape(event) for event in self.everything]


class Cramped(Sink):
    """A publisher with `publish_nowait` that accepts only so much at a time."""

    room = 2

    def publish_nowait(self, events: Sequence[Event]) -> int:
        taken = min(self.room, len(events))
        self.everything.extend(events[:taken])
        self.room -= taken
        return taken


class Chatty(Sink):
    """A publisher that selects all records."""

    all_records = True


def _shape(event: Event) -> object:
    if event.seq is not None:
        return event.seq
    if event.type != "DISCORDER_GAP":
        return event.type
    gap = msgspec.json.decode(event.data, type=LostEvents)
    return gap.kind.value, gap.from_seq, gap.to_seq


def events(numbers: Sequence[int], *, session: str = SESSION, at: datetime = START) -> list[Event]:
    return [Event("MESSAGE_CREATE", (0, 1), n, None, session, at, b"{}") for n in numbers]


def state() -> Event:
    return state_record((0, 1), SESSION, START, StateChange("Ready", "closed", "Unhealthy", "closed", 1, 1.0))


def lost(delivered: int, session: str = SESSION) -> LostSession:
    return LostSession((0, 1), session, delivered, "op 9 false", START)


@pytest.fixture
def shard(fan_out: FanOut) -> ShardDelivery:
    return fan_out.shard(0)


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
async def test_a_publisher_that_hangs_is_told_once_per_run_and_nobody_else_is(
    fan_out: FanOut, shard: ShardDelivery, overflow: Overflow
) -> None:
    hanging, lively = Sink("hanging"), Sink("lively")
    fan_out.add(hanging, DeliveryOptions(max_events=5, overflow=overflow))
    fan_out.add(lively)
    await fan_out.open()
    hanging.free.clear()
    shard.hand_over(events([1]))
    await settle_loop()
    for seq in range(2, 60):
        shard.hand_over(events([seq]))
    hanging.free.set()
    await settle_loop()
    gaps = [shape for shape in hanging.shapes if isinstance(shape, tuple)]
    assert gaps == [("publisher", *((2, 54) if overflow is Overflow.DROP_OLDEST else (7, 59)))]
    assert (fan_out.health[0].dropped, fan_out.health[0].accepted) == (53, 6)
    await settle_loop()
    assert lively.shapes == list(range(1, 60))


async def test_a_publisher_that_raises_on_each_event_is_told_once_it_works_again(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    raising = Sink("raising")
    fan_out.add(raising, DeliveryOptions(max_events=10))
    await fan_out.open()
    raising.failing = RuntimeError("no")
    for seq in range(1, 201):
        shard.hand_over(events([seq]))
        await clock.advance(1.0)
    assert fan_out.health[0].state is PublisherState.PARKED
    raising.failing = None
    await clock.advance(31.0)
    assert raising.shapes == [("publisher", 1, 190), *range(191, 201)]
    assert fan_out.health[0].dropped == 190
    gap = msgspec.json.decode(raising.everything[0].data, type=LostEvents)
    assert (gap.publisher, gap.cause) == ("raising", "publisher raising failed: RuntimeError: no")


async def test_what_publish_nowait_has_no_room_for_is_a_gap_and_what_follows_waits_behind_it(
    fan_out: FanOut, shard: ShardDelivery
) -> None:
    cramped = Cramped()
    fan_out.add(cramped)
    await fan_out.open()
    cramped.free.clear()
    shard.hand_over(events([1, 2, 3, 4, 5]))
    shard.hand_over(events([6]))
    assert (cramped.shapes, fan_out.health[0].dropped, fan_out.health[0].accepted) == ([1, 2], 3, 2)
    cramped.free.set()
    await settle_loop()
    assert cramped.shapes == [1, 2, ("publisher", 3, 5), 6]
    cramped.room = 5
    shard.hand_over(events([7]))
    assert cramped.shapes[-1] == 7, "in line again"


async def test_a_record_for_which_publish_nowait_has_no_room_waits(fan_out: FanOut, shard: ShardDelivery) -> None:
    cramped = Cramped()
    cramped.room = 0
    fan_out.add(cramped)
    await fan_out.open()
    shard.session_lost(lost(7))
    shard.announce_lost(START, ended=False)
    assert cramped.shapes == []
    await settle_loop()
    assert cramped.shapes == [("session", 8, None)]
    assert (fan_out.health[0].dropped, fan_out.health[0].failures) == (0, 0), "to have no room is no failure"


async def test_states_go_to_those_who_want_all_records_or_name_them_and_gaps_to_everybody(
    fan_out: FanOut, shard: ShardDelivery
) -> None:
    def selected(*include: str, exclude: Sequence[str] = ()) -> DeliveryOptions:
        return DeliveryOptions(events=EventSelection(include=include, exclude=tuple(exclude)))

    sinks: list[tuple[Sink, DeliveryOptions, bool]] = [
        (Sink("plain"), DeliveryOptions(), False),
        (Sink("names it"), selected("MESSAGE_CREATE", "discorder_state"), True),
        (Sink("names all"), selected("*", "DISCORDER_*"), True),
        (Sink("blocks"), DeliveryOptions(overflow=Overflow.BLOCK), False),
        (Chatty("chatty"), DeliveryOptions(), True),
        (Chatty("chatty, only messages"), selected("MESSAGE_*"), False),
        (Chatty("chatty, but no states"), selected("*", exclude=["DISCORDER_*"]), False),
    ]
    for sink, options, _ in sinks:
        fan_out.add(sink, options)
    await fan_out.open()
    shard.announce(state())
    shard.session_lost(lost(0))
    shard.announce_lost(START, ended=True)
    await settle_loop()
    for sink, _, wants_states in sinks:
        expected = ["DISCORDER_STATE"] if wants_states else []
        assert sink.shapes == [*expected, ("session", 1, None)], sink.name


async def test_a_lost_session_is_told_once_right_before_the_next_one_begins(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    sink = Sink()
    fan_out.add(sink)
    await fan_out.open()
    shard.hand_over(events([1, 2, 3]))
    shard.session_dropped((0, 1), SESSION, "invalid_session", clock.now())
    await settle_loop()
    assert sink.shapes == [1, 2, 3]
    for session in (NEXT_SESSION, "another"):
        shard.announce_lost(START + timedelta(seconds=9), ended=False)
        shard.hand_over(events([1], session=session))
    await settle_loop()
    assert sink.shapes == [1, 2, 3, ("session", 4, None), 1, 1]
    record = sink.everything[3]
    assert (record.shard, record.session, record.received_at) == ((0, 1), SESSION, START + timedelta(seconds=9))
    gap = msgspec.json.decode(record.data, type=LostEvents)
    assert gap == LostEvents(LossKind.SESSION, None, 4, None, "invalid_session", START, START + timedelta(seconds=9))


async def test_a_gap_of_a_session_begins_after_what_each_publisher_was_offered(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    """A congested required publisher lacks more than one that kept up. For one that was added late the gap begins there, too."""
    stuck, lively, late = Sink("stuck"), Sink("lively"), Sink("late")
    stuck.free.clear()
    fan_out.add(stuck, DeliveryOptions(required=True, max_events=10))
    fan_out.add(lively)
    await fan_out.open()
    shard.hand_over(events([1]))
    await settle_loop()  # being published
    shard.hand_over(events(range(2, 21)))
    await clock.advance(11.0)  # longer than block_timeout: it is congested, and accepts no more
    shard.hand_over(events(range(21, 31)))
    fan_out.add(late)
    shard.session_dropped((0, 1), SESSION, "invalid_session", clock.now())
    shard.connection_opened()
    shard.announce_lost(clock.now(), ended=False)
    shard.hand_over(events([1], session=NEXT_SESSION))
    stuck.free.set()
    await settle_loop()
    assert stuck.shapes == [*range(1, 21), ("session", 21, None), 1]
    assert lively.shapes == [*range(1, 31), ("session", 31, None), 1]
    assert late.shapes == [("session", 31, None), 1]
    assert shard.delivered(NEXT_SESSION) == 1


async def test_the_gap_of_one_that_came_late_begins_after_the_replay_that_it_was_offered(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    early, late = Sink("early"), Sink("late")
    fan_out.add(early)
    await fan_out.open()
    shard.hand_over(events(range(1, 6)))
    fan_out.add(late)
    shard.hand_over(events([2, 3]))  # a replay that was interrupted
    shard.session_dropped((0, 1), SESSION, "invalid_session", clock.now())
    shard.announce_lost(clock.now(), ended=False)
    await settle_loop()
    assert early.shapes == [*range(1, 6), ("session", 6, None)]
    assert late.shapes == [2, 3, ("session", 4, None)]


async def test_the_gap_of_a_session_starts_when_its_last_event_came_not_when_that_was_replayed(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    sink = Sink()
    fan_out.add(sink)
    await fan_out.open()
    came, again = START + timedelta(seconds=5), START + timedelta(seconds=7)
    shard.hand_over(events([1, 2], at=came))
    shard.hand_over(events([2], at=again))
    shard.session_dropped((0, 1), SESSION, "invalid_session", START + timedelta(seconds=9))
    shard.announce_lost(clock.now(), ended=True)
    await settle_loop()
    assert msgspec.json.decode(sink.everything[-1].data, type=LostEvents).start == came


async def test_a_gap_keeps_its_place_behind_what_is_held(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    stuck = Sink("stuck")
    stuck.free.clear()
    fan_out.add(
        stuck, DeliveryOptions(required=True, max_events=10, events=EventSelection(include=("*", "DISCORDER_*")))
    )
    await fan_out.open()
    shard.hand_over(events([1]))
    await settle_loop()  # being published
    shard.hand_over(events(range(2, 31)))  # ten in the queue, the others held
    shard.announce(state())
    shard.session_lost(lost(30))
    shard.announce_lost(clock.now(), ended=False)
    shard.hand_over(events([1], session=NEXT_SESSION))
    assert fan_out.health[0].queued_events + fan_out.health[0].in_flight == 31
    stuck.free.set()
    await settle_loop()
    told = [shape for shape in stuck.shapes if shape != "DISCORDER_STATE"]
    assert told == [*range(1, 31), ("session", 31, None), 1]
    assert stuck.shapes.count("DISCORDER_STATE") == 1, "a state may overtake what is held, but it is not lost"


async def test_records_do_not_move_the_resume_point(fan_out: FanOut, shard: ShardDelivery) -> None:
    sink = Sink()
    fan_out.add(sink, DeliveryOptions(required=True, events=EventSelection(include=("*", "DISCORDER_*"))))
    await fan_out.open()
    shard.hand_over(events([1, 2]))
    shard.announce(state())
    await settle_loop()
    assert (shard.delivered(SESSION), shard.resume_seq(SESSION, 2), shard.behind) == (2, 2, [])
    assert fan_out.health[0].accepted == 2


async def test_the_gap_of_an_adopted_session_begins_after_what_was_delivered(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    sink = Sink()
    fan_out.add(sink)
    await fan_out.open()
    shard.adopt((0, 1), SESSION, 40, START - timedelta(hours=1))
    shard.session_dropped((0, 1), SESSION, "invalid_session", clock.now())
    shard.announce_lost(clock.now(), ended=True)
    await settle_loop()
    gap = msgspec.json.decode(sink.everything[0].data, type=LostEvents)
    assert (gap.from_seq, gap.start, gap.end) == (41, START - timedelta(hours=1), None)


async def test_at_the_end_what_is_still_stored_does_not_hide_what_is_lost(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    """A later process can resume the first. The second was dropped, and this is the last chance to report it."""
    sink = Sink()
    fan_out.add(sink)
    await fan_out.open()
    shard.session_lost(LostSession((0, 2), NEXT_SESSION, 5, "the shard layout changed", START, still_stored=True))
    shard.session_dropped((0, 1), SESSION, "invalid_session", clock.now())
    shard.announce_lost(clock.now(), ended=True)
    await settle_loop()
    assert [(record.session, record.shard) for record in sink.everything] == [(SESSION, (0, 1))]
    assert shard.lost_sessions == 1


async def test_draining_does_not_wait_for_a_parked_publisher(
    fan_out: FanOut, shard: ShardDelivery, clock: FakeClock
) -> None:
    raising = Sink()
    raising.failing = RuntimeError("no")
    fan_out.add(raising)
    await fan_out.open()
    shard.hand_over(events([1]))
    await clock.advance(40.0)
    assert fan_out.health[0].state is PublisherState.PARKED
    shard.hand_over(events([2]))
    draining = asyncio.ensure_future(fan_out.drain(5.0))
    await settle_loop()
    assert draining.done()
