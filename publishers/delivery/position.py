"""Track the progress of one publisher with the events of one shard. Pure: no task, no timer, no loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from discorder.wire import Event, StreamPosition

HOLD_EVENTS = 2_000  # per shard, besides the queue of a lossless publisher
HOLD_BYTES = 16 * 1_048_576  # of data


def seq_of(event: Event) -> int:
    """Return the sequence of an event. A record has none and must not be passed."""
    assert event.seq is not None  # noqa: S101
    return event.seq


class DeliveryPosition:
    """Keep the *mark* of a publisher: the last event that it was offered. Earlier events are not offered again, so a replay
    reaches only the publishers that miss it.
    """

    __slots__ = ("_seq", "_session")

    def __init__(self) -> None:
        self._session = ""
        self._seq = -1

    @property
    def mark(self) -> StreamPosition | None:
        """Return the last event that was offered, or excluded by the publisher's selection; None before the first."""
        return StreamPosition(self._session, self._seq) if self._session else None

    def unseen(self, events: Sequence[Event]) -> Sequence[Event]:
        """Return the events of a batch, all of one session, that come after the mark."""
        first, last = events[0], self._seq
        seq = first.seq
        assert seq is not None  # noqa: S101  # as in `seq_of`, which would double the cost here
        if seq > last or first.session != self._session:
            return events
        return [event for event in events if seq_of(event) > last]

    def move_to(self, event: Event) -> None:
        """Set the mark to ``event``: it and everything before it were offered."""
        seq = event.seq
        assert seq is not None  # noqa: S101  # as above
        self._session, self._seq = event.session or "", seq

    def set(self, position: StreamPosition) -> None:
        """Set the mark to ``position``, before anything is offered."""
        self._session, self._seq = position


class HoldingPosition(DeliveryPosition):
    """Keep the position of a publisher that must not lose events, with a bounded buffer for events without room in its queue.

    After it has refused an event, it stays shut until the next connection, on which Discord replays from the mark: no later event
    may be accepted before the refused one.
    """

    __slots__ = ("_accepted", "_held", "_held_bytes", "held_events", "outstanding", "shut_at")

    def __init__(self) -> None:
        super().__init__()
        self.shut_at: float | None = None  # monotonic seconds; None = open
        self.outstanding = 0  # events and gaps that were taken and are not accepted yet
        self._accepted: StreamPosition | None = None
        self.held_events = 0  # not counting records
        self._held: deque[Event] = deque()
        self._held_bytes = 0

    def __len__(self) -> int:
        """Return the number of events and records that are held."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Return the bytes of ``data`` that are held."""
        return self._held_bytes

    @property
    def oldest(self) -> Event:
        """Return the oldest held event. Raises IndexError when nothing is held."""
        return self._held[0]

    @property
    def delivered(self) -> StreamPosition | None:
        """Return the position up to which all events are accepted; None if unknown."""
        return self._accepted if self.outstanding else self.mark

    @property
    def accepted(self) -> StreamPosition | None:
        """Return the last event that was accepted; None before the first."""
        return self._accepted

    def set(self, position: StreamPosition) -> None:
        """Note that everything up to ``position`` is accepted, before anything is offered."""
        super().set(position)
        self._accepted = position

    def hold(self, event: Event) -> bool:
        """Hold ``event`` behind the held ones; return False if there is no room.

        READY and the gap record before it always have room, because Discord does not replay them.
        """
        full = len(self._held) >= HOLD_EVENTS or self._held_bytes + len(event.data) > HOLD_BYTES
        if full and self._held and event.type != "READY" and event.seq is not None:
            return False
        self._held.append(event)
        self._held_bytes += len(event.data)
        self.held_events += event.seq is not None
        return True

    def release(self) -> Event:
        """Remove and return the oldest held event."""
        event = self._held.popleft()
        self._held_bytes -= len(event.data)
        self.held_events -= event.seq is not None
        return event

    def expect(self, count: int) -> None:
        """Note that the publisher has yet to accept ``count`` more events or gaps."""
        if not self.outstanding:
            self._accepted = self.mark
        self.outstanding += count

    def accept(self, event: Event) -> None:
        """Note that the publisher has accepted ``event`` (an event or a gap) and all items before it."""
        self.outstanding -= 1
        if event.seq is not None:
            self._accepted = StreamPosition(event.session or "", event.seq)

    def clear(self) -> int:
        """Drop all held items; return the number of events among them."""
        count = self.held_events
        self._held.clear()
        self._held_bytes = self.held_events = 0
        return count
