"""Index the events of one shard's session in the segments, and read the ones after a place."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from discorder.guilds.feed import Entry, NotHeld
from discorder.publishers.journal.records import Damaged, Decoder
from discorder.publishers.journal.segments import Segment

RECENT_EVENTS = 1_024  # kept in memory per shard: what bots that keep up read
RECENT_BYTES = 262_144
READ_BYTES = 262_144  # of a file at once
_decoder = Decoder()
_GAP = 0x8000_0000  # flag in a length: a record of lost events


class Run:
    """The records of one shard in one segment: sequence, start and length of each. 16 bytes per record."""

    __slots__ = ("lengths", "segment", "seqs", "starts")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.seqs = array("q")
        self.starts = array("I")
        self.lengths = array("I")


class ShardRing:
    """The events of the present session of a shard. A record of lost events has the sequence of the event before it.

    ``seq`` is the sequence of the newest event, ``floor`` that of the newest event that is not held any more; both begin at the
    sequence before the first.
    """

    def __init__(self, session: str, floor: int) -> None:
        self.session = session
        self.seq = self.floor = floor
        self._runs: list[Run] = []
        self._recent: list[Entry] = []
        self._recent_seqs: list[int] = []
        self._recent_bytes = 0
        self._recent_after = floor  # every event after this sequence is in memory

    def add(self, segment: Segment, seq: int | None, start: int, length: int) -> None:
        """Note a record in a file."""
        runs = self._runs
        if not runs or runs[-1].segment is not segment:
            runs.append(Run(segment))
        run = runs[-1]
        if seq is None:
            length |= _GAP
        else:
            self.seq = seq
        run.seqs.append(self.seq)
        run.starts.append(start)
        run.lengths.append(length)

    def read_so_far(self) -> None:
        """Note that the records that were added so far are on the disk only."""
        self._recent_after = self.seq

    def remember(self, entry: Entry) -> None:
        """Keep the newest record in memory, too. Call it after `add`."""
        self._recent.append(entry)
        self._recent_seqs.append(self.seq)
        self._recent_bytes += len(entry.data)
        if self._recent_bytes > RECENT_BYTES or len(self._recent) > RECENT_EVENTS:
            self._forget_recent()

    def _forget_recent(self) -> None:
        """Forget the older half of what is in memory, and more if the rest is still too large."""
        count = max(len(self._recent) // 2, 1)
        while count < len(self._recent) and sum(len(one.data) for one in self._recent[count:]) > RECENT_BYTES:
            count += 1
        while count < len(self._recent) and self._recent[count].seq is None:
            count += 1  # a record of lost events stays with the event after it
        self._recent_after = self._recent_seqs[count - 1]
        del self._recent[:count], self._recent_seqs[:count]
        self._recent_bytes = sum(len(one.data) for one in self._recent)

    def drop(self, segment: Segment) -> None:
        """Forget the records in ``segment``, which is removed."""
        if self._runs and self._runs[0].segment is segment:
            self.floor = self._runs.pop(0).seqs[-1]

    def newest(self, most_bytes: int) -> int:
        """Return the sequence after which the newest events begin: at most so many bytes, and no lost events among them."""
        size = 0
        for run in reversed(self._runs):
            for place in range(len(run.seqs) - 1, -1, -1):
                size += run.lengths[place] & ~_GAP
                if size > most_bytes or run.lengths[place] & _GAP:
                    return run.seqs[place]
        return self.floor

    def after(self, seq: int, most_bytes: int) -> Sequence[Entry]:
        """Return the oldest events after ``seq``, with the records of lost events before each. See `Feed.entries`."""
        if seq < self.floor:
            msg = f"events after {seq} of session {self.session} are not held any more: they begin after {self.floor}"
            raise NotHeld(msg, self.floor)
        if seq >= self.seq:
            return ()
        if seq >= self._recent_after:
            return self._from_memory(seq, most_bytes)
        return self._from_disk(seq, most_bytes)

    def _from_memory(self, seq: int, most_bytes: int) -> Sequence[Entry]:
        begin = bisect_right(self._recent_seqs, seq)
        while begin and self._recent[begin - 1].seq is None:
            begin -= 1
        end, size, events = begin, 0, 0
        for entry in self._recent[begin:]:
            size += len(entry.data)
            if events and size > most_bytes:
                break
            end += 1
            events += entry.seq is not None
        while end > begin and self._recent[end - 1].seq is None:
            end -= 1
        return self._recent[begin:end]

    def _from_disk(self, seq: int, most_bytes: int) -> Sequence[Entry]:
        found: list[Entry] = []
        size = events = 0
        for run in self._runs[self._first_run(seq) :]:
            place = bisect_right(run.seqs, seq)
            while place and run.lengths[place - 1] & _GAP:
                place -= 1
            while place < len(run.seqs):
                stop = self._span(run, place, most_bytes)
                for entry in self._read(run, place, stop):
                    size += len(entry.data)
                    if events and size > most_bytes:
                        return _without_last_gaps(found)
                    found.append(entry)
                    events += entry.seq is not None
                place = stop
        return _without_last_gaps(found)

    def _first_run(self, seq: int) -> int:
        number = next(number for number, run in enumerate(self._runs) if run.seqs[-1] > seq)
        return number - 1 if number and self._runs[number - 1].lengths[-1] & _GAP else number

    @staticmethod
    def _span(run: Run, place: int, most_bytes: int) -> int:
        """Return the number after the last record to read at once: at least one, and one event."""
        limit = run.starts[place] + min(most_bytes, READ_BYTES)
        stop = place + 1
        while stop < len(run.starts) and (run.starts[stop] < limit or run.lengths[stop - 1] & _GAP):
            stop += 1
        return stop

    @staticmethod
    def _read(run: Run, place: int, stop: int) -> list[Entry]:
        """Read the records ``place`` to ``stop`` of a run; other shards have records between them."""
        begin = run.starts[place]
        end = run.starts[stop - 1] + (run.lengths[stop - 1] & ~_GAP)
        content = run.segment.read(begin, end)
        entries = []
        for start in run.starts[place:stop]:
            record = _decoder.decode(content, start, begin)
            if record is None:
                msg = f"{run.segment.path} is damaged at byte {start}"
                raise Damaged(msg)
            entries.append(Entry(record.seq, record.type, record.received_at, record.read(content, begin)))
        return entries


def _without_last_gaps(entries: list[Entry]) -> list[Entry]:
    while entries and entries[-1].seq is None:
        entries.pop()
    return entries
