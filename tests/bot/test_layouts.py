"""Bots and control planes that start and end with any number of shards: each event is processed, or a gap covers it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from discorder.bot.cursor import dump, load
from discorder.bot.gap_detector import GapDetector
from discorder.bot.positions import Gap, Item, SavedPosition, Shard, end_of_replay
from discorder.bot.progress import Progress
from discorder.publishers.zeromq.protocol import position_document
from discorder.publishers.zeromq.ring import Ring
from discorder.publishers.zeromq.shard_log import LogReader
from discorder.wire import Event, ReceivedEvent, StreamPosition, decode_document

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

One = tuple[Shard, str, int]  # an event: its shard, session and number


@dataclass
class MemoryCursor:
    """A cursor that survives the bot."""

    state: bytes | None = None

    def load(self) -> bytes | None:
        return self.state

    def save(self, state: bytes) -> None:
        self.state = state


@dataclass
class World:
    """A plane whose number of shards changes, and a bot with a cursor that reads one item at a time."""

    first: int  # the number of the first event of a session
    replay: bool
    shards: int = 1  # at the start; the cursor has a position of each
    published: list[One] = field(default_factory=list)
    processed: list[One | Gap] = field(default_factory=list)  # over all lives of the bot
    cursor: MemoryCursor = field(default_factory=MemoryCursor)

    def __post_init__(self) -> None:
        self._sessions = 0
        self._live: list[ReceivedEvent] = []
        self.up = False
        self.start_plane(self.shards)
        self.start_bot()
        for index in range(self.shards):
            self.dispatch(index, arrives=True)
        self._drain()
        self.read(1)
        self.progress.save()

    # the plane

    def start_plane(self, count: int) -> None:
        """Start a new process with an empty ring, and new sessions."""
        self._ring = Ring(max_bytes=100_000, max_seconds=600)
        self._count = count
        self._numbers: dict[Shard, tuple[str, int]] = {}

    def dispatch(self, index: int, *, arrives: bool) -> None:
        shard = (index % self._count, self._count)
        if shard not in self._numbers:
            self._sessions += 1
            self._numbers[shard] = (f"s{self._sessions:03d}", self.first - 1)
        session, last = self._numbers[shard]
        seq = last + 1
        self._numbers[shard] = (session, seq)
        event = Event("A", shard, seq, last if seq > self.first else 0, session, MOMENT, b"{}")
        self.published.append((shard, session, seq))
        self._ring.append([event], [event.document], 0.0)
        if arrives and self.up:
            self._receive(decode_document(event.document))

    def publish_positions(self) -> None:
        for position in self._ring.positions():
            self._receive(decode_document(position_document(position, MOMENT)))

    def answer(self, parts: int) -> None:
        """Answer each request, or as many parts of it as come through before the connection breaks."""
        for shard, ask in list(self.bot.shared.requests.items()):
            log = self._ring.log(shard[0])
            if not self.up or log is None or not log.runs or log.runs[-1].session not in self._sessions_of(shard):
                continue
            confirmed = self.bot.unconfirmed(shard)
            if confirmed is not None:
                check = LogReader(
                    log,
                    None if confirmed.session is None else StreamPosition(confirmed.session, confirmed.after),
                    frozenset(),
                )
                assert check.exhausted
                self.bot.confirm(shard, _end(check))
                ask = self.bot.shared.requests[shard]  # noqa: PLW2901  # the replay continues from there
            self.bot.begin_replay(shard)
            replay = LogReader(
                log, None if ask.session is None else StreamPosition(ask.session, max(0, ask.after)), None
            )
            for _ in range(parts):
                entry = replay.look()
                if entry is None:
                    self._take(shard, self.bot.end_replay(shard, _end(replay)))
                    break
                replay.step()
                self._take(shard, self.bot.receive_replayed(shard, decode_document(entry.document)))

    def _sessions_of(self, shard: Shard) -> set[str]:
        return {session for where, session, _ in self.published if where == shard}

    # the bot

    def start_bot(self) -> None:
        state = self.cursor.load()
        saved = None if state is None else load(state)
        self.bot = GapDetector(None, replay=self.replay, saved=saved)
        self.progress = Progress(self.cursor, self.bot)
        self._pending: deque[tuple[Shard, Iterator[Item]]] = deque()
        self._current: One | Gap | None = None
        self.up = True
        if self.replay and saved is not None:  # the list of shards
            for shard in self._numbers:
                self._take(shard, self.bot.add(shard))

    def stop_bot(self, *, clean: bool) -> None:
        if self.up and clean:
            self.progress.save()
        self.up = False

    def _receive(self, event: ReceivedEvent) -> None:
        """As a subscription does."""
        self._take(event.shard, self.bot.receive(event))

    def _take(self, shard: Shard, items: Iterator[Item]) -> None:
        """Process all earlier items; ``items`` are processed when the bot requests them."""
        self._drain()
        self._pending.append((shard, items))

    def _drain(self) -> None:
        while self._pending:
            self.read(1)

    def read(self, count: int) -> None:
        for _ in range(count):
            if not self.up:
                return
            self.progress.finish()
            if self._current is not None:
                self.processed.append(self._current)
                self._current = None
            while self._pending and self._current is None:
                shard, items = self._pending[0]
                before = self.bot.position(shard)
                item = next(items, None)
                if item is None:
                    self._pending.popleft()
                else:
                    self.progress.deliver(shard, before)
                    gap = isinstance(item, Gap)
                    self._current = item if gap else (item.shard, item.session or "", item.seq or 0)  # type: ignore[assignment,union-attr]

    def settle(self) -> None:
        if not self.up:
            self.start_bot()
        for index in range(self._count):
            self.dispatch(index, arrives=True)
        for _ in range(6):
            self.publish_positions()
            self.answer(10_000)
            self._drain()
        self.read(1)

    # the check

    def lost(self) -> list[One]:
        """Return the published events that were neither processed nor covered by a processed gap."""
        delivered = {one for one in self.processed if isinstance(one, tuple)}
        gaps = [(at, one) for at, one in enumerate(self.processed) if isinstance(one, Gap)]
        return [
            one
            for one in self.published
            if one not in delivered and not any(self._covers(at, gap, one) for at, gap in gaps)
        ]

    def _covers(self, at: int, gap: Gap, one: One) -> bool:
        """Return whether ``gap``, which was processed as item ``at``, covers an event. Two lives may process equal gaps."""
        shard, session, seq = one
        if gap.to_seq is not None or session == gap.session:
            return session == gap.session and gap.from_seq <= seq and (gap.to_seq is None or seq <= gap.to_seq)
        if shard != gap.shard and shard[1] == gap.shard[1]:
            return False
        later = (other for other in self.processed[at + 1 :] if isinstance(other, tuple))
        following = next((other[1:] for other in later if other[0] == shard), ("~", 0))
        return (gap.session or "") < session and (session, seq) < following


def _end(replay: LogReader) -> Any:
    last, since = replay.last, replay.since
    return end_of_replay(
        {
            "complete": replay.complete,
            "session": last.session,
            "last": last.seq,
            "since": {"session": since.session, "seq": since.seq},
        }
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("dispatch"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("dispatch"), st.integers(0, 3), st.just(True)),
        st.tuples(st.just("plane"), st.integers(1, 3)),
        st.tuples(st.just("answer"), st.sampled_from([1, 2, 10_000])),
        st.tuples(st.just("tell")),
        st.tuples(st.just("read"), st.integers(1, 3)),
        st.tuples(st.just("save")),
        st.tuples(st.just("stop"), st.booleans()),
        st.tuples(st.just("start")),
    ),
    max_size=40,
)


@pytest.mark.heavy
@example(
    steps=[("stop", True), ("plane", 2), ("dispatch", 0, True), ("dispatch", 1, True), ("start",)],
    first=1,
    replay=True,
    shards=1,
)
@example(steps=[("plane", 2), ("dispatch", 0, False), ("dispatch", 1, True)], first=0, replay=True, shards=1)
@example(  # the same gap in two lives
    steps=[
        *(("plane", 2), ("dispatch", 1, True), ("plane", 2), ("dispatch", 0, True), ("dispatch", 1, True)),
        *(("dispatch", 1, True), ("plane", 2), ("stop", False)),
    ],
    first=0,
    replay=False,
    shards=1,
)
@example(  # killed during the first replay of a shard of a new layout
    steps=[
        *(("plane", 2), ("dispatch", 0, True), ("read", 2), ("dispatch", 0, True), ("answer", 1), ("read", 2)),
        *(("save",), ("stop", False), ("plane", 2)),
    ],
    first=1,
    replay=True,
    shards=1,
)
@example(  # killed before the next write of the cursor, after the first event of a new shard
    steps=[
        *(("plane", 2), ("dispatch", 0, True), ("read", 5), ("save",), ("dispatch", 1, True), ("read", 5)),
        *(("stop", False), ("dispatch", 1, True), ("plane", 2)),
    ],
    first=1,
    replay=False,
    shards=1,
)
@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from([0, 1]), st.booleans(), st.integers(1, 3))
def test_every_event_is_processed_or_covered_by_a_gap(
    steps: Sequence[tuple[Any, ...]], first: int, replay: bool, shards: int
) -> None:
    """Holds for all events since the cursor first had a position, over all lives of the bot and of the control plane."""
    world = World(first, replay, shards)
    for step in steps:
        play(world, step)
    world.settle()
    assert world.lost() == []


def play(world: World, step: tuple[Any, ...]) -> None:
    match step:
        case ("dispatch", index, arrives):
            world.dispatch(index, arrives=arrives)
        case ("plane", count):
            world.start_plane(count)
        case ("answer", parts):
            world.answer(parts)
        case ("tell",) if world.up:
            world.publish_positions()
        case ("read", count):
            world.read(count)
        case ("save",) if world.up:
            world.progress.save()
        case ("stop", clean):
            world.stop_bot(clean=clean)
        case ("start",) if not world.up:
            world.start_bot()


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("away", [True, False])
def test_each_shard_of_another_layout_ends_with_a_gap(before: int, after: int, replay: bool, away: bool) -> None:
    world = World(1, replay)
    world.start_plane(before)
    for index in range(before):
        world.dispatch(index, arrives=True)
    world.publish_positions()
    world.answer(10_000)
    world.read(100)
    if away:
        world.stop_bot(clean=True)
    world.start_plane(after)
    world.settle()
    ended = {one.shard for one in world.processed if isinstance(one, Gap) and f"{after} shards now" in one.cause}
    assert ended == {(index, before) for index in range(before)}


def test_the_gap_at_the_end_of_a_layout_is_repeated_until_it_is_processed() -> None:
    detector = GapDetector(None, replay=False, saved=(SavedPosition((0, 1), "s", 5),))
    cursor = MemoryCursor()
    progress = Progress(cursor, detector)
    event = decode_document(Event("A", (0, 2), 1, 0, "t", MOMENT, b"{}").document)
    progress.deliver(event.shard, detector.position(event.shard))
    assert isinstance(next(detector.receive(event)), Gap)
    progress.save()
    assert cursor.state == dump((SavedPosition((0, 1), "s", 5),))
