"""Receive frames, pass events to the publishers, and turn life-cycle frames into triggers.

There is one `Receiver` per shard. It outlives connections, because the sequence does. It is synchronous, so a cancellation
cannot split a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from discorder.clock import Clock
from discorder.errors import ProtocolBreach
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.records import resumed_record
from discorder.shard.dispatches import Dispatches
from discorder.shard.event_stream import EventStream
from discorder.shard.oddities import BreachKind, Odd, Oddities
from discorder.shard.payloads import DEFAULT_INTERVAL, read_hello, read_invalid_session, session_is_gone
from discorder.shard.replay_hold import Dispatch
from discorder.statemachine import Session
from discorder.statemachine.triggers import Hello, Reconnect, SlotRefused, Trigger
from discorder.stats import GatewayStats
from discorder.wire import Envelope, Event, Op, decode_envelope, session_label

LAST_OPCODE = 255  # opcodes above are counted together; Discord's end at 43


@dataclass(slots=True)
class Callbacks:
    """Hold the callbacks of the receiver while it takes a batch."""

    signal: Callable[[Trigger], None]
    hello: Callable[[float], None]  # heartbeat interval in seconds
    acknowledged: Callable[[], None]
    beat_requested: Callable[[], None]
    opened: bool = False  # the current frame is READY, which the driver handles before the rest of the batch


class Receiver:
    """Process the received frames of one shard."""

    def __init__(
        self,
        shard: tuple[int, int],
        clock: Clock,
        stats: GatewayStats,
        delivery: ShardDelivery,
        *,
        ordinal: Callable[[str], int],
    ) -> None:
        """Create a receiver; ``ordinal`` numbers the sessions with the same id, and is called once for each that READY opens."""
        self._shard = shard
        self._clock = clock
        self._stats = stats
        self._delivery = delivery
        self._stream = EventStream(shard, clock, stats, delivery)
        self._oddities = Oddities(shard[0], stats)
        self._dispatches = Dispatches(clock, stats, delivery, self._stream, self._oddities, ordinal)

    # ---------------------------------------------------------------- state

    @property
    def seq(self) -> int | None:
        """Return the last sequence received (the heartbeat's ``d``), None without a session."""
        return self._stream.seq

    @property
    def label(self) -> str | None:
        """Return the label of the session, None without one."""
        return self._stream.label

    @property
    def resume_from(self) -> int:
        """Return the sequence for RESUME."""
        return self.ready_seq if self._stream.seq is None else self._stream.seq

    @property
    def last_ready(self) -> bytes | None:
        """Return the last READY, None before the first."""
        return self._dispatches.last_ready

    @property
    def ready_seq(self) -> int:
        """Return the sequence of the last READY."""
        return self._dispatches.ready_seq

    @property
    def identify_refusal(self) -> SlotRefused | None:
        """Return why no IDENTIFY may be sent for a while (READY cannot be read), None if it may."""
        return self._dispatches.identify_refusal

    @property
    def dispatched(self) -> bool:
        """Return whether an event of the session came on this connection."""
        return self._dispatches.dispatched

    @property
    def last_dispatch_at(self) -> float | None:
        """Return when the last event of the session came on this connection (monotonic seconds)."""
        return self._dispatches.last_dispatch_at

    @property
    def ready(self) -> Event | None:
        """Return READY of the current session as it was published; None without a session."""
        if self.last_ready is None or self.label is None:
            return None
        at = self._stats.ready_time or self._clock.now()  # unknown for a session that an earlier process opened
        return Event("READY", self._shard, self.ready_seq, 0, self.label, at, self.last_ready)

    # ---------------------------------------------------------------- called by the driver

    def adopt(
        self, session: Session, seq: int | None, last_ready: bytes | None, at: datetime, ready_seq: int = 1
    ) -> None:
        """Continue a session of an earlier process, whose delivered sequence was ``seq`` at ``at``.

        None: not even READY was delivered. Discord does not replay it, so the stored READY is published.
        """
        self._dispatches.last_ready, self._dispatches.ready_seq = last_ready, ready_seq
        label = session_label(session.session_id, session.ordinal)
        self._stream.open(label, complete=seq is None and last_ready is not None)
        self._delivery.adopt(self._shard, label, ready_seq - 1 if seq is None else seq, at)
        if seq is not None:
            self._stream.rewind(seq)
        elif last_ready is not None:
            now = self._clock.now()
            self._delivery.announce_lost(now, ended=False)
            self._stream.publish(Dispatch("READY", ready_seq, last_ready, now))
            self._stream.flush()

    def watch(self, watcher: Callable[[Event], None] | None) -> None:
        """Call ``watcher`` with each event after it was passed to the publishers; None ends it. It must not raise."""
        self._stream.watch(watcher)

    def connection_opened(self) -> None:
        """Start a new connection, on which nothing may be dispatched yet."""
        self._dispatches.connection_opened()

    def identifying(self) -> None:
        """Expect READY as the next dispatch, because IDENTIFY is being sent."""
        self._dispatches.identifying()

    def resuming(self, seq: int) -> None:
        """Expect the events after ``seq``, because RESUME with ``seq`` is being sent."""
        self._dispatches.resuming(seq)

    def forget_session(self) -> None:
        """Forget the session and its sequence."""
        self._stream.forget()

    # ---------------------------------------------------------------- frames

    def take(self, batch: Sequence[bytes], callbacks: Callbacks) -> int:
        """Process the frames of one read, up to READY. Return the number of frames taken.

        Raises `ProtocolBreach`. The events before the breach are published then; Discord sends the rest of the batch again.
        """
        received_at = self._clock.now()
        stream, dispatches, place = self._stream, self._dispatches, 0
        try:
            while place < len(batch):
                if dispatches.in_order:
                    began, place = place, stream.take_in_order(batch, place, received_at)
                    if place > began:
                        dispatches.progressed()
                    if place == len(batch):
                        break
                self._take_frame(batch[place], received_at, callbacks)
                place += 1
                if callbacks.opened:
                    break
        finally:
            stream.flush()
            if dispatches.replayed is not None:
                self._announce_resumed(dispatches.replayed)
        return place

    def _take_frame(self, frame: bytes, received_at: datetime, callbacks: Callbacks) -> None:
        try:
            envelope = decode_envelope(frame)
        except ValueError as error:
            self._dispatches.unreadable(ProtocolBreach(f"a frame of {len(frame)} bytes cannot be read: {error}"))
            return
        self._stats.event_count += envelope.op != Op.HELLO
        if envelope.op == Op.DISPATCH:
            self._dispatches.take(envelope, received_at, callbacks.signal)
        elif envelope.op == Op.HELLO:
            self._take_hello(envelope, callbacks)
        elif envelope.op == Op.HEARTBEAT_ACK:
            self._stats.heartbeat_received_count += 1
            callbacks.acknowledged()
        elif envelope.op == Op.HEARTBEAT:
            callbacks.beat_requested()
        elif envelope.op == Op.RECONNECT:
            callbacks.signal(Reconnect())
        elif envelope.op == Op.INVALID_SESSION:
            self._take_invalid_session(envelope, callbacks)
        elif 0 <= envelope.op <= LAST_OPCODE:
            self._stats.unknown_opcodes[envelope.op] += 1
        else:
            self._oddities.note(Odd.UNKNOWN_OPCODE)

    def _take_hello(self, envelope: Envelope, callbacks: Callbacks) -> None:
        if self._dispatches.greeted:
            self._oddities.note(Odd.SECOND_HELLO)
            return
        try:
            interval = read_hello(envelope.d)
        except ProtocolBreach as breach:
            self._oddities.raise_once(BreachKind.HELLO, breach, self.seq)
            interval = DEFAULT_INTERVAL
        self._dispatches.greeted = True
        callbacks.hello(interval)
        callbacks.signal(Hello())

    def _take_invalid_session(self, envelope: Envelope, callbacks: Callbacks) -> None:
        if not bytes(envelope.d):
            self._oddities.note(Odd.INVALID_SESSION_WITHOUT_FLAG)
        try:
            callbacks.signal(read_invalid_session(envelope.d))
        except ProtocolBreach as breach:
            self._oddities.raise_once(BreachKind.INVALID_SESSION, breach, self.seq)
            callbacks.signal(session_is_gone())

    def _announce_resumed(self, replayed: int) -> None:
        self._dispatches.replayed = None
        self._delivery.announce(resumed_record(self._shard, self.label, self._clock.now(), replayed))
