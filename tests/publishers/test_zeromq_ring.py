"""The ring: what it holds, what it drops, and what it reports about the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discorder.publishers.zeromq.ring import ENTRY_OVERHEAD, Ring
from discorder.publishers.zeromq.shard_log import CHUNK_OVERHEAD, COMPACT_AT, LogEntry, LogReader
from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event, StreamPosition

MakeEvent = Callable[..., Event]
SESSION = "0123456789abcdef"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
LARGE = 1 << 40
OVERHEAD = CHUNK_OVERHEAD + ENTRY_OVERHEAD  # of a document that is appended alone


def append(ring: Ring, event: Event, now: float = 0.0) -> None:
    ring.append([event], [event.document], now)


def drained(replay: LogReader) -> Iterator[LogEntry]:
    """Return what a client gets that reads at once."""
    while (entry := replay.look()) is not None:
        if replay.wanted(entry):
            yield entry
        replay.step()


def replay(ring: Ring, session: str | None, after: int = 0, *types: str) -> LogReader:
    log = ring.log(0)
    assert log is not None
    asked = None if session is None else StreamPosition(session, after)
    return LogReader(log, asked, frozenset(name.encode() for name in types) or None)


def seqs(found: LogReader) -> list[int]:
    return [entry.seq for entry in drained(found)]


@pytest.fixture
def ring() -> Ring:
    return Ring(max_bytes=LARGE, max_seconds=600)


def test_everything_after_a_place_comes_again_and_is_complete(ring: Ring, make_event: MakeEvent) -> None:
    for seq in range(1, 101):
        append(ring, make_event(seq))
    found = replay(ring, SESSION, 41)
    assert found.complete
    assert found.last == (SESSION, 100)
    assert seqs(found) == list(range(42, 101))


def test_documents_are_those_that_were_published(ring: Ring, make_event: MakeEvent) -> None:
    event = make_event(7, data='{"a" : "ü\\u0041"}'.encode())
    append(ring, event)
    (entry,) = drained(replay(ring, None))
    assert entry.document is event.document


def test_only_the_types_that_were_asked_for_come(ring: Ring, make_event: MakeEvent) -> None:
    for seq, kind in enumerate(["READY", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK", "READY"], 1):
        append(ring, make_event(seq, kind))
    assert seqs(replay(ring, SESSION, 0, "MESSAGE_DELETE")) == [2]


def test_bytes_are_bounded_and_what_is_given_up_is_not_vouched_for(make_event: MakeEvent) -> None:
    size = len(make_event(10).document) + OVERHEAD
    ring = Ring(max_bytes=3 * size, max_seconds=600)
    for seq in range(10, 20):
        append(ring, make_event(seq))
        assert ring.held_bytes <= 3 * size
    assert len(ring) == 3
    late, in_time = replay(ring, SESSION, 15), replay(ring, SESSION, 16)
    assert (late.complete, late.since, seqs(late)) == (False, (SESSION, 16), [17, 18, 19])
    assert (in_time.complete, seqs(in_time)) == (True, [17, 18, 19])


def test_age_is_bounded(ring: Ring, make_event: MakeEvent) -> None:
    for seq in range(1, 4):
        append(ring, make_event(seq), now=seq * 100.0)
    append(ring, make_event(4), now=750.0)
    ring.trim(now=750.0)
    assert seqs(replay(ring, None)) == [2, 3, 4]
    ring.trim(now=5_000.0)
    assert (len(ring), ring.held_bytes) == (0, 0)
    assert not replay(ring, SESSION, 3).complete
    assert replay(ring, SESSION, 4).complete, "who has everything lacks nothing, however long nothing came"


def test_what_is_too_old_goes_however_young_the_documents_of_another_shard_are(
    ring: Ring, make_event: MakeEvent
) -> None:
    append(ring, make_event(1, shard=(0, 2)), now=100.0)
    append(ring, make_event(1, shard=(1, 2)), now=700.0)
    ring.trim(now=750.0)
    assert len(ring) == 1
    assert seqs(replay(ring, None)) == []


def test_what_came_before_the_first_event_here_is_not_known(ring: Ring, make_event: MakeEvent) -> None:
    """The process resumes an old session."""
    append(ring, make_event(91))
    assert not replay(ring, SESSION, 89).complete
    assert replay(ring, SESSION, 90).complete
    assert replay(ring, SESSION, 120).complete, "a subscriber may be ahead of a plane that resumed from before"


def test_what_an_earlier_process_delivered_is_known_before_anything_comes(ring: Ring, make_event: MakeEvent) -> None:
    """Discord's numbers have gaps, so the first event does not show it."""
    ring.begin((0, 1), SESSION, 90)
    (position,) = ring.positions()
    assert (position.since, position.last, position.types) == (90, 90, {})
    append(ring, make_event(105))
    assert replay(ring, SESSION, 90).complete
    assert not replay(ring, SESSION, 89).complete
    ring.begin((0, 1), SESSION, 90)
    assert seqs(replay(ring, SESSION, 90)) == [105]


def test_a_session_that_is_not_known_gets_everything_and_is_told(ring: Ring, make_event: MakeEvent) -> None:
    append(ring, make_event(1, "READY"))
    append(ring, make_event(2))
    found = replay(ring, "ffffffffffffffff", 40)
    assert (found.complete, found.since, seqs(found)) == (False, (SESSION, 0), [1, 2])


def test_a_replay_goes_on_into_the_next_session(ring: Ring, make_event: MakeEvent) -> None:
    for seq in range(1, 4):
        append(ring, make_event(seq, session="a"))
    append(ring, gap(LossKind.SESSION, "a", 4, None))
    for seq in range(1, 3):
        append(ring, make_event(seq, session="b"))
    found = replay(ring, "a", 2)
    assert found.complete
    assert found.last == ("b", 2)
    assert [(entry.seq, entry.topic) for entry in drained(found)] == [
        (3, b"MESSAGE_CREATE"),
        (3, b"DISCORDER_GAP"),
        (1, b"MESSAGE_CREATE"),
        (2, b"MESSAGE_CREATE"),
    ]


def test_a_session_of_which_nothing_is_left_is_forgotten(make_event: MakeEvent) -> None:
    ring = Ring(max_bytes=LARGE, max_seconds=10)
    append(ring, make_event(1, session="a"), now=0)
    append(ring, make_event(1, session="b"), now=20)
    ring.trim(now=20)
    assert not replay(ring, "a", 1).complete
    assert replay(ring, "b", 0).complete


def test_what_a_queue_dropped_before_it_came_here_is_a_hole(ring: Ring, make_event: MakeEvent) -> None:
    for seq in (1, 2):
        append(ring, make_event(seq))
    append(ring, gap(LossKind.PUBLISHER, SESSION, 3, 8))
    append(ring, make_event(9))
    found = replay(ring, SESSION, 2)
    assert (found.complete, found.since) == (False, (SESSION, 8))
    assert [entry.topic for entry in drained(found)] == [b"DISCORDER_GAP", b"MESSAGE_CREATE"]
    assert replay(ring, SESSION, 8).complete
    (position,) = ring.positions()
    assert (position.since, position.last, position.types) == (8, 9, {"MESSAGE_CREATE": 9})


def test_a_hole_in_a_later_session_is_told_to_who_comes_from_an_earlier_one(ring: Ring, make_event: MakeEvent) -> None:
    append(ring, make_event(1, session="a"))
    append(ring, make_event(1, session="b"))
    append(ring, gap(LossKind.PUBLISHER, "b", 2, 5))
    append(ring, make_event(6, session="b"))
    found = replay(ring, "a", 1)
    assert (found.complete, found.since) == (False, ("b", 5))


def test_a_batch_may_mix_shards_records_and_events_that_were_kept_before(ring: Ring, make_event: MakeEvent) -> None:
    """A queue that fell behind passes on such a batch."""
    append(ring, make_event(1))
    batch = [
        make_event(1),
        make_event(7, shard=(1, 1), session="b"),
        make_event(2),
        gap(LossKind.PUBLISHER, SESSION, 3, 5),
        make_event(6),
        make_event(8, shard=(1, 1), session="b"),
        make_event(1, session="c"),
    ]
    ring.append(batch, [event.document for event in batch], 0.0)
    assert seqs(replay(ring, SESSION, 1)) == [2, 5, 6, 1]
    assert not replay(ring, SESSION, 4).complete
    assert len(ring) == 7
    other = ring.log(1)
    assert other is not None
    assert seqs(LogReader(other, StreamPosition("b", 7), None)) == [8]


def test_a_replay_ends_with_what_was_there_when_it_began(ring: Ring, make_event: MakeEvent) -> None:
    for seq in range(1, 4):
        append(ring, make_event(seq))
    found, empty = replay(ring, SESSION, 1), replay(ring, SESSION, 3)
    for seq in range(4, 7):
        append(ring, make_event(seq), now=seq)
    assert (seqs(found), seqs(empty), found.last) == ([2, 3], [], (SESSION, 3))
    assert seqs(replay(ring, SESSION, 3)) == [4, 5, 6]


def test_the_same_event_is_kept_once(ring: Ring, make_event: MakeEvent) -> None:
    for seq in (1, 2, 1, 2, 3):
        append(ring, make_event(seq))
    assert seqs(replay(ring, None)) == [1, 2, 3]


def test_who_reads_slower_than_the_ring_forgets_is_told(make_event: MakeEvent) -> None:
    ring = Ring(max_bytes=LARGE, max_seconds=10)
    for seq in range(1, 6):
        append(ring, make_event(seq), now=0)
    found = replay(ring, SESSION, 0)
    assert found.complete
    first = found.look()
    assert first is not None
    assert first.seq == 1
    found.step()
    append(ring, make_event(6), now=100)
    ring.trim(now=100)
    assert seqs(found) == []
    assert (found.complete, found.since, found.last) == (False, (SESSION, 5), (SESSION, 5))


def test_a_replay_and_the_next_session_keep_their_places_when_the_list_is_moved_together(make_event: MakeEvent) -> None:
    """The list is moved together while a client reads: its next document stays the same."""
    held = COMPACT_AT + 100
    ring = Ring(max_bytes=held * (len(make_event(1_000).document) + OVERHEAD), max_seconds=600)
    later = "fedcba9876543210"

    def publish(*places: int) -> None:
        for place in range(*places):
            append(ring, make_event(1_000 + place, session=SESSION if place < 1_150 else later))

    publish(2_200)
    reading, read = replay(ring, SESSION, 2_099), list[int]()
    while len(read) < 60 and (entry := reading.look()) is not None:
        read.append(entry.seq)
        reading.step()
    publish(2_200, 2 * held + 12)  # the list is moved together when half of it is dropped
    assert [*read, *seqs(reading)] == list(range(2_100, 3_200))
    assert reading.complete
    for session, after in ((SESSION, 2_140), (later, 3_200)):
        found = replay(ring, session, after)
        assert (found.complete, seqs(found)) == (True, list(range(after + 1, 3_260)))


def test_shards_share_the_bounds_and_nothing_else(make_event: MakeEvent) -> None:
    ring = Ring(max_bytes=LARGE, max_seconds=600)
    append(ring, make_event(1, shard=(1, 2), session="b"))
    append(ring, make_event(1, shard=(0, 2), session="a"))
    assert [(position.shard, position.session) for position in ring.positions()] == [((0, 2), "a"), ((1, 2), "b")]
    assert ring.log(2) is None
    append(ring, make_event(1, shard=(0, 3), session="c"))
    found = replay(ring, "a", 1)
    assert (found.complete, found.since) == (False, ("c", 0)), "another layout is another bot"


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=300), st.integers(1, 20))
def test_a_complete_replay_is_what_was_published_after_the_place(steps: list[tuple[int, bool]], held: int) -> None:
    """This holds for any sequence of sessions, gaps in the numbers and size of the ring."""

    def make(session: str, seq: int) -> Event:
        return Event("T", (0, 1), seq, None, session, MOMENT, b"{}")

    ring = Ring(max_bytes=held * (len(make("s00", 10).document) + OVERHEAD), max_seconds=600)
    published: list[tuple[str, int]] = []
    session, seq = 0, 0
    for step, renew in steps:
        session, seq = (session + 1, 1) if renew else (session, seq + step)
        label = f"s{session:02d}"
        append(ring, make(label, seq))
        published.append((label, seq))
        for asked in published[-2 * held :]:
            found = replay(ring, *asked)
            got = [(msgspec.json.decode(e.document)["session"], e.seq) for e in drained(found)]
            wanted = published[published.index(asked) + 1 :]
            assert got == wanted[len(wanted) - len(got) :]
            assert found.complete == (len(got) == len(wanted) and ring_knows(ring, asked[0]))


def ring_knows(ring: Ring, session: str) -> bool:
    log = ring.log(0)
    assert log is not None
    return session in {run.session for run in log.runs}


def gap(kind: LossKind, session: str, first: int, last: int | None) -> Event:
    return gap_record((0, 1), session, MOMENT, LostEvents(kind, None, first, last, "test", MOMENT, MOMENT))


@pytest.mark.parametrize("session", [None, "session nobody saw", "a1"])
def test_a_replay_of_no_types_holds_no_documents(session: str | None, make_event: MakeEvent) -> None:
    """The client only asks whether the ring reaches back, even if the answer is no."""
    ring = Ring(max_bytes=1 << 20, max_seconds=600.0)
    for seq in range(1, 4):
        append(ring, make_event(seq))
    log = ring.log(0)
    assert log is not None
    asked = None if session is None else StreamPosition(session, 1)
    replay = LogReader(log, asked, frozenset())
    assert replay.exhausted
    assert replay.look() is None
