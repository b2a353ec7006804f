"""Keeps the books of one shard: which events and records were delivered, and which wait for a replay.

It knows nothing of gaps, of requests, or of where events come from.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime

from discorder.bot.positions import PositionData, SavedPosition, Shard
from discorder.wire import ReceivedEvent

HELD_EVENTS = 10_000  # per shard, while a replay runs; beyond it they are replayed as well
HELD_BYTES = 67_108_864
RECENT_RECORDS = 256  # per shard, that are compared as a whole; older ones by their time


class Contiguity:
    """Counts the delivered events of a shard: all up to a sequence, each type beyond it. ``types``: the wanted; None for all."""

    def __init__(self, types: frozenset[str] | None) -> None:
        self.session: str | None = None  # the label; None before the first event
        self.upto = 0  # every wanted event up to here was delivered or reported lost; -1: before an event 0
        self._types = types
        self._seen: dict[str, int] = {}

    def begin(self, session: str, upto: int = 0) -> None:
        """Begin a session, of which nothing up to ``upto`` is missed."""
        self.session, self.upto, self._seen = session, upto, {}

    def restore(self, position: SavedPosition) -> None:
        """Continue from the position that an earlier run saved."""
        self.session, self.upto, self._seen = position.session, position.seq, dict(position.seen)

    def position(self, shard: Shard) -> SavedPosition | None:
        """Return the position for a cursor; None before the first event."""
        if self.session is None:
            return None
        seen = {name: seq for name, seq in self._seen.items() if seq > self.upto}
        return SavedPosition(shard, self.session, self.upto, seen)

    @property
    def last(self) -> int:
        """The highest sequence that was delivered or reported lost."""
        return max(self.upto, *self._seen.values()) if self._seen else self.upto

    def wants(self, name: str) -> bool:
        """Return whether events of this name are to be delivered."""
        return self._types is None or name in self._types

    def delivered_to(self, name: str) -> int:
        """Return the sequence up to which everything of this type was delivered."""
        return max(self.upto, self._seen.get(name, self.upto))

    def covers(self, position: PositionData) -> bool:
        """Return whether nothing is missing up to a position that the bus reported."""
        return self.upto >= position.since and all(
            seq <= self.delivered_to(name) for name, seq in position.types.items() if self.wants(name)
        )

    def follows(self, event: ReceivedEvent, seq: int) -> bool:
        """Return whether no wanted event lies between the delivered ones and ``event``."""
        if event.prev is not None:
            return event.prev == 0 or event.prev <= self.delivered_to(event.type)  # 0: the first of its type
        return self._types is None and seq == self.upto + 1

    def deliver_next(self, event: ReceivedEvent, seq: int) -> bool:
        """Count ``event`` as delivered if it is wanted, new and follows; return whether it was. The short way for most events."""
        if self._types is None:
            if seq == self.upto + 1 and self._seen.get(event.type, -1) < seq:
                self.upto = seq
                return True
        elif event.type not in self._types:
            return False
        if seq <= self.delivered_to(event.type) or not self.follows(event, seq):
            return False
        self.deliver(event.type, seq)
        return True

    def deliver(self, name: str, seq: int) -> None:
        """Count an event as delivered that follows, or whose gap was reported."""
        if self._types is None and seq == self.upto + 1:
            self.upto = seq
        else:
            self._seen[name] = seq

    def deliver_replayed(self, name: str, seq: int) -> None:
        """Count an event of a replay as delivered; only the end of the replay shows whether there was a gap before it."""
        self._seen[name] = seq

    def advance(self, seq: int) -> None:
        """Count everything up to ``seq`` as delivered or reported lost. Never moves back."""
        if seq > self.upto:
            self.upto = seq
            self._seen = {name: last for name, last in self._seen.items() if last > seq}


class DeliveredRecords:
    """Knows which records of the control plane, which have no sequence, were delivered."""

    def __init__(self) -> None:
        self._recent: deque[ReceivedEvent] = deque()
        self._forgotten_to: datetime | None = None  # no record up to this time is delivered again

    def __contains__(self, event: ReceivedEvent) -> bool:
        """Return whether this is a record that was delivered."""
        if event.seq is not None:
            return False
        return (self._forgotten_to is not None and event.timestamp <= self._forgotten_to) or event in self._recent

    def add(self, record: ReceivedEvent) -> None:
        """Count a record as delivered."""
        self._recent.append(record)
        if len(self._recent) > RECENT_RECORDS:
            self._forgotten_to = self._recent.popleft().timestamp


class HeldEvents:
    """Events that wait for a replay, within bounds: beyond them all are dropped, and have to be replayed as well."""

    def __init__(self) -> None:
        self._events: list[ReceivedEvent] = []
        self._bytes = 0
        self._overflowed = False

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: ReceivedEvent) -> None:
        """Hold an event, or drop all of them if there is no room."""
        size = len(event.data)
        if self._overflowed or len(self._events) >= HELD_EVENTS or self._bytes + size > HELD_BYTES:
            self._events, self._bytes, self._overflowed = [], 0, True
        else:
            self._events.append(event)
            self._bytes += size

    def release(self) -> tuple[list[ReceivedEvent], bool]:
        """Return all of them, in order, and whether some were dropped."""
        events, overflowed = self._events, self._overflowed
        self._events, self._bytes, self._overflowed = [], 0, False
        return events, overflowed
