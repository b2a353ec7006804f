"""What the bus can still repeat: the newest documents of every shard, bounded in bytes and in age. Arithmetic only.

It knows no socket and no clock. Appending costs the same however much is held; finding a place is a binary search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from discorder.records import Gap, GapKind, RecordType
from discorder.wire import Event

ENTRY_OVERHEAD = 200  # bytes that Python needs for an entry besides its document
COMPACT_AT = 1_024  # places that were given up, before the list behind them is moved together


_decode_gap = msgspec.json.Decoder(Gap).decode


class Entry(NamedTuple):
    """One document. A record of the control plane's own bears the sequence of the event before it."""

    seq: int
    topic: bytes
    document: bytes
    at: float  # monotonic seconds


class Place(NamedTuple):
    """A place in the stream of a shard: a session's label, and a sequence in it."""

    session: str
    seq: int


@dataclass(slots=True)
class Run:
    """The events of one session on one shard, as far as this process has seen them.

    Every event of the session after ``since`` has passed here; every one after ``kept`` is still held. ``types`` is the last
    sequence of each type after ``since``.
    """

    session: str
    first: int  # place of its first entry in the log
    begun: int  # the sequence before the first that was seen
    since: int
    kept: int
    last: int
    types: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everything that was seen of it is held."""
        return self.kept == self.begun


@dataclass(frozen=True, slots=True)
class Position:
    """How far one shard has come: `Run`, seen from outside."""

    shard: tuple[int, int]
    session: str
    since: int
    last: int
    types: dict[str, int]


class Ring:
    """The newest documents of all shards together. ``max_bytes`` bounds what they take, ``max_seconds`` their age."""

    def __init__(self, *, max_bytes: int, max_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._logs: dict[int, ShardLog] = {}
        self._by_shard: dict[tuple[int, int], ShardLog] = {}
        self._order: deque[ShardLog] = deque()  # whose entry is the oldest, the next oldest, …
        self._bytes = 0

    def __len__(self) -> int:
        """How many documents are held."""
        return len(self._order)

    @property
    def held_bytes(self) -> int:
        """What they take."""
        return self._bytes

    def append(self, event: Event, topic: bytes, document: bytes, now: float) -> None:
        """Keep ``document``, that of ``event``; what was kept before is ignored. Age is looked at by `trim` alone."""
        log, seq = self._by_shard.get(event.shard), event.seq
        run = None if log is None else log.run
        # The usual case comes first and calls nothing: this is on the way of every event.
        if log is not None and run is not None and seq is not None and run.session == event.session and seq > run.last:
            run.last = run.types[event.type] = seq
            log.entries.append((seq, topic, document, now))
        elif not self._append_another(event, topic, document, now):
            return
        else:
            log = self._by_shard[event.shard]
        self._order.append(log)
        self._bytes += len(document) + ENTRY_OVERHEAD
        while self._bytes > self._max_bytes:
            self._give_up_oldest()

    def begin(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """A session of an earlier process goes on: what will come of it is everything after ``seq``."""
        log = self._by_shard.get(shard) or self._new_log(shard)
        log.begin_run(session, seq)

    def trim(self, now: float) -> None:
        """Give up what is too old."""
        order = self._order
        while order and now - order[0].oldest.at > self._max_seconds:
            self._give_up_oldest()

    def positions(self) -> list[Position]:
        """How far each shard has come, in order of the shards."""
        logs = sorted(self._logs.values(), key=lambda log: log.shard)
        return [log.position for log in logs if log.runs]

    def log(self, shard_id: int) -> ShardLog | None:
        """What is held of one shard; None for one of which nothing ever came."""
        return self._logs.get(shard_id)

    @staticmethod
    def _note_hole(log: ShardLog, record: Event) -> None:
        """``record`` may tell that the bus's own queue dropped something."""
        if record.type == RecordType.GAP and record.session is not None:
            gap = _decode_gap(record.data)
            if gap.kind is GapKind.PUBLISHER and gap.to_seq is not None:
                log.note_hole(record.session, gap.to_seq)

    def _new_log(self, shard: tuple[int, int]) -> ShardLog:
        """A shard's first event; or the layout has changed, and what was is over."""
        before = self._logs.get(shard[0])
        if before is not None:
            del self._by_shard[before.shard]
        log = self._logs[shard[0]] = self._by_shard[shard] = ShardLog(shard)
        return log

    def _append_another(self, event: Event, topic: bytes, document: bytes, now: float) -> bool:
        """A new shard, a new session, or a record; False where nothing is to be kept."""
        log = self._by_shard.get(event.shard) or self._new_log(event.shard)
        if event.seq is None:
            self._note_hole(log, event)
        return log.append(event, topic, document, now)

    def _give_up_oldest(self) -> None:
        entry = self._order.popleft().give_up_oldest()
        self._bytes -= len(entry.document) + ENTRY_OVERHEAD


class ShardLog:
    """The entries of one shard in order of receipt. Places are counted from the first entry ever, so they stay true."""

    def __init__(self, shard: tuple[int, int]) -> None:
        self.shard = shard
        self.runs: list[Run] = []
        self.run: Run | None = None  # the last of them
        self.entries: list[
            tuple[int, bytes, bytes, float] | None
        ] = []  # `Entry`, but plain: making those costs twice as much
        self._base = 0  # place of self.entries[0]
        self._gone = 0  # how many at its beginning are given up

    @property
    def begin(self) -> int:
        """Place of the oldest entry that is held."""
        return self._base + self._gone

    @property
    def end(self) -> int:
        """The place after the newest."""
        return self._base + len(self.entries)

    @property
    def oldest(self) -> Entry:
        """Raises IndexError when there is none."""
        return self[self.begin]

    @property
    def position(self) -> Position:
        """How far the shard has come; there must be a run."""
        run = self.runs[-1]
        return Position(self.shard, run.session, run.since, run.last, run.types)

    def __getitem__(self, place: int) -> Entry:
        entry = self.entries[place - self._base]
        if entry is None:
            msg = f"place {place} is given up"
            raise IndexError(msg)
        return Entry._make(entry)

    def append(self, event: Event, topic: bytes, document: bytes, now: float) -> bool:
        """Keep it; False for one that was here before, and for a record before the first event."""
        seq, session = event.seq, event.session
        run = self.run
        if seq is None or session is None:
            if run is None:
                return False
            seq = run.last
        else:
            if run is None or run.session != session:
                run = self._new_run(session, seq)
            elif seq <= run.last:
                return False
            run.last = run.types[event.type] = seq
        self.entries.append((seq, topic, document, now))
        return True

    def begin_run(self, session: str, seq: int) -> None:
        """See `Ring.begin`."""
        if self.run is None or self.run.session != session:
            self._new_run(session, seq + 1)

    def note_hole(self, session: str, upto: int) -> None:
        """Events of ``session`` up to ``upto`` were dropped before they came here: what lies before cannot be vouched for."""
        run = self.run
        if run is None or run.session != session:
            run = self._new_run(session, upto)
        run.since = max(run.since, upto)
        run.kept = max(run.kept, upto)
        run.last = max(run.last, upto)

    def give_up_oldest(self) -> Entry:
        """Forget the oldest entry, and a session that is over and of which nothing is left."""
        entry = self.oldest
        self.entries[self._gone] = None
        self._gone += 1
        while len(self.runs) > 1 and self.runs[1].first <= self.begin:
            del self.runs[0]
        run = self.runs[0]
        run.kept = max(run.kept, entry.seq if self.begin > run.first else run.kept)
        if self._gone >= COMPACT_AT and self._gone * 2 >= len(self.entries):
            del self.entries[: self._gone]
            self._base, self._gone = self.begin, 0
        return entry

    def find(self, session: str, after: int) -> tuple[int, int] | None:
        """The place behind the event ``after`` of ``session``, and the index of its run; None when that is not held."""
        for index in range(len(self.runs) - 1, -1, -1):
            run = self.runs[index]
            if run.session == session:
                stop = self.runs[index + 1].first if index + 1 < len(self.runs) else self.end
                low, high = max(run.first, self.begin), max(stop, self.begin)
                base = self._base
                return base + bisect_right(self.entries, after, low - base, high - base, key=_seq), index
        return None

    def unbroken_from(self, index: int) -> Place:
        """The place from which on nothing is missing in what is held of the run ``index`` and those after it."""
        broken = [run for run in self.runs[index + 1 :] if not run.whole]
        run = broken[-1] if broken else self.runs[index]
        return Place(run.session, run.kept)

    def _new_run(self, session: str, seq: int) -> Run:
        # What came before its first event here is not known, but for READY, which is the first of all.
        run = Run(session, self.end, begun=seq - 1, since=seq - 1, kept=seq - 1, last=seq - 1)
        self.runs.append(run)
        self.run = run
        return run


def _seq(entry: tuple[int, bytes, bytes, float] | None) -> int:
    return -1 if entry is None else entry[0]


class Replay:
    """What one client is still to get of one shard: from the place that it names up to what was there when it asked.

    ``since`` is the place from which on nothing is missing in what it gets; ``complete``: that is the place it named.
    """

    def __init__(self, log: ShardLog, asked: Place | None, types: frozenset[bytes] | None) -> None:
        """``asked``: None for everything that is held. The log must have a run."""
        self._log = log
        self._types = types
        self._end = log.end
        run = log.runs[-1]
        self.last = Place(run.session, run.last)
        found = None if asked is None else log.find(asked.session, asked.seq)
        if asked is None or found is None:
            self._next, self.since, self.complete = log.begin, log.unbroken_from(0), False
            return
        self._next, index = found
        self.since = log.unbroken_from(index)
        self.complete = self.since.session == asked.session and self.since.seq <= asked.seq
        if self.complete:
            self.since = asked

    @property
    def exhausted(self) -> bool:
        """Whether nothing more comes."""
        return self._next >= self._end

    def look(self) -> Entry | None:
        """The next entry, whether it is `wanted` or not; the same one until `step`. None at the end."""
        if self._next < self._log.begin:
            self._fell_behind()
        return None if self.exhausted else self._log[self._next]

    def wanted(self, entry: Entry) -> bool:
        """Whether the client asked for this type."""
        return self._types is None or entry.topic in self._types

    def step(self) -> None:
        """The entry that `look` returned is done with."""
        self._next += 1

    def _fell_behind(self) -> None:
        """The client read too slowly: what it was to get next is given up."""
        self._next = self._log.begin
        self.complete = False
        self.since = self._log.unbroken_from(0)
