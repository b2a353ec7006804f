"""A bounded queue of events with an overflow policy and a warning before it is full.

It knows neither tasks nor threads; whoever shares it between threads brings a lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from discorder.publishers.options import Overflow
from discorder.wire import Event

WARN_ABOVE = 0.8  # of either bound: the reader falls behind
CALM_BELOW = 0.5  # the run that was warned of is over

logger = logging.getLogger(__name__)

_WHAT_HAPPENS_NEXT = {
    Overflow.DROP_OLDEST: "when it is full the oldest events are dropped",
    Overflow.DROP_NEWEST: "when it is full new events are dropped",
    Overflow.BLOCK: "when it is full the gateway connection is held up",
}


class BoundedQueue:
    """First in, first out; at most ``max_events`` events and ``max_bytes`` bytes of ``data``.

    One event always fits into an empty queue, however large it is: otherwise it could never be delivered.
    """

    def __init__(self, owner: str, overflow: Overflow, *, max_events: int, max_bytes: int) -> None:
        self.bytes = 0
        self._owner = owner
        self._overflow = overflow
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: deque[Event] = deque()
        self._warned = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def oldest(self) -> Event | None:
        """The event that is next, left where it is."""
        return self._events[0] if self._events else None

    @property
    def fill(self) -> float:
        """The larger of both fills, 1.0 = full."""
        return max(len(self._events) / self._max_events, self.bytes / self._max_bytes)

    def fits(self, event: Event) -> bool:
        """Whether ``event`` can be appended without dropping one."""
        return not self._events or (
            len(self._events) < self._max_events and self.bytes + len(event.data) <= self._max_bytes
        )

    def append(self, event: Event) -> None:
        """Add an event that `fits`."""
        self._events.append(event)
        self.bytes += len(event.data)
        self._warn_when_filling()

    def extend(self, events: Iterable[Event]) -> int:
        """Add ``events``, making room or leaving out by the policy. Returns how many events were dropped."""
        dropped = (
            self._add_dropping_newest(events)
            if self._overflow is Overflow.DROP_NEWEST
            else self._add_dropping_oldest(events)
        )
        self._warn_when_filling(full=dropped > 0)
        return dropped

    def take(self, max_events: int, max_bytes: int) -> list[Event]:
        """Remove and return events from the front: at least one if there is any, within both limits."""
        taken: list[Event] = []
        size = 0
        while self._events and len(taken) < max_events and (not taken or size + len(self._events[0].data) <= max_bytes):
            event = self._events.popleft()
            size += len(event.data)
            taken.append(event)
        self.bytes -= size
        self._note_when_calm()
        return taken

    def clear(self) -> int:
        """Forget everything; returns how many events that were."""
        count = len(self._events)
        self._events.clear()
        self.bytes = 0
        self._warned = False
        return count

    def _add_dropping_newest(self, events: Iterable[Event]) -> int:
        dropped = 0
        for event in events:
            if self.fits(event):
                self._events.append(event)
                self.bytes += len(event.data)
            else:
                dropped += 1
        return dropped

    def _add_dropping_oldest(self, events: Iterable[Event]) -> int:
        dropped = 0
        for event in events:
            size = len(event.data)
            while self._events and (len(self._events) >= self._max_events or self.bytes + size > self._max_bytes):
                self.bytes -= len(self._events.popleft().data)
                dropped += 1
            self._events.append(event)
            self.bytes += size
        return dropped

    def _warn_when_filling(self, *, full: bool = False) -> None:
        if self._warned or not (full or self.fill > WARN_ABOVE):
            return
        self._warned = True
        logger.warning(
            "Publisher %s falls behind: its queue is %.0f %% full (%d events, %d bytes), policy %s: %s",
            self._owner,
            min(self.fill, 1.0) * 100,
            len(self._events),
            self.bytes,
            self._overflow.value,
            _WHAT_HAPPENS_NEXT[self._overflow],
        )

    def _note_when_calm(self) -> None:
        if self._warned and self.fill < CALM_BELOW:
            self._warned = False
            logger.info("Publisher %s caught up: its queue is %.0f %% full", self._owner, self.fill * 100)
