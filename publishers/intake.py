"""How far one shard's events have come on their way into one publisher. Arithmetic: it knows no task, no timer and no loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from discorder.wire import Event

HOLD_EVENTS = 2_000  # per shard, besides the queue of a publisher that blocks
HOLD_BYTES = 16 * 1_048_576  # of data


class Mark(NamedTuple):
    """A place in the stream of a shard: the session's label, and a sequence number in it."""

    session: str
    seq: int


def seq_of(event: Event) -> int:
    """The sequence of an event of Discord's. A record has none and no place in the stream; it must not get here."""
    assert event.seq is not None  # noqa: S101
    return event.seq


class Intake:
    """The mark that a publisher was last handed. What lies at or below it is not handed again, so that a replay reaches only
    those publishers that lack it.
    """

    __slots__ = ("_seq", "_session")

    def __init__(self) -> None:
        self._session = ""
        self._seq = -1

    @property
    def mark(self) -> Mark | None:
        """The last event that was handed over, or left out by the publisher's selection; None before the first."""
        return Mark(self._session, self._seq) if self._session else None

    def unseen(self, events: Sequence[Event]) -> Sequence[Event]:
        """What of a batch, all of one session, lies above the mark."""
        first, last = events[0], self._seq
        seq = first.seq
        assert seq is not None  # noqa: S101  # as in `seq_of`, which would double the cost here
        if seq > last or first.session != self._session:
            return events
        return [event for event in events if seq_of(event) > last]

    def move_to(self, event: Event) -> None:
        """``event`` is handed over, and everything before it was."""
        seq = event.seq
        assert seq is not None  # noqa: S101  # as above
        self._session, self._seq = event.session or "", seq


class HoldingIntake(Intake):
    """The intake of a publisher that must not lose: what its queue has no room for is held here, within bounds.

    Once it had to refuse an event it stays shut until the next connection, on which Discord replays from the mark: an event
    after a hole must not get in before it.
    """

    __slots__ = ("_accepted", "_held", "_held_bytes", "held_events", "outstanding", "shut_at")

    def __init__(self) -> None:
        super().__init__()
        self.shut_at: float | None = None  # monotonic seconds; None = open
        self.outstanding = 0  # events and gaps that are taken in and not accepted yet
        self._accepted: Mark | None = None
        self.held_events = 0  # not counting records
        self._held: deque[Event] = deque()
        self._held_bytes = 0

    def __len__(self) -> int:
        """How much is held, events and records."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of ``data`` that are held."""
        return self._held_bytes

    @property
    def oldest(self) -> Event:
        """The held event that goes next. Raises IndexError when nothing is held."""
        return self._held[0]

    @property
    def delivered(self) -> Mark | None:
        """Up to here everything is accepted; None when nothing is known to be."""
        return self._accepted if self.outstanding else self.mark

    def hold(self, event: Event) -> bool:
        """Keep ``event`` behind those that are held; False when there is no room.

        READY always finds room, and so does the gap record before it: Discord does not replay them.
        """
        full = len(self._held) >= HOLD_EVENTS or self._held_bytes + len(event.data) > HOLD_BYTES
        if full and self._held and event.type != "READY" and event.seq is not None:
            return False
        self._held.append(event)
        self._held_bytes += len(event.data)
        self.held_events += event.seq is not None
        return True

    def release(self) -> Event:
        """Take out the oldest held event; it goes on into the queue."""
        event = self._held.popleft()
        self._held_bytes -= len(event.data)
        self.held_events -= event.seq is not None
        return event

    def accept(self, event: Event) -> None:
        """The publisher has ``event``, or that gap, and everything that was taken in before it."""
        self.outstanding -= 1
        if event.seq is not None:
            self._accepted = Mark(event.session or "", event.seq)

    def clear(self) -> int:
        """Forget what is held; returns how many events that were."""
        count = self.held_events
        self._held.clear()
        self._held_bytes = self.held_events = 0
        return count
