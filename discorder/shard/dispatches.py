"""Check the dispatches that are not simply next in order: first ones of a session or type, replayed, repeated and odd ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum

from discorder.clock import Clock
from discorder.errors import ProtocolBreach
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.records import PREFIX
from discorder.shard.event_stream import EventStream
from discorder.shard.oddities import BreachKind, Odd, Oddities
from discorder.shard.payloads import read_ready
from discorder.shard.replay import Replay
from discorder.shard.replay_hold import Dispatch
from discorder.statemachine import triggers
from discorder.statemachine.triggers import Ready, Resumed, SlotRefused, Trigger
from discorder.stats import GatewayStats
from discorder.wire import Envelope, session_label

READY_TRIES = 2  # an IDENTIFY counts even if its READY cannot be read; a third one would fail too
PARK_TIME = timedelta(hours=1)  # then one more IDENTIFY: 24 a day, of the 1,000 that Discord allows

Signal = Callable[[Trigger], None]


class Phase(Enum):
    """Name the dispatches that are expected on this connection."""

    NOTHING = "no dispatch before IDENTIFY or RESUME was sent"
    READY = "only READY may come before the session is open"
    EVENTS = "any dispatch"
    REPLAY = "any dispatch; RESUMED ends the replay"
    RESUMED = "any dispatch; a RESUMED is one that is replayed"


class Dispatches:
    """Check dispatches one by one, and pass those that may be published to the stream of the shard.

    Public state: ``replayed`` counts the events of a replay that has ended, until the receiver announces it; ``dispatched`` is
    true if an event of the session came on this connection, ``last_dispatch_at`` is its time (monotonic seconds);
    ``last_ready`` and ``ready_seq`` belong to the last READY; during an ``identify_refusal`` no IDENTIFY may be sent.
    """

    def __init__(
        self,
        clock: Clock,
        stats: GatewayStats,
        delivery: ShardDelivery,
        stream: EventStream,
        oddities: Oddities,
        ordinal: Callable[[str], int],
    ) -> None:
        self.last_ready: bytes | None = None
        self.ready_seq = 1  # a session of Discord begins with 1 (docs/protocol.md#sharding)
        self.identify_refusal: SlotRefused | None = None
        self.replayed: int | None = None
        self._clock = clock
        self._stats = stats
        self._delivery = delivery
        self._stream = stream
        self._oddities = oddities
        self._ordinal = ordinal
        self._unreadable_readies = 0  # in a row
        self.connection_opened()

    # ---------------------------------------------------------------- the connection

    def connection_opened(self) -> None:
        """Start a new connection, on which nothing may be dispatched yet."""
        self.greeted = False  # Hello was received
        self.dispatched = False
        self.last_dispatch_at: float | None = None
        self._early: list[int] = []  # the first and the last sequence received before READY
        self._replay: Replay | None = None
        self._replay_began_at: int | None = None  # the count of published events at RESUME, while the replay runs
        self._enter(Phase.NOTHING)

    def identifying(self) -> None:
        """Expect READY, because IDENTIFY is being sent."""
        self._enter(Phase.READY)

    def resuming(self, seq: int) -> None:
        """Expect the events after ``seq``, because RESUME with ``seq`` is being sent."""
        self._enter(Phase.REPLAY)
        self._replay_began_at = self._stats.published_event_count
        self._stream.rewind(seq)
        self._replay = Replay(self._stream, self._oddities)

    def progressed(self) -> None:
        """Note that new events of the session were received."""
        self.dispatched = True
        self.last_dispatch_at = self._clock.monotonic()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self.in_order = phase is Phase.EVENTS or phase is Phase.RESUMED  # the next dispatch in order needs no check

    def unreadable(self, breach: ProtocolBreach) -> None:
        """Raise ``breach``, an unreadable frame. At the second one at the same sequence, skip it and announce the loss."""
        if self._phase is Phase.READY:
            self._ready_failed(breach)
        if self._raise_once(BreachKind.UNREADABLE, breach):
            self._lose_next(str(breach))

    def _raise_once(self, kind: BreachKind, breach: ProtocolBreach) -> bool:
        return self._oddities.raise_once(kind, breach, self._stream.seq)

    def _lose_next(self, cause: str) -> None:
        """Announce that one event is missing after the last valid one."""
        if self._stream.seq is not None and self._phase not in {Phase.NOTHING, Phase.READY}:
            self._stream.lose(self._stream.seq + 1, self._stream.seq + 1, cause)

    # ---------------------------------------------------------------- dispatches

    def take(self, envelope: Envelope, received_at: datetime, signal: Signal) -> None:
        """Check one dispatch and publish, hold or drop it. Raises `ProtocolBreach`."""
        kind, seq, data = envelope.t, envelope.s, bytes(envelope.d)
        if not self._may_come(kind, seq):
            return
        if not kind or kind.startswith(PREFIX):  # no topic, or a name reserved for the control plane's records
            self._oddities.note(Odd.NO_TYPE, repr(kind))
            self._skip(seq)
            return
        if not data:
            self._oddities.note(Odd.NO_DATA, kind)
            data = b"null"
        if seq is None:
            self._take_without_sequence(kind, signal)
            return
        dispatch = Dispatch(kind, seq, data, received_at)
        if self._phase is Phase.READY:
            self._open_session(dispatch, signal)
            return
        is_news = not self._stream.is_seen(seq)  # a replay of old events only must not continue for ever
        if self._phase is Phase.REPLAY:
            self._take_replayed(dispatch, signal)
        else:
            self._take_live(dispatch, signal)
        if is_news:
            self.progressed()

    def _may_come(self, kind: str | None, seq: int | None) -> bool:
        """Return False for a dispatch before the session; the caller drops it."""
        if self._phase is Phase.NOTHING:
            if not self.greeted:
                self._raise_once(BreachKind.BEFORE_HELLO, ProtocolBreach(f"{kind} came although {self._phase.value}"))
            self._oddities.note(Odd.BEFORE_HANDSHAKE, repr(kind))
            return False
        if self._phase is Phase.READY and kind != "READY":
            self._oddities.note(Odd.BEFORE_READY, repr(kind))
            if seq is not None:
                seqs = [*self._early, seq]
                self._early = [min(seqs), max(seqs)]
            return False
        return True

    def _skip(self, seq: int | None) -> None:
        if seq is None:
            return
        if self._replay is not None and self._phase is Phase.REPLAY:
            self._replay.skip(seq)
        else:
            self._stream.skip(seq)

    def _take_without_sequence(self, kind: str, signal: Signal) -> None:
        breach = ProtocolBreach(f"a dispatch without 's': {kind}")
        if self._phase is Phase.READY:
            self._ready_failed(breach)
            raise breach
        if kind == "RESUMED" and self._phase in {Phase.REPLAY, Phase.RESUMED}:
            self._oddities.note(Odd.RESUMED_WITHOUT_SEQUENCE)
            self._end_replay(None, signal)
        elif self._raise_once(BreachKind.NO_SEQUENCE, breach):
            self._lose_next(str(breach))

    def _take_live(self, dispatch: Dispatch, signal: Signal) -> None:
        stream, seq = self._stream, dispatch.seq
        if dispatch.kind == "RESUMED" and self._phase is Phase.RESUMED:
            self._end_replay(dispatch, signal)
        elif stream.is_seen(seq):
            self._take_backwards(dispatch)
        elif dispatch.kind == "READY":
            self._second_ready(dispatch, signal)
        else:
            stream.publish(dispatch)

    def _take_backwards(self, dispatch: Dispatch) -> None:
        """Drop a repeated event. Another event with a used sequence is a breach."""
        late = self._replay is not None and self._replay.is_late(dispatch.seq)
        if late or self._stream.is_repeat(dispatch):
            self._oddities.note(Odd.SEEN, f"{dispatch.kind} {dispatch.seq}")
            return
        breach = ProtocolBreach(
            f"the sequence went back from {self._stream.seq} to {dispatch.seq} with {dispatch.kind}"
        )
        if self._raise_once(BreachKind.BACKWARDS, breach):
            self._stream.lose(dispatch.seq, dispatch.seq, str(breach))

    def _take_replayed(self, dispatch: Dispatch, signal: Signal) -> None:
        if self._replay is None:  # `resuming` has made it
            return
        if dispatch.kind == "RESUMED":
            self._end_replay(dispatch, signal)
        elif dispatch.kind == "READY" and not self._is_replayed_ready(dispatch):
            self._second_ready(dispatch, signal)
        else:
            self._replay.take(dispatch)

    def _is_replayed_ready(self, dispatch: Dispatch) -> bool:
        """Return whether this is the READY that opened the session, so that the replay began too early."""
        return self._stream.is_seen(dispatch.seq) and dispatch.data == self.last_ready

    def _end_replay(self, resumed: Dispatch | None, signal: Signal) -> None:
        """End the replay with RESUMED; None for one without a sequence.

        The first RESUMED on a connection confirms that the session continues. It is a dispatch with its own sequence, so a
        replay that begins before an earlier resume also contains the RESUMED of that one, as an ordinary event
        (docs/protocol.md#resume). Servers other than Discord's may give it the sequence of the event before it.
        """
        is_event = resumed is not None and not self._stream.is_seen(resumed.seq)
        if self._replay is not None:
            self._replay.end(resumed)
        if self._replay_began_at is not None:
            self.replayed = self._stream.published - is_event - self._replay_began_at
            self._replay_began_at = None
        if self._phase is Phase.REPLAY:
            signal(Resumed())
            self._enter(Phase.RESUMED)

    # ---------------------------------------------------------------- READY

    def _second_ready(self, dispatch: Dispatch, signal: Signal) -> None:
        """Raise a breach and keep the known session. If READY is next in order, publish it like any other event, so that RESUME
        continues after it; otherwise its sequence cannot be trusted.

        READY instead of a replay means another session: no event after it may count for the session that was to be resumed.
        """
        breach = ProtocolBreach("a second READY in a session that is open")
        if self._stream.is_next(dispatch.seq):
            self._stream.publish(dispatch)
            signal(triggers.Breach(breach))
        elif self._phase is Phase.REPLAY:
            raise breach
        else:
            self._raise_once(BreachKind.SECOND_READY, breach)

    def _open_session(self, dispatch: Dispatch, signal: Signal) -> None:
        try:
            opened = read_ready(dispatch.data)
        except ProtocolBreach as breach:
            self._ready_failed(breach)
            raise
        session = replace(opened, ordinal=self._ordinal(opened.session_id))
        if session.ordinal:
            self._oddities.note(Odd.REPEATED_SESSION, f"for the {session.ordinal + 1}th time")
        if not session.resume_url:
            self._oddities.note(Odd.NO_RESUME_URL)
        self._delivery.announce_lost(self._clock.now(), ended=False)
        self._enter(Phase.EVENTS)
        self.progressed()
        self.last_ready, self.ready_seq = dispatch.data, dispatch.seq
        self._stream.open(session_label(session.session_id, session.ordinal), complete=True)
        self._oddities.session_opened()
        self._unreadable_readies, self.identify_refusal = 0, None
        self._stats.ready_time = self._clock.now()
        signal(Ready(session))
        self._stream.publish(dispatch)
        if self._early and self._early[0] < dispatch.seq:
            last = min(self._early[1], dispatch.seq - 1)
            self._stream.lose(self._early[0], last, "dispatched before READY, outside of any session")

    def _ready_failed(self, breach: ProtocolBreach) -> None:
        """Refuse further IDENTIFYs for a while after two unreadable READYs: each counts, and the next would fail too."""
        self._unreadable_readies += 1
        if self._unreadable_readies >= READY_TRIES:
            self.identify_refusal = SlotRefused(self._clock.now() + PARK_TIME, breach)
