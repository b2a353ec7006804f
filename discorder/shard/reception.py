"""The way of an event: frames come in, events go to the fan-out, and only what changes the life cycle becomes a trigger.

One `Reception` per shard; it outlives connections, because the sequence does. It is synchronous: a cancellation cannot split
the hand-over of a batch. It decides nothing about the life cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from discorder.clock import Clock
from discorder.errors import ProtocolBreach
from discorder.publishers.delivery import ShardDelivery
from discorder.records import resumed_record
from discorder.shard.reading import read_hello, read_invalid_session, read_ready
from discorder.statemachine import Session, Task
from discorder.statemachine.triggers import Hello, Ready, Reconnect, Resumed, TaskFailed, Trigger
from discorder.stats import GatewayStats
from discorder.wire import Envelope, Event, Op, decode_envelope, session_label

READY_SEQ = 1  # a session begins with it (gateway-protocol.md §8)


class Phase(Enum):
    """What a dispatch may be on this connection right now."""

    NOTHING = "no dispatch before IDENTIFY or RESUME was sent"
    READY = "only READY may come before the session is open"
    EVENTS = "any dispatch"
    REPLAY = "any dispatch; RESUMED ends the replay"
    RESUMED = "any dispatch; a RESUMED is one that is replayed"


@dataclass(slots=True)
class Callbacks:
    """What a connection wants to hear of while a batch is taken in."""

    signal: Callable[[Trigger], None]
    hello: Callable[[float], None]  # heartbeat interval in seconds
    acknowledged: Callable[[], None]
    beat_requested: Callable[[], None]


class Reception:
    """The reading side of one shard: sequence, session label and the previous sequence of each type.

    ``seq`` is the last sequence received (the heartbeat's ``d``), None without a session.
    """

    def __init__(
        self,
        shard: tuple[int, int],
        clock: Clock,
        stats: GatewayStats,
        delivery: ShardDelivery,
    ) -> None:
        self.seq: int | None = None
        self.label: str | None = None
        self.last_ready: bytes | None = None
        self._watcher: Callable[[Event], None] | None = None
        self._shard = shard
        self._clock = clock
        self._stats = stats
        self._delivery = delivery
        self._replayed: int | None = None  # events of a replay that ended in the batch that is being taken in
        self._previous: dict[str, int] = {}
        self._complete = False  # every event of this session was seen: a type that is not in _previous is new
        self.connection_opened()

    # ---------------------------------------------------------------- told by the driver

    def adopt(self, session: Session, seq: int, last_ready: bytes | None, at: datetime) -> None:
        """Go on with a session of an earlier process, whose delivered sequence was ``seq`` at ``at``.

        0: not even READY was delivered there. Discord does not replay it, so it is handed over as it was stored.
        """
        self.last_ready = last_ready
        self.label = session_label(session.session_id)
        self._delivery.adopt(self._shard, self.label, seq, at)
        if seq == 0 and last_ready is not None:
            self._complete = True
            self._delivery.announce_lost(self._clock.now(), ended=False)
            self._delivery.hand_over([self._event("READY", READY_SEQ, last_ready, self._clock.now())])
        else:
            self.seq = seq

    def watch(self, watcher: Callable[[Event], None] | None) -> None:
        """Show ``watcher`` each event after it was handed over; None ends it. It must not raise."""
        self._watcher = watcher

    def connection_opened(self) -> None:
        """A new connection: nothing may be dispatched on it yet."""
        self.dispatched = False  # an event was handed over on this connection
        self.last_dispatch_at: float | None = None
        self._phase = Phase.NOTHING
        self._replay_began_at: int | None = None  # the count of published events at RESUME, while the replay runs

    def identifying(self) -> None:
        """IDENTIFY is being sent: the next dispatch must be READY."""
        self._phase = Phase.READY

    def resuming(self, seq: int) -> None:
        """RESUME with ``seq`` is being sent: what comes next lies after it."""
        self._phase = Phase.REPLAY
        self._replay_began_at = self._stats.published_event_count
        if self.seq is not None and seq < self.seq:  # events that were seen come again: what preceded them is not known
            self._previous = {kind: last for kind, last in self._previous.items() if last <= seq}
            self._complete = False
        self.seq = self._resumed_from = seq

    def forget_session(self) -> None:
        """The session is gone; so is its sequence."""
        self.seq = None
        self.label = None

    @property
    def ready(self) -> Event | None:
        """READY of the present session, as the event that it was; None without a session."""
        if self.last_ready is None or self.label is None:
            return None
        at = (
            self._stats.ready_time or self._clock.now()
        )  # of a session that was opened by an earlier process: not known
        return Event("READY", self._shard, READY_SEQ, 0, self.label, at, self.last_ready)

    # ---------------------------------------------------------------- told by the wire

    def take(self, batch: Sequence[bytes], callbacks: Callbacks) -> None:
        """Take in what one turn of the loop brought.

        Raises `ProtocolBreach`; the events before the breach have been handed over then, the rest of the batch is
        Discord's to send again.
        """
        received_at = self._clock.now()
        events: list[Event] = []
        try:
            for frame in batch:
                self._take_frame(frame, received_at, events, callbacks)
        finally:
            if events:
                self._stats.published_event_count += len(events)
                self.last_dispatch_at = self._clock.monotonic()
                self.dispatched = True
                self._delivery.hand_over(events)
                if self._watcher is not None:
                    for event in events:
                        self._watcher(event)
            if self._replayed is not None:
                self._announce_resumed(self._replayed)

    def _take_frame(self, frame: bytes, received_at: datetime, events: list[Event], callbacks: Callbacks) -> None:
        try:
            envelope = decode_envelope(frame)
        except ValueError as error:
            msg = f"a frame of {len(frame)} bytes cannot be read: {error}"
            raise ProtocolBreach(msg) from error
        if envelope.op == Op.HELLO:
            callbacks.hello(read_hello(envelope.d))
            callbacks.signal(Hello())
            return
        self._stats.event_count += 1
        if envelope.op == Op.DISPATCH:
            self._dispatch(envelope, received_at, events, callbacks)
        elif envelope.op == Op.HEARTBEAT_ACK:
            self._stats.heartbeat_received_count += 1
            callbacks.acknowledged()
        elif envelope.op == Op.HEARTBEAT:
            callbacks.beat_requested()
        elif envelope.op == Op.RECONNECT:
            callbacks.signal(Reconnect())
        elif envelope.op == Op.INVALID_SESSION:
            callbacks.signal(read_invalid_session(envelope.d))
        else:
            self._stats.unknown_opcodes[envelope.op] += 1

    def _dispatch(self, envelope: Envelope, received_at: datetime, events: list[Event], callbacks: Callbacks) -> None:
        """The event comes to ``events``, unless it is one of a replay that nobody is to publish: see `_is_no_news`."""
        kind, seq, data = envelope.t, envelope.s, bytes(envelope.d)
        if kind is None or seq is None or not data:
            missing = "t" if kind is None else "s" if seq is None else "d"
            msg = f"a dispatch without {missing!r}"
            raise ProtocolBreach(msg)
        if self._phase is Phase.NOTHING or (self._phase is Phase.READY and kind != "READY"):
            msg = f"{kind} came although {self._phase.value}"
            raise ProtocolBreach(msg)
        if self._phase is Phase.READY:
            callbacks.signal(self._open_session(data))
        elif self._phase is Phase.REPLAY and self._is_no_news(kind, seq):
            if kind == "RESUMED":
                self._resumed(events, callbacks)
            return
        elif self.seq is not None and seq <= self.seq:
            msg = f"the sequence went back from {self.seq} to {seq} with {kind}"
            raise ProtocolBreach(msg)
        elif kind == "READY":
            self._second_ready(seq, callbacks)
        if kind == "RESUMED":
            self._resumed(events, callbacks)
        events.append(self._event(kind, seq, data, received_at))

    def _is_no_news(self, kind: str, seq: int) -> bool:
        """Servers other than Discord's may begin a replay with the event that RESUME named, one too early, or give RESUMED the
        sequence of the event before it.
        """
        return seq == self.seq and (seq == self._resumed_from or kind == "RESUMED")

    def _resumed(self, events: Sequence[Event], callbacks: Callbacks) -> None:
        """The first one on a connection tells that the session goes on. RESUMED is a dispatch with a sequence of its own, so a
        replay that begins before an earlier resume contains that one too: an event like any other (gateway-protocol.md §9).
        """
        if self._replay_began_at is not None:
            self._replayed = self._stats.published_event_count + len(events) - self._replay_began_at
        if self._phase is not Phase.RESUMED:
            callbacks.signal(Resumed())
        if self._phase is Phase.REPLAY:
            self._phase = Phase.RESUMED

    def _event(self, kind: str, seq: int, data: bytes, received_at: datetime) -> Event:
        if self.label is None:
            msg = f"{kind} came without a session"
            raise ProtocolBreach(msg)
        event = Event(
            kind,
            self._shard,
            seq,
            self._previous.get(kind, 0 if self._complete else None),
            self.label,
            received_at,
            data,
        )
        self.seq = seq
        self._previous[kind] = seq
        self._stats.events_by_type[kind] += 1
        return event

    def _announce_resumed(self, replayed: int) -> None:
        self._replay_began_at = self._replayed = None
        self._delivery.announce(resumed_record(self._shard, self.label, self._clock.now(), replayed))

    def _second_ready(self, seq: int, callbacks: Callbacks) -> None:
        """A breach, and the session stays the one we know. In its place in the stream it is an event like any other: published,
        so that the RESUME lies after it; anywhere else its sequence cannot be trusted.
        """
        breach = ProtocolBreach("a second READY in a session that is open")
        if self.seq is None or seq != self.seq + 1:
            raise breach
        callbacks.signal(TaskFailed(Task.PROCESSOR, breach))

    def _open_session(self, data: bytes) -> Ready:
        session = read_ready(data)
        self._delivery.announce_lost(self._clock.now(), ended=False)
        self._phase = Phase.EVENTS
        self.label = session_label(session.session_id)
        self.last_ready = data
        self._previous.clear()
        self._complete = True
        self._stats.ready_time = self._clock.now()
        return Ready(session)
