"""Keep ranges of dropped events in a queue, each in the place of its events.

Each range becomes one gap record for the publisher that misses the events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from discorder.records import GapRecord, LossKind, LostEvents, gap_record
from discorder.wire import Event


@dataclass(slots=True)
class GapRange:
    """Hold a run of dropped events of one shard and session: ``from_seq`` to ``to_seq``, both included."""

    shard: tuple[int, int]
    session: str
    publisher: str | None
    cause: str
    from_seq: int
    to_seq: int | None
    start: datetime
    end: datetime

    @classmethod
    def of(cls, event: Event, publisher: str, cause: str) -> GapRange:
        """Return a range of one ``event``, which must not be a record."""
        assert event.seq is not None  # noqa: S101  # a record never becomes part of a gap
        assert event.session is not None  # noqa: S101
        at = event.received_at
        return cls(event.shard, event.session, publisher, cause, event.seq, event.seq, at, at)

    @classmethod
    def reopened(cls, record: Event) -> GapRange | None:
        """Return the range of ``record`` if it is a publisher's gap record, otherwise None."""
        if not isinstance(record, GapRecord) or record.session is None:
            return None
        lost = record.lost
        if lost.kind is not LossKind.PUBLISHER or lost.end is None:
            return None
        return cls(
            record.shard, record.session, lost.publisher, lost.cause, lost.from_seq, lost.to_seq, lost.start, lost.end
        )

    def absorb(self, later: GapRange) -> None:
        """Extend this range to the end of ``later``, which follows it directly."""
        self.to_seq, self.end = later.to_seq, later.end

    def widen(self, event: Event) -> None:
        """Extend this range by ``event``, the next one dropped."""
        self.to_seq, self.end = event.seq, event.received_at

    def record(self) -> Event:
        """Return the gap record, with the time of the last dropped event."""
        gap = LostEvents(
            LossKind.PUBLISHER, self.publisher, self.from_seq, self.to_seq, self.cause, self.start, self.end
        )
        return gap_record(self.shard, self.session, self.end, gap)


Item = Event | GapRange


class GapQueue:
    """Queue events, records and ranges of dropped events.

    Adjacent ranges of one session and shard are merged.
    """

    def __init__(self, publisher: str) -> None:
        self.runs = 0  # number of ranges that began in this queue
        self._publisher = publisher
        self._items: deque[Item] = deque()
        self._open: dict[int, GapRange] = {}  # by shard id: the last range, which the next dropped event may extend

    def __len__(self) -> int:
        return len(self._items)

    @property
    def first(self) -> Item:
        """Return the first item without removing it. Raises IndexError when the queue is empty."""
        return self._items[0]

    @property
    def first_event(self) -> Event | None:
        """Return the first event, None without one. By index, since iterating fails if another thread changes the queue."""
        index = 0
        try:
            while not isinstance(item := self._items[index], Event) or item.seq is None:
                index += 1
        except IndexError:
            return None
        return item

    def append(self, item: Item) -> None:
        """Append ``item``."""
        if isinstance(item, GapRange):
            self._append_gap(item)
            return
        if self._open:
            self._open.pop(item.shard[0], None)
        self._items.append(item)

    def append_dropped(self, event: Event, cause: str) -> None:
        """Append ``event``, which must not be a record, as dropped."""
        gap = self._open.get(event.shard[0])
        if gap is not None and gap.session == event.session:
            gap.widen(event)
        else:
            self.runs += 1
            self._append_gap(GapRange.of(event, self._publisher, cause))

    def popleft(self) -> Item:
        """Remove and return the first item. Raises IndexError when the queue is empty."""
        item = self._items.popleft()
        if isinstance(item, GapRange) and self._open.get(item.shard[0]) is item:
            del self._open[item.shard[0]]  # events dropped from now on come after a delivered item
        return item

    def put_back(self, events: Iterable[Event], cause: str) -> int:
        """Drop ``events``, which were taken and not accepted, and queue the records among them again.

        Return the number of dropped events.
        """
        after, self._items = self._items, deque()
        self._open.clear()
        dropped = 0
        for event in events:
            if event.seq is None:
                self.append(GapRange.reopened(event) or event)
            else:
                self.append_dropped(event, cause)
                dropped += 1
        for item in after:
            self.append(item)
        return dropped

    def holds(self, shard: int) -> bool:
        """Return whether there is an item of ``shard``."""
        return any(item.shard[0] == shard for item in self._items)

    def thin_out(self, kept: Callable[[Item], bool]) -> None:
        """Remove every item that is not ``kept``."""
        before, self._items = self._items, deque()
        self._open.clear()
        for item in before:
            if kept(item):
                self.append(item)

    def merge_gaps(self) -> None:
        """Merge all ranges of a session into the first. The result also covers events that were not dropped."""
        before, self._items = self._items, deque()
        self._open.clear()
        first: dict[tuple[int, str], GapRange] = {}
        for item in before:
            if isinstance(item, GapRange):
                gap = first.setdefault((item.shard[0], item.session), item)
                if gap is not item:
                    gap.absorb(item)
                    continue
            self._items.append(item)

    def clear(self) -> None:
        """Remove all items."""
        self._items.clear()
        self._open.clear()

    def _append_gap(self, gap: GapRange) -> None:
        before = self._open.get(gap.shard[0])
        if before is not None and before.session == gap.session:
            before.absorb(gap)
        else:
            self._open[gap.shard[0]] = gap
            self._items.append(gap)
