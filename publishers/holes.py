"""Runs of dropped events, and lines in which they keep their place. Arithmetic: it knows no task, no timer and no loop.

A run becomes one gap record for the publisher that lacks the events, at the place where they would have been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from discorder.records import Gap, GapKind, RecordType, gap_record
from discorder.wire import Event

_decode_gap = msgspec.json.Decoder(Gap).decode


@dataclass(slots=True)
class Hole:
    """Events of one shard and session that were dropped one after the other: ``from_seq`` to ``to_seq``, both included."""

    shard: tuple[int, int]
    session: str
    publisher: str | None
    cause: str
    from_seq: int
    to_seq: int | None
    start: datetime
    end: datetime

    @classmethod
    def of(cls, event: Event, publisher: str, cause: str) -> Hole:
        """A run that so far consists of ``event``, which is no record."""
        assert event.seq is not None  # noqa: S101  # a record is never dropped into a hole
        assert event.session is not None  # noqa: S101
        at = event.received_at
        return cls(event.shard, event.session, publisher, cause, event.seq, event.seq, at, at)

    @classmethod
    def reopened(cls, record: Event) -> Hole | None:
        """The run that ``record`` tells of, when it is a publisher's gap record that could not be handed over; else None."""
        if record.type != RecordType.GAP or record.session is None:
            return None
        gap = _decode_gap(record.data)
        if gap.kind is not GapKind.PUBLISHER or gap.end is None:
            return None
        return cls(record.shard, record.session, gap.publisher, gap.cause, gap.from_seq, gap.to_seq, gap.start, gap.end)

    def absorb(self, later: Hole) -> None:
        """``later``, which follows at once, becomes part of this one."""
        self.to_seq, self.end = later.to_seq, later.end

    def widen(self, event: Event) -> None:
        """``event``, the next one, is dropped as well."""
        self.to_seq, self.end = event.seq, event.received_at

    def record(self) -> Event:
        """The gap record; its time is that of the last event that was dropped."""
        gap = Gap(GapKind.PUBLISHER, self.publisher, self.from_seq, self.to_seq, self.cause, self.start, self.end)
        return gap_record(self.shard, self.session, self.end, gap)


Item = Event | Hole


class Line:
    """Events, records and runs of dropped events, in order.

    Runs of one session become one where nothing of their shard stands between them.
    """

    def __init__(self, publisher: str) -> None:
        self.runs = 0  # that began here, in all
        self._publisher = publisher
        self._items: deque[Item] = deque()
        self._open: dict[int, Hole] = {}  # by shard id: the run at the end, which the next dropped event may widen

    def __len__(self) -> int:
        return len(self._items)

    @property
    def first(self) -> Item:
        """What goes next, left where it is. Raises IndexError when there is nothing."""
        return self._items[0]

    @property
    def first_event(self) -> Event | None:
        """The first item that is an event. By index, since an iteration would not outlive a change by another thread."""
        index = 0
        try:
            while not isinstance(item := self._items[index], Event) or item.seq is None:
                index += 1
        except IndexError:
            return None
        return item

    def append(self, item: Item) -> None:
        """``item`` comes next."""
        if isinstance(item, Hole):
            self._append_hole(item)
            return
        if self._open:
            self._open.pop(item.shard[0], None)
        self._items.append(item)

    def append_dropped(self, event: Event, cause: str) -> None:
        """``event``, which is no record, would come next and is dropped."""
        hole = self._open.get(event.shard[0])
        if hole is not None and hole.session == event.session:
            hole.widen(event)
        else:
            self.runs += 1
            self._append_hole(Hole.of(event, self._publisher, cause))

    def popleft(self) -> Item:
        """Take out what is first. Raises IndexError when there is nothing."""
        item = self._items.popleft()
        if isinstance(item, Hole) and self._open.get(item.shard[0]) is item:
            del self._open[item.shard[0]]  # what is dropped from now on comes after something that was handed over
        return item

    def put_back(self, events: Iterable[Event], cause: str) -> int:
        """``events`` were taken out, and are not accepted: the records among them come again, the others are dropped.

        Returns how many were dropped.
        """
        after, self._items = self._items, deque()
        self._open.clear()
        dropped = 0
        for event in events:
            if event.seq is None:
                self.append(Hole.reopened(event) or event)
            else:
                self.append_dropped(event, cause)
                dropped += 1
        for item in after:
            self.append(item)
        return dropped

    def thin_out(self, kept: Callable[[Item], bool]) -> None:
        """Leave out what is not ``kept``."""
        before, self._items = self._items, deque()
        self._open.clear()
        for item in before:
            if kept(item):
                self.append(item)

    def merge_holes(self) -> None:
        """Make one of all runs of a session, at the place of the first. It then spans events that were not dropped as well."""
        before, self._items = self._items, deque()
        self._open.clear()
        first: dict[tuple[int, str], Hole] = {}
        for item in before:
            if isinstance(item, Hole):
                hole = first.setdefault((item.shard[0], item.session), item)
                if hole is not item:
                    hole.absorb(item)
                    continue
            self._items.append(item)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._open.clear()

    def _append_hole(self, hole: Hole) -> None:
        before = self._open.get(hole.shard[0])
        if before is not None and before.session == hole.session:
            before.absorb(hole)
        else:
            self._open[hole.shard[0]] = hole
            self._items.append(hole)
