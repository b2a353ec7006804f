"""Put the events of one shard into the order of publishing: sequences, the previous event of each type, gaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from discorder.clock import Clock
from discorder.errors import ProtocolBreach
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.shard.replay_hold import Dispatch
from discorder.stats import GatewayStats
from discorder.wire import MAX_SEQ, Event, document_head, document_middle, parse_envelope

MAX_TYPES = 4_096  # Discord has some 80 event types; a peer that invents more must not fill the memory
OTHER_TYPES = "(other)"  # the name under which further types are counted
RECENT_BYTES = 32_768  # of the recent events, to recognise a live event that comes twice
EVENT_BYTES = 150  # memory of an event in Python, without its data
HANDSHAKE = frozenset({"READY", "RESUMED"})  # types that end a handshake and need checks of their own


class EventType:
    """Hold the values shared by all events of one type in a session."""

    __slots__ = ("counted_as", "head", "last", "name")

    def __init__(self, name: str, counted_as: str, head: bytes, last: int | None) -> None:
        """Take ``head``, the start of each document, and ``last``, the sequence of the last event (0 = none, None = unknown)."""
        self.name = name
        self.counted_as = counted_as
        self.head = head
        self.last = last


class EventStream:
    """Make events from dispatches and publish them in batches. ``seq`` is the last sequence, None without a session."""

    def __init__(self, shard: tuple[int, int], clock: Clock, stats: GatewayStats, delivery: ShardDelivery) -> None:
        self.seq: int | None = None
        self.label: str | None = None
        self._shard = shard
        self._clock = clock
        self._stats = stats
        self._delivery = delivery
        self._watcher: Callable[[Event], None] | None = None
        self._batch: list[Event] = []
        self._types: dict[str | None, EventType] = {}  # without those of HANDSHAKE
        self._handshake_types: dict[str | None, EventType] = {}
        self._complete = False  # every event of this session was seen, so a type that is not in _types is new
        self._recent: deque[Event] = deque()
        self._recent_bytes = 0
        self._received_at: datetime | None = None
        self._middle = b""  # part of the documents that all events received at that time share

    def watch(self, watcher: Callable[[Event], None] | None) -> None:
        """Call ``watcher`` with each event after it was passed to the publishers; None ends it. It must not raise."""
        self._watcher = watcher

    # ---------------------------------------------------------------- the session

    def open(self, label: str, *, complete: bool) -> None:
        """Start the session ``label``; ``complete``: all of its events will pass through this stream."""
        self.label = label
        self.seq = None
        self._received_at = None
        self._forget_types()
        self._forget_events()
        self._complete = complete

    def forget(self) -> None:
        """Forget the session and its sequence."""
        self.seq = None
        self.label = None

    def rewind(self, seq: int) -> None:
        """Continue after ``seq``. The ``prev`` of the replayed events is unknown."""
        if self.seq is not None and seq < self.seq:
            for types in (self._types, self._handshake_types):
                for name in [one.name for one in types.values() if one.last is not None and one.last > seq]:
                    del types[name]
            kept = [event for event in self._recent if event.seq is not None and event.seq <= seq]
            self._forget_events()
            self._remember(kept)
            self._complete = False
        self.seq = seq

    # ---------------------------------------------------------------- events

    @property
    def published(self) -> int:
        """Return the number of events so far, including the current batch."""
        return self._stats.published_event_count + len(self._batch)

    def is_seen(self, seq: int) -> bool:
        """Return whether ``seq`` is not new."""
        return self.seq is not None and seq <= self.seq

    def is_next(self, seq: int) -> bool:
        """Return whether no event can be missing before ``seq``."""
        return self.seq is None or seq == self.seq + 1

    def is_repeat(self, dispatch: Dispatch) -> bool:
        """Return whether the same event was published recently."""
        wanted = dispatch.seq, dispatch.kind, dispatch.data
        return any((event.seq, event.type, event.data) == wanted for event in (*self._batch, *self._recent))

    def skip(self, seq: int) -> None:
        """Count ``seq`` as seen: the event itself cannot be published."""
        if self.is_next(seq):
            self.seq = seq

    def take_in_order(self, frames: Sequence[bytes], place: int, received_at: datetime) -> int:
        """Publish the ``frames`` from ``place`` on, as long as each is a new dispatch of a known type. Return the next place.

        Almost every event takes this path, so the loop calls nothing that is written in Python.
        """
        seq, label = self.seq, self.label
        if seq is None or label is None:
            return place
        shard, types, counts, add = self._shard, self._types, self._stats.events_by_type, self._batch.append
        middle = self._middle_at(received_at, label)
        began = place
        try:
            for frame in frames[place:] if place else frames:
                if not frame.isascii():
                    frame.decode()  # as in `decode_envelope`
                envelope = parse_envelope(frame)
                kind, new = types.get(envelope.t), envelope.s
                if envelope.op or kind is None or new is None or not seq < new <= MAX_SEQ:
                    break
                data = bytes(envelope.d)
                if not data:
                    break
                add(Event(kind.name, shard, new, kind.last, label, received_at, data, kind.head, middle))
                counts[kind.counted_as] += 1
                kind.last = seq = new
                place += 1
        except (ValueError, RecursionError):
            pass  # this frame needs further checks
        self.seq = seq
        self._stats.event_count += place - began
        return place

    def publish(self, dispatch: Dispatch) -> None:
        """Add the event of ``dispatch`` to the current batch."""
        name, seq, data, received_at = dispatch
        label = self.label
        if label is None:
            msg = f"{name} came without a session"
            raise ProtocolBreach(msg)
        kind = self._type(name)
        middle = self._middle_at(received_at, label)
        self._batch.append(Event(kind.name, self._shard, seq, kind.last, label, received_at, data, kind.head, middle))
        self._stats.events_by_type[kind.counted_as] += 1
        self.seq = kind.last = seq

    def flush(self) -> None:
        """Pass the current batch to the publishers."""
        if not self._batch:
            return
        events, self._batch = tuple(self._batch), []
        self._stats.published_event_count += len(events)
        self._remember(events)
        self._delivery.hand_over(events)
        if self._watcher is not None:
            for event in events:
                self._watcher(event)

    def lose(self, first: int, last: int, cause: str) -> None:
        """Announce that the events ``first`` to ``last`` of this session are lost, after publishing the events before them."""
        if self.label is None:
            return
        self.flush()
        self._delivery.announce_missing(self._shard, self.label, (first, last), cause, self._clock.now())

    def _type(self, name: str) -> EventType:
        types = self._handshake_types if name in HANDSHAKE else self._types
        kind = types.get(name)
        if kind is None:
            if len(types) >= MAX_TYPES:
                self._forget_types()
                self._complete = False
            counts = self._stats.events_by_type
            counted_as = name if name in counts or len(counts) < MAX_TYPES else OTHER_TYPES
            head = document_head(name, self._shard)
            kind = types[name] = EventType(name, counted_as, head, 0 if self._complete else None)
        return kind

    def _forget_types(self) -> None:
        self._types.clear()
        self._handshake_types.clear()

    def _forget_events(self) -> None:
        self._recent.clear()
        self._recent_bytes = 0

    def _middle_at(self, received_at: datetime, label: str) -> bytes:
        if received_at is not self._received_at:
            self._received_at, self._middle = received_at, document_middle(label, received_at)
        return self._middle

    def _remember(self, events: Sequence[Event]) -> None:
        """Keep the last events, as many as `RECENT_BYTES` allows."""
        recent = self._recent
        recent.extend(events)
        size = self._recent_bytes + sum([len(event.data) for event in events]) + EVENT_BYTES * len(events)
        while size > RECENT_BYTES:
            size -= len(recent.popleft().data) + EVENT_BYTES
        self._recent_bytes = size
