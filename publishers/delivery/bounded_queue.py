"""Queue events within bounds, with an overflow policy and a warning before the queue is full.

Dropped events leave a gap record in their place. Not thread-safe: callers on several threads need a lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from discorder.publishers.delivery.gaps import GapQueue, GapRange, Item
from discorder.publishers.options import Overflow
from discorder.records import RecordType
from discorder.wire import Event

WARN_ABOVE = 0.8  # of either bound: warn that the reader falls behind
CALM_BELOW = 0.5  # the next fill above `WARN_ABOVE` is a new warning
MAX_RECORDS = 1_000  # records and gaps in one queue, besides its events; some 500 KB
THINNED_TO = 900  # fewer than `MAX_RECORDS`, so that not every record causes another thinning

logger = logging.getLogger(__name__)

_WHAT_HAPPENS_NEXT = {
    Overflow.DROP_OLDEST: "when it is full the oldest events are dropped",
    Overflow.DROP_NEWEST: "when it is full new events are dropped",
    Overflow.BLOCK: "when it is full the gateway connection is held up",
}


class BoundedQueue:
    """Queue first in, first out, at most ``max_events`` events and ``max_bytes`` bytes of ``data``.

    An event of any size fits into an empty queue; otherwise it could never be delivered. The control plane's records take no
    room and are not dropped by the policy. They have a separate bound, `MAX_RECORDS`. Above it, the oldest records that are not
    gaps are dropped first, since the log has them too; then all gaps of a session are merged; then the oldest gaps are dropped.
    """

    def __init__(self, owner: str, overflow: Overflow, *, max_events: int, max_bytes: int) -> None:
        self.bytes = 0  # of the queued events
        self.events = 0  # queued, not counting records
        self._owner = owner
        self._overflow = overflow
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._before = GapQueue(owner)  # gaps of events that were dropped from the front, and records
        self._line = GapQueue(owner)
        self._cause = f"the queue of publisher {owner} is full ({overflow.value})"
        self._warned = False

    def __len__(self) -> int:
        """Return the number of queued events and records."""
        return len(self._before) + len(self._line)

    @property
    def oldest(self) -> Event | None:
        """Return the next event without removing it; skip records. Thread-safe."""
        return self._line.first_event

    @property
    def gaps(self) -> int:
        """Return the number of runs of dropped events so far."""
        return self._before.runs + self._line.runs

    @property
    def fill(self) -> float:
        """Return the larger of both fills, 1.0 = full."""
        return max(self.events / self._max_events, self.bytes / self._max_bytes)

    def fits(self, event: Event) -> bool:
        """Return whether ``event`` can be appended without dropping one."""
        return (
            not self.events
            or event.seq is None
            or (self.events < self._max_events and self.bytes + len(event.data) <= self._max_bytes)
        )

    def append(self, event: Event) -> None:
        """Add an event that `fits`, or a record."""
        self._line.append(event)
        if event.seq is None:
            self._bound_records()
            return
        self.events += 1
        self.bytes += len(event.data)
        self._warn_when_filling()

    def append_fitting(self, events: Iterable[Event]) -> int:
        """Add events from the front while they fit; return how many were added."""
        added = 0
        for event in events:
            if not self.fits(event):
                break
            self._line.append(event)
            self.events += 1
            self.bytes += len(event.data)
            added += 1
        self._warn_when_filling()
        return added

    def extend(self, events: Iterable[Event]) -> int:
        """Add events and records, dropping old or new events by the policy. Return how many events were dropped."""
        dropped = (
            self._add_dropping_newest(events)
            if self._overflow is Overflow.DROP_NEWEST
            else self._add_dropping_oldest(events)
        )
        self._warn_when_filling(full=dropped > 0)
        return dropped

    def take(self, max_events: int, max_bytes: int) -> list[Event]:
        """Remove and return events and records from the front: at least one if there is any, otherwise within both limits."""
        taken: list[Event] = []
        size = 0
        while len(taken) < max_events and (line := self._before or self._line):
            if taken and size + _size(line.first) > max_bytes:
                break
            item = line.popleft()
            size += _size(item)
            if isinstance(item, GapRange):
                item = item.record()
            elif item.seq is not None:
                self.events -= 1
            taken.append(item)
        self.bytes -= size
        self._note_when_calm()
        return taken

    def put_back(self, events: Iterable[Event], cause: str) -> int:
        """Drop ``events``, which were taken and could not be delivered; ``cause`` goes into the gap record.

        Records among them are queued again. Return how many events were dropped.
        """
        dropped = self._before.put_back(events, cause)
        self._bound_records()
        return dropped

    def holds(self, shard: int) -> bool:
        """Return whether an item of ``shard`` is queued."""
        return self._before.holds(shard) or self._line.holds(shard)

    def release(self, shard: int) -> int:
        """Remove all items of ``shard``; return the number of events among them."""
        before = self.events

        def is_kept(item: Item) -> bool:
            if item.shard[0] != shard:
                return True
            if isinstance(item, Event) and item.seq is not None:
                self.events -= 1
                self.bytes -= len(item.data)
            return False

        self._before.thin_out(is_kept)
        self._line.thin_out(is_kept)
        self._note_when_calm()
        return before - self.events

    def clear(self) -> int:
        """Remove all items; return the number of events among them."""
        count = self.events
        self._before.clear()
        self._line.clear()
        self.events = self.bytes = 0
        self._warned = False
        return count

    def _add_dropping_newest(self, events: Iterable[Event]) -> int:
        dropped = 0
        for event in events:
            if event.seq is None:
                self._line.append(event)
            elif self.fits(event):
                self._line.append(event)
                self.events += 1
                self.bytes += len(event.data)
            else:
                self._line.append_dropped(event, self._cause)
                dropped += 1
        self._bound_records()
        return dropped

    def _add_dropping_oldest(self, events: Iterable[Event]) -> int:
        dropped = 0
        for event in events:
            if event.seq is None:
                self._line.append(event)
                continue
            size = len(event.data)
            while self.events and (self.events >= self._max_events or self.bytes + size > self._max_bytes):
                dropped += self._drop_first()
            self._line.append(event)
            self.events += 1
            self.bytes += size
        self._bound_records()
        return dropped

    def _drop_first(self) -> bool:
        """Move the first item to the gaps: drop an event, keep a record. Return whether it was an event."""
        item = self._line.popleft()
        if isinstance(item, GapRange) or item.seq is None:
            self._before.append(item)
            return False
        self._before.append_dropped(item, self._cause)
        self.events -= 1
        self.bytes -= len(item.data)
        return True

    def _bound_records(self) -> None:
        if len(self) - self.events <= MAX_RECORDS:
            return
        self._thin_out(_is_news)
        if len(self) - self.events > THINNED_TO:
            self._before.merge_gaps()
            self._line.merge_gaps()
        self._thin_out(_is_no_event)

    def _thin_out(self, expendable: Callable[[Item], bool]) -> None:
        """Remove the oldest ``expendable`` items until the bound `THINNED_TO` is met."""
        surplus = len(self) - self.events - THINNED_TO

        def is_kept(item: Item) -> bool:
            nonlocal surplus
            if surplus > 0 and expendable(item):
                surplus -= 1
                return False
            return True

        self._before.thin_out(is_kept)
        self._line.thin_out(is_kept)

    def _warn_when_filling(self, *, full: bool = False) -> None:
        if self._warned or not (full or self.fill > WARN_ABOVE):
            return
        self._warned = True
        logger.warning(
            "Publisher %s falls behind: its queue is %.0f %% full (%d events, %d bytes), policy %s: %s",
            self._owner,
            min(self.fill, 1.0) * 100,
            self.events,
            self.bytes,
            self._overflow.value,
            _WHAT_HAPPENS_NEXT[self._overflow],
        )

    def _note_when_calm(self) -> None:
        if self._warned and self.fill < CALM_BELOW:
            self._warned = False
            logger.info("Publisher %s caught up: its queue is %.0f %% full", self._owner, self.fill * 100)


def _size(item: Item) -> int:
    return len(item.data) if isinstance(item, Event) and item.seq is not None else 0


def _is_no_event(item: Item) -> bool:
    return isinstance(item, GapRange) or item.seq is None


def _is_news(item: Item) -> bool:
    """Return whether ``item`` is a record but not a gap."""
    return isinstance(item, Event) and item.seq is None and item.type != RecordType.GAP
