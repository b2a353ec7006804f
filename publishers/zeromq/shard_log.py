"""Keep the documents of one shard in the ring, and the cursor of each replay of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from discorder.records import GapRecord, LossKind
from discorder.wire import Event, StreamPosition

CHUNK_OVERHEAD = 500  # bytes that Python needs for a chunk besides its entries
CHUNK_SECONDS = 1.0  # most between its first and last document; documents may be removed early by as much
COMPACT_AT = 1_024  # removed chunks, before the list is compacted
NAMELESS = b"\0"  # the topic of an event without a name: an empty one would end a replay

LogIndex = tuple[int, int]  # the number of a chunk, counted from the first ever, and an index in it


class LogEntry(NamedTuple):
    """Hold one document. A record has the sequence of the event before it."""

    seq: int
    topic: bytes
    document: bytes


@dataclass(slots=True, eq=False)
class Chunk:
    """Hold consecutive documents of one run."""

    at: float  # monotonic seconds of its first document
    run: SessionLog
    size: int = CHUNK_OVERHEAD  # bytes
    seqs: list[int] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    documents: list[bytes] = field(default_factory=list)

    @property
    def last(self) -> int:
        """Return the sequence of its last document."""
        return self.seqs[-1]

    def entry(self, index: int) -> LogEntry:
        """Return the document at ``index``."""
        return LogEntry(self.seqs[index], self.types[index].encode() or NAMELESS, self.documents[index])


@dataclass(slots=True)
class SessionLog:
    """Describe the events of one session on one shard that this process has seen.

    Every event of the session after ``since`` was appended here; every one after ``kept`` is still held. ``types`` is the last
    sequence of each type after ``since``.
    """

    session: str
    first: int  # number of its first chunk
    begun: int  # the sequence before the first that was seen
    since: int
    kept: int
    last: int
    types: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Return whether every event that was appended is still held."""
        return self.kept == self.begun


@dataclass(frozen=True, slots=True)
class Position:
    """Describe the progress of one shard in its current session, with the fields of `SessionLog`."""

    shard: tuple[int, int]
    session: str
    since: int
    last: int
    types: dict[str, int]


class ShardLog:
    """Keep the chunks of one shard in order of receipt, numbered from the first ever, so that a number stays valid."""

    def __init__(self, shard: tuple[int, int]) -> None:
        self.shard = shard
        self.runs: list[SessionLog] = []
        self.run: SessionLog | None = None  # the current run
        self.published_session: str | None = None  # session of the position that `Ring.moved` returned last
        self.published_seq = -1
        self.chunks: list[Chunk | None] = []
        self._base = 0  # number of self.chunks[0]
        self._gone = 0  # number of removed chunks at its beginning

    @property
    def begin(self) -> int:
        """Return the number of the oldest held chunk."""
        return self._base + self._gone

    @property
    def end(self) -> int:
        """Return the number after the newest chunk."""
        return self._base + len(self.chunks)

    @property
    def newest(self) -> LogIndex:
        """Return the place after the newest document."""
        chunk = self.chunks[-1] if self.chunks else None
        return (self.end, 0) if chunk is None else (self.end - 1, len(chunk.documents))

    @property
    def oldest(self) -> Chunk:
        """Return the oldest chunk. Raises IndexError when there is none."""
        return self[self.begin]

    @property
    def position(self) -> Position:
        """Return the position of the shard; there must be a run."""
        run = self.runs[-1]
        return Position(self.shard, run.session, run.since, run.last, run.types)

    def __getitem__(self, number: int) -> Chunk:
        chunk = self.chunks[number - self._base]
        if chunk is None:
            msg = f"chunk {number} is removed"
            raise IndexError(msg)
        return chunk

    @property
    def held(self) -> int:
        """Return the number of held documents."""
        return sum(len(chunk.documents) for chunk in self.chunks if chunk is not None)

    def take_in(self, event: Event) -> int | None:
        """Note ``event``, which is not the next one of the current run; return the sequence under which to keep it.

        None for a repeated event, and for a record before the first event.
        """
        run, seq, session = self.run, event.seq, event.session
        if seq is None or session is None:
            self._note_gap(event)
            return None if self.run is None else self.run.last
        if run is None or run.session != session:
            run = self._new_run(session, seq)
        elif seq <= run.last:
            return None
        run.last = run.types[event.type] = seq
        return seq

    def chunk_at(self, now: float) -> Chunk | None:
        """Return the chunk to which documents are appended ``now``; None if a new one is due."""
        chunk = self.chunks[-1] if self.chunks else None
        return chunk if chunk is not None and chunk.run is self.run and now - chunk.at <= CHUNK_SECONDS else None

    def begin_chunk(self, now: float) -> Chunk:
        """Begin a chunk of the current run."""
        assert self.run is not None  # noqa: S101  # `take_in` has begun one
        chunk = Chunk(now, self.run)
        self.chunks.append(chunk)
        return chunk

    def begin_run(self, session: str, seq: int) -> None:
        """See `Ring.begin`."""
        run = self.run
        if run is None or run.session != session:
            self._new_run(session, seq + 1)
        elif run.last < seq:  # what is held does not reach up to there
            run.since = run.kept = run.last = seq

    def give_up_oldest(self) -> Chunk:
        """Remove and return the oldest chunk, and the earlier runs without any document left."""
        chunk = self.oldest
        self.chunks[self._gone] = None
        self._gone += 1
        while len(self.runs) > 1 and self.runs[1].first <= self.begin:
            del self.runs[0]
        run = self.runs[0]
        if self.begin > run.first:
            run.kept = max(run.kept, chunk.last)
        if self._gone >= COMPACT_AT and self._gone * 2 >= len(self.chunks):
            del self.chunks[: self._gone]
            self._base, self._gone = self.begin, 0
        return chunk

    def find(self, session: str, after: int) -> tuple[LogIndex, int] | None:
        """Return the place after the event ``after`` of ``session``, and the index of its run; None if no such run is held."""
        for index in range(len(self.runs) - 1, -1, -1):
            run = self.runs[index]
            if run.session == session:
                stop = self.runs[index + 1].first if index + 1 < len(self.runs) else self.end
                low, high = max(run.first, self.begin), max(stop, self.begin)
                base = self._base
                number = base + bisect_right(self.chunks, after, low - base, high - base, key=_last)
                return (number, bisect_right(self[number].seqs, after) if number < high else 0), index
        return None

    def unbroken_from(self, index: int) -> StreamPosition:
        """Return the position after which no document of the run ``index`` and of later runs is missing."""
        broken = [run for run in self.runs[index + 1 :] if not run.whole]
        run = broken[-1] if broken else self.runs[index]
        return StreamPosition(run.session, run.kept)

    def _note_gap(self, record: Event) -> None:
        """Note that the history before the end of a publisher's gap is incomplete, because the ring never got its events."""
        if not isinstance(record, GapRecord) or record.session is None:
            return
        upto = record.lost.to_seq
        if record.lost.kind is not LossKind.PUBLISHER or upto is None:
            return
        run = self.run
        if run is None or run.session != record.session:
            run = self._new_run(record.session, upto)
        run.since = max(run.since, upto)
        run.kept = max(run.kept, upto)
        run.last = max(run.last, upto)

    def _new_run(self, session: str, seq: int) -> SessionLog:
        # The events before its first event here are unknown, unless it is READY, which is always the first.
        run = SessionLog(session, self.end, begun=seq - 1, since=seq - 1, kept=seq - 1, last=seq - 1)
        self.runs.append(run)
        self.run = run
        return run


def _last(chunk: Chunk | None) -> int:
    return -1 if chunk is None else chunk.last


class LogReader:
    """Move through one replay, from the position in the request to the newest document at the time of the request.

    ``since`` is the position after which no document is missing; ``complete``: it is the position in the request.
    """

    def __init__(self, log: ShardLog, asked: StreamPosition | None, types: frozenset[bytes] | None) -> None:
        """Start after ``asked``, None for all held documents. The log must have a run."""
        self._log = log
        self._types = types
        self._end = log.newest
        self._chunk: Chunk | None = None  # chunk of the entry that `look` returned
        run = log.runs[-1]
        self.shard = log.shard
        self.last = StreamPosition(run.session, run.last)
        found = None if asked is None else log.find(asked.session, asked.seq)
        if asked is None or found is None:
            (self._number, self._index), self.since, self.complete = (log.begin, 0), log.unbroken_from(0), False
        else:
            (self._number, self._index), index = found
            self.since = log.unbroken_from(index)
            self.complete = self.since.session == asked.session and self.since.seq <= asked.seq
            if self.complete:
                self.since = asked
        if types is not None and not types:
            # the client requests only the last part, which the ring may hold completely
            self._number, self._index = self._end

    @property
    def exhausted(self) -> bool:
        """Return whether the replay is at its end."""
        return (self._number, self._index) >= self._end

    def look(self) -> LogEntry | None:
        """Return the next entry, `wanted` or not; the same one until `step`. None at the end."""
        if self._number < self._log.begin:
            self._fell_behind()
        if self.exhausted:
            return None
        self._chunk = self._log[self._number]
        return self._chunk.entry(self._index)

    def wanted(self, entry: LogEntry) -> bool:
        """Return whether the client requested this type."""
        return self._types is None or entry.topic in self._types

    def step(self) -> None:
        """Move past the entry that `look` returned."""
        self._index += 1
        if self._chunk is None or (self._index == len(self._chunk.documents) and not self.exhausted):
            self._number, self._index, self._chunk = self._number + 1, 0, None

    def end(self) -> Mapping[str, object]:
        """Return the fields of the last part of the answer."""
        return {
            "complete": self.complete,
            "shard": self.shard,
            "session": self.last.session,
            "last": self.last.seq,
            "since": {"session": self.since.session, "seq": self.since.seq},
        }

    def _fell_behind(self) -> None:
        """Continue with the oldest document: the client read too slowly, and the next one was removed."""
        self._number, self._index = self._log.begin, 0
        self.complete = False
        self.since = self._log.unbroken_from(0)
