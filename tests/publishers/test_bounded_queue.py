"""The bounded queue: dropped events leave one gap per run in their place; records are bounded but never silently lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from discorder.publishers.delivery.bounded_queue import MAX_RECORDS, THINNED_TO, BoundedQueue
from discorder.publishers.delivery.gaps import GapQueue, GapRange
from discorder.publishers.options import Overflow
from discorder.records import LossKind, LostEvents, RecordType, StateChange, gap_record, state_record
from discorder.wire import Event

START = datetime(2026, 1, 1, tzinfo=UTC)
SESSION, NEXT_SESSION = "0123456789abcdef", "fedcba9876543210"
DROPPING = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST]


def event(seq: int, *, shard: int = 0, session: str = SESSION) -> Event:
    return Event("MESSAGE_CREATE", (shard, 2), seq, None, session, START + timedelta(seconds=seq), b"{}")


def state(shard: int = 0, generation: int = 1) -> Event:
    change = StateChange("Ready", "closed", "Unhealthy", "closed: 4000", generation, 1.5)
    return state_record((shard, 2), SESSION, START, change)


def lost_session(shard: int = 0) -> Event:
    return gap_record((shard, 2), SESSION, START, LostEvents(LossKind.SESSION, None, 9, None, "op 9", START, None))


def gap_of(record: Event) -> LostEvents:
    assert record.type == "DISCORDER_GAP"
    return msgspec.json.decode(record.data, type=LostEvents)


def full(overflow: Overflow, numbers: Sequence[int], *, room: int = 3) -> BoundedQueue:
    queue = BoundedQueue("sink", overflow, max_events=room, max_bytes=1_000)
    queue.extend([event(n) for n in numbers])
    return queue


def shown(events: Sequence[Event]) -> list[object]:
    """Return events as their seq, publishers' gaps as (shard, from, to), other records as their type."""
    seen: list[object] = []
    for one in events:
        if one.seq is not None:
            seen.append(one.seq)
        elif one.type == RecordType.GAP and gap_of(one).kind is LossKind.PUBLISHER:
            seen.append((one.shard[0], gap_of(one).from_seq, gap_of(one).to_seq))
        else:
            seen.append(one.type)
    return seen


@pytest.mark.parametrize(
    ("overflow", "left"),
    [(Overflow.DROP_OLDEST, [(0, 1, 5), 6, 7, 8]), (Overflow.DROP_NEWEST, [1, 2, 3, (0, 4, 8)])],
)
def test_a_run_of_drops_leaves_one_gap_at_its_place(overflow: Overflow, left: list[object]) -> None:
    queue = full(overflow, range(1, 5))
    assert queue.extend([event(n) for n in range(5, 9)]) == 4
    assert (queue.events, len(queue)) == (3, 4), "a gap takes no room from events"
    assert queue.gaps == 1
    taken = queue.take(100, 1_000)
    assert shown(taken) == left
    assert (queue.events, queue.bytes, len(queue)) == (0, 0, 0)


def test_the_gap_says_who_dropped_why_and_from_when_to_when() -> None:
    queue = full(Overflow.DROP_OLDEST, range(1, 6))
    record = queue.take(1, 1)[0]
    assert (record.shard, record.session, record.seq, record.prev) == ((0, 2), SESSION, None, None)
    assert gap_of(record) == LostEvents(
        kind=LossKind.PUBLISHER,
        publisher="sink",
        from_seq=1,
        to_seq=2,
        cause="the queue of publisher sink is full (drop_oldest)",
        start=START + timedelta(seconds=1),
        end=START + timedelta(seconds=2),
    )


@pytest.mark.parametrize(
    ("overflow", "first", "second"),
    [
        (Overflow.DROP_OLDEST, [(0, 1, 2), 3], [(0, 4, 5), 6, 7, 8]),
        (Overflow.DROP_NEWEST, [1, 2], [3, (0, 4, 5), 6, 7, (0, 8, 8)]),
    ],
)
def test_what_is_dropped_after_a_gap_was_taken_is_another_run(
    overflow: Overflow, first: list[object], second: list[object]
) -> None:
    queue = full(overflow, range(1, 6))
    assert shown(queue.take(2, 1_000)) == first
    queue.extend([event(n) for n in range(6, 9)])
    assert shown(queue.take(100, 1_000)) == second


@pytest.mark.parametrize("overflow", DROPPING)
def test_each_shard_and_session_has_runs_of_its_own(overflow: Overflow) -> None:
    queue = full(overflow, [1])
    both = [event(n, shard=shard) for n in range(2, 12) for shard in (0, 1)]
    queue.extend([*both, *(event(n, session=NEXT_SESSION) for n in range(1, 12))])
    records = [one for one in queue.take(100, 1_000) if one.seq is None]
    runs = {(record.shard[0], record.session) for record in records}
    assert len(records) == len(runs)
    assert runs == {(0, SESSION), (1, SESSION), (0, NEXT_SESSION)}


def test_records_are_passed_over_by_drops_and_part_two_runs_of_their_shard() -> None:
    queue = full(Overflow.DROP_OLDEST, [1, 2])
    queue.append(state(shard=1))
    queue.append(lost_session())
    assert queue.extend([event(n) for n in range(3, 9)]) == 5
    assert shown(queue.take(100, 1_000)) == [(0, 1, 2), "DISCORDER_STATE", "DISCORDER_GAP", (0, 3, 5), 6, 7, 8]


def test_a_batch_that_is_put_back_is_one_run_with_what_is_dropped_next() -> None:
    queue = full(Overflow.DROP_OLDEST, range(1, 6), room=5)
    for last in (5, 7, 9):
        batch = queue.take(2, 1_000)
        assert queue.put_back(batch, "it failed") == sum(one.seq is not None for one in batch)
        queue.extend([event(last + 1), event(last + 2)])
    queue.extend([event(n) for n in range(12, 20)])
    taken = queue.take(100, 1_000)
    assert shown(taken) == [(0, 1, 14), 15, 16, 17, 18, 19]
    assert gap_of(taken[0]).cause == "it failed", "the first cause of a run is the one to look at"


def test_a_batch_that_is_put_back_is_one_run_with_what_was_dropped_behind_it_meanwhile() -> None:
    queue = full(Overflow.DROP_OLDEST, [1, 2, 3])
    batch = queue.take(2, 1_000)
    queue.extend([event(n) for n in range(4, 8)])
    queue.put_back(batch, "it failed")
    assert shown(queue.take(100, 1_000)) == [(0, 1, 4), 5, 6, 7]


def test_a_record_always_fits_and_is_never_dropped_by_the_policy() -> None:
    for overflow in Overflow:
        queue = full(overflow, [1, 2, 3])
        assert queue.fits(state())
        assert not queue.fits(event(4))
        queue.append(state())
        assert queue.events == 3
        assert shown(queue.take(100, 1_000)) == [1, 2, 3, "DISCORDER_STATE"]


@pytest.mark.parametrize("overflow", DROPPING)
def test_records_are_bounded_and_it_is_the_gaps_that_stay(overflow: Overflow) -> None:
    """A publisher hangs for weeks while the connection flaps: its queue does not grow, and every gap is reported."""
    queue = full(overflow, [1, 2, 3])
    seq = 3
    for generation in range(5_000):
        queue.append(state(generation=generation))
        if generation % 10 == 0:
            queue.append(lost_session(shard=1))
        seq += 1
        queue.extend([event(seq)])
        assert len(queue) - queue.events <= MAX_RECORDS
    taken = queue.take(10_000, 10_000)
    shapes = shown(taken)
    assert shapes.count("DISCORDER_GAP") == 500
    told = [one for one in shapes if isinstance(one, int)]
    told += [n for one in shapes if isinstance(one, tuple) for n in range(one[1], one[2] + 1)]
    assert sorted(told) == list(range(1, seq + 1)), "each event is there, or a gap tells of it"
    newest = msgspec.json.decode(next(one for one in reversed(taken) if one.type == "DISCORDER_STATE").data)
    assert newest["generation"] == 4_999, "of the states the oldest go"


def test_too_many_gaps_of_a_session_become_one_that_spans_what_lies_between() -> None:
    """A queue that is full in bytes takes the small events and drops the large ones: each run has one event."""
    queue = BoundedQueue("sink", Overflow.DROP_NEWEST, max_events=10_000, max_bytes=100_000)
    large = b"x" * 90_000
    queue.extend([dispatch(1, large)])
    for seq in range(2, 4_000, 2):
        queue.extend([dispatch(seq, large), dispatch(seq + 1, b"{}")])
        assert len(queue) - queue.events <= MAX_RECORDS
    shapes = shown(queue.take(20_000, 10_000_000))
    told = {n for one in shapes if isinstance(one, tuple) for n in range(one[1], one[2] + 1)}
    arrived = {one for one in shapes if isinstance(one, int)}
    assert arrived == {1, *range(3, 4_000, 2)}
    assert told >= set(range(2, 4_000, 2)), "each event is there, or a gap tells of it"


def dispatch(seq: int, data: bytes) -> Event:
    return Event("MESSAGE_CREATE", (0, 2), seq, None, SESSION, START, data)


@pytest.mark.parametrize("overflow", DROPPING)
def test_records_that_come_with_events_keep_their_place(overflow: Overflow) -> None:
    queue = full(overflow, [])
    assert queue.extend([event(1), state(), event(2)]) == 0
    assert shown(queue.take(100, 1_000)) == [1, "DISCORDER_STATE", 2]


def test_records_that_are_put_back_are_bounded_too() -> None:
    queue = full(Overflow.DROP_OLDEST, [])
    for _ in range(THINNED_TO):
        queue.append(state())
    batch = queue.take(250, 1_000)
    for _ in range(250):
        queue.append(state())
    assert len(queue) == THINNED_TO
    queue.put_back(batch, "it failed")
    assert len(queue) == THINNED_TO


def test_as_many_gaps_of_what_was_dropped_from_the_front_become_one_too() -> None:
    queue = full(Overflow.DROP_OLDEST, [1, 2, 3])
    for seq in range(4, 1_400, 2):
        queue.append(lost_session())  # separates the runs
        queue.extend([event(seq), event(seq + 1)])
        assert len(queue) - queue.events <= MAX_RECORDS
    told = {n for one in shown(queue.take(5_000, 10_000)) if isinstance(one, tuple) for n in range(one[1], one[2] + 1)}
    assert told == set(range(1, 1_397))


def test_what_is_dropped_after_gaps_became_one_has_a_gap_of_its_own() -> None:
    line = GapQueue("sink")
    for seq in (1, 2):
        line.append_dropped(event(seq), "full")
        line.append(lost_session())
    line.append_dropped(event(3), "full")
    line.merge_gaps()
    line.append_dropped(event(4), "full")
    items = [line.popleft() for _ in range(len(line))]
    assert [(one.from_seq, one.to_seq) for one in items if isinstance(one, GapRange)] == [(1, 3), (4, 4)]


def test_while_there_are_states_to_leave_out_it_is_the_oldest_of_them_that_go_and_no_gap() -> None:
    queue = full(Overflow.DROP_OLDEST, [1], room=1)
    for seq in (2, 3):
        queue.append(lost_session())
        queue.extend([event(seq)])
    for generation in range(MAX_RECORDS - 4):
        queue.append(state(generation=generation))
    assert len(queue) - queue.events == MAX_RECORDS, "so many are kept"
    queue.append(state(generation=MAX_RECORDS))
    assert len(queue) - queue.events == THINNED_TO
    taken = queue.take(5_000, 10_000)
    assert shown(taken)[:5] == [(0, 1, 1), "DISCORDER_GAP", (0, 2, 2), "DISCORDER_GAP", 3]
    left = [msgspec.json.decode(one.data)["generation"] for one in taken[5:]]
    assert left == [*range(101, MAX_RECORDS - 4), MAX_RECORDS]


def test_a_gap_of_a_lost_session_that_is_put_back_comes_again_as_what_it_is() -> None:
    queue = full(Overflow.DROP_OLDEST, [])
    queue.append(gap_record((0, 2), SESSION, START, LostEvents(LossKind.SESSION, None, 9, None, "op 9", START, START)))
    queue.put_back(queue.take(1, 1), "it failed")
    assert gap_of(queue.take(1, 1)[0]).kind is LossKind.SESSION


def test_bytes_may_be_filled_to_the_last_one() -> None:
    queue = BoundedQueue("sink", Overflow.DROP_OLDEST, max_events=10, max_bytes=4)
    assert queue.extend([event(1), event(2)]) == 0, "two bytes each"
    assert not queue.fits(event(3))
    queue.take(1, 1)
    assert queue.fits(event(3))


def test_one_that_blocks_warns_above_four_fifths_and_is_calm_below_a_half(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "discorder.publishers")
    queue = full(Overflow.BLOCK, [], room=10)
    for seq in range(8):
        queue.append(event(seq))
    assert caplog.records == []
    queue.append(event(9))
    assert "90 % full (9 events, 18 bytes), policy block" in caplog.text
    queue.take(4, 1_000)
    assert "caught up" not in caplog.text, "half full"
    queue.take(1, 1_000)
    assert "caught up: its queue is 40 % full" in caplog.text


def test_a_batch_ends_before_the_event_that_would_make_it_too_large() -> None:
    queue = full(Overflow.DROP_OLDEST, [1, 2, 3])
    assert shown(queue.take(100, 4)) == [1, 2], "two bytes each"
    assert shown(queue.take(100, 1)) == [3], "the first one goes, whatever its size"


def test_even_gaps_are_bounded_when_there_is_nothing_else() -> None:
    queue = full(Overflow.BLOCK, [1, 2, 3])
    for _ in range(2 * MAX_RECORDS):
        queue.append(lost_session())
    assert len(queue) - queue.events <= MAX_RECORDS


def test_the_oldest_event_is_found_behind_a_record() -> None:
    """The lag is the age of an event; a record at the front has no age."""
    queue = full(Overflow.DROP_OLDEST, [])
    queue.extend([state()])
    assert queue.oldest is None
    queue.extend([lost_session(), event(4), event(5)])
    assert queue.oldest == event(4)


def test_after_it_was_cleared_the_next_filling_is_warned_of_again(caplog: pytest.LogCaptureFixture) -> None:
    """The cleared events do not belong to the same run."""
    queue = full(Overflow.DROP_OLDEST, [1, 2, 3, 4])
    assert queue.clear() == 3
    assert (len(queue), queue.events, queue.bytes, queue.oldest) == (0, 0, 0, None)
    queue.extend([event(n) for n in (5, 6, 7, 8)])
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2
    assert shown(queue.take(100, 1_000)) == [(0, 5, 5), 6, 7, 8], "a gap of its own"
