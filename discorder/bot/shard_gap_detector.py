"""Detects the lost events of one shard: what to deliver, what to hold for a replay, and when to report a gap. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from discorder.bot.contiguity import Contiguity, DeliveredRecords, HeldEvents
from discorder.bot.positions import (
    GAP_RECORD,
    POSITION_RECORD,
    Gap,
    GapData,
    GapKind,
    Item,
    PositionData,
    ReplayEnd,
    ReplayRequest,
    SavedPosition,
    Shard,
)
from discorder.wire import ReceivedEvent

PAST_SESSIONS = 64  # per shard
NOT_REQUESTED = "an event was lost on the way, and the bus is not asked to repeat it"
NOT_HELD = "the bus cannot repeat it any more: its ring has moved on, or it was restarted"
SESSION_ENDED = "the session ended, and another one began"


@dataclass(slots=True)
class SharedState:
    """What all shards of a subscription share. ``requests``: the replays that are wanted now.

    ``replay``: whether replays may be requested; the owner may change it. ``from_oldest``: a new shard starts with the oldest
    event that the bus has. ``nothing_before``: events before the first one of a new shard are not missed. ``lost``: the cause of
    a gap where no replay may be requested.
    """

    types: frozenset[str] | None
    replay: bool
    from_oldest: bool
    nothing_before: bool
    lost: str = NOT_REQUESTED
    requests: dict[Shard, ReplayRequest] = field(default_factory=dict)


class ShardGapDetector:
    """One shard of a `GapDetector`, which documents the public methods."""

    def __init__(self, shard: Shard, shared: SharedState) -> None:
        self.held = HeldEvents()
        self.first_position: SavedPosition | None = None
        self._shard = shard
        self._shared = shared
        self._delivered = Contiguity(shared.types)
        self._reported: set[tuple[GapKind, int]] = set()  # gaps of this session that the control plane reported
        self._lost_after: SavedPosition | None = None  # the position at a gap up to the end of the session
        self._held_session: str | None = None  # of the event for which a replay was requested
        self._replay_reported = False  # a gap covers everything from where the replay began
        self._replayed_to: int | None = None  # the last sequence of the session that the replay has brought
        self._past: deque[str] = deque(maxlen=PAST_SESSIONS)  # later events of these were replayed or reported lost
        self._records = DeliveredRecords()

    def restore(self, position: SavedPosition) -> None:
        """Continue from the position of an earlier run, and request what came since."""
        self._delivered.restore(position)
        self.request_missed()

    def add(self) -> None:
        """Request everything of a new shard, if that is wanted."""
        if self._delivered.session is None and self._request is None and self._shared.from_oldest:
            self._request_replay()

    def end(self, cause: str) -> Iterator[Item]:
        """End the session of a shard that no longer exists, without a second gap where one covers the rest of it."""
        covered = self._lost_after is not None and self._lost_after == self._delivered.position(self._shard)
        if self._delivered.session is not None and not covered:
            yield self._gap(GapKind.SESSION, self._delivered.upto + 1, None, cause)

    def request_missed(self) -> None:
        """Request everything after the position, unless a replay runs."""
        if self._shared.replay and self._delivered.session is not None and self._request is None:
            self._request_replay()

    def lose_before(self, event: ReceivedEvent) -> Iterator[Item]:
        """See `GapDetector.receive_after_loss`."""
        delivered = self._delivered
        if event.seq is not None and delivered.session is None:
            self._begin(event.session, 0)
        if event.seq is None or event.session != delivered.session:
            return
        delivered.advance(delivered.last)
        if event.seq > delivered.upto + 1:
            yield self._gap(GapKind.SUBSCRIBER, delivered.upto + 1, event.seq - 1, self._shared.lost)
            delivered.advance(event.seq - 1)

    @property
    def position(self) -> SavedPosition | None:
        """What a cursor is to save."""
        request = self._request
        if request is not None:
            session = request.session
            start = self.first_position if session is None else SavedPosition(self._shard, session, request.after)
            if start is None or start.session != self._delivered.session:
                return start  # a replay that has reached the next session: its end reports what it lacks
        return self._delivered.position(self._shard)

    @property
    def _request(self) -> ReplayRequest | None:
        return self._shared.requests.get(self._shard)

    # ---------------------------------------------------------------- from the bus

    def accept(self, event: ReceivedEvent) -> bool:
        delivered, seq, requests = self._delivered, event.seq, self._shared.requests
        if seq is None or event.session != delivered.session or (requests and self._shard in requests):
            return False
        return delivered.deliver_next(event, seq)

    def receive(self, event: ReceivedEvent) -> Iterator[Item]:
        if event.session in self._past and (event.seq is not None or event.type in {GAP_RECORD, POSITION_RECORD}):
            return
        if self._request is not None:
            if event.seq is None or self._delivered.wants(event.type):
                self.held.add(event)
        elif event.type == POSITION_RECORD:
            yield from self._receive_position(event)
        elif event.type == GAP_RECORD and self._misses_before(event):
            yield from self._recover(event)
        elif event.seq is None and self._may_be_replayed(event):
            self._hold(event)
        elif event.seq is None:
            yield from self._receive_record(event)
        elif self._delivered.wants(event.type):
            yield from self._receive_event(event, event.seq)

    def _receive_event(self, event: ReceivedEvent, seq: int) -> Iterator[Item]:
        delivered = self._delivered
        if delivered.session is None:
            if self._shared.from_oldest:
                self._hold(event)
                return
            if self._shared.nothing_before:
                self._begin(event.session, seq - 1)
        if event.session != delivered.session:
            yield from self._recover(event)
        elif seq > delivered.delivered_to(event.type):
            if delivered.follows(event, seq):
                delivered.deliver(event.type, seq)
                yield event
            else:
                yield from self._recover(event)

    def _receive_position(self, record: ReceivedEvent) -> Iterator[Item]:
        position, delivered = record.decode(PositionData), self._delivered
        if delivered.session is None:
            if self._shared.from_oldest:
                self._hold(record)
            elif self._shared.nothing_before:
                self._begin(record.session, position.last)
            else:
                yield from self._recover(record)
        elif record.session != delivered.session or not delivered.covers(position):
            yield from self._recover(record)
        else:
            delivered.advance(position.last)

    def _receive_record(self, record: ReceivedEvent) -> Iterator[Item]:
        if record.type == GAP_RECORD:
            yield from self._report_recorded_gap(record)
        elif self._delivered.wants(record.type):
            self._records.add(record)
            yield record

    def _may_be_replayed(self, record: ReceivedEvent) -> bool:
        """Return whether the bus may hold a record and others before it, which are to come first."""
        shared = self._shared
        return shared.from_oldest and shared.replay and self._delivered.session is None and record.session is not None

    def _misses_before(self, record: ReceivedEvent) -> bool:
        """Return whether events before the end of the session are missing: they are replayed before the end is reported."""
        gap = record.decode(GapData)
        reported = (GapKind.SESSION, gap.from_seq) in self._reported
        ours = record.session == self._delivered.session and gap.kind == GapKind.SESSION and not reported
        return ours and self._delivered.upto < gap.from_seq - 1

    def _report_recorded_gap(self, record: ReceivedEvent, first: int | None = None) -> Iterator[Item]:
        """Report a gap that the control plane recorded, at the latest from ``first`` on; ignore one of another session.

        Leave out what was delivered: a stream that was lost and made again begins with the gap of everything it had.
        """
        gap = record.decode(GapData)
        kind = GapKind.SESSION if gap.kind == GapKind.SESSION else GapKind.PUBLISHER
        begins = gap.from_seq
        if gap.to_seq is not None:
            begins = max(begins, self._delivered.upto + 1)
            if begins > gap.to_seq:
                return
        key = (kind, begins)
        if record.session != self._delivered.session or key in self._reported:
            return
        self._reported.add(key)
        first = begins if first is None else min(first, begins)
        if gap.to_seq is None and first <= self._delivered.upto + 1:
            self._lost_after = self._delivered.position(self._shard)
        yield self._gap(kind, first, gap.to_seq, gap.cause)
        if gap.to_seq is not None and self._delivered.upto >= gap.from_seq - 1:
            self._delivered.advance(gap.to_seq)

    # ---------------------------------------------------------------- gaps

    def _recover(self, event: ReceivedEvent) -> Iterator[Item]:
        """Request the events that are missing before ``event``, or report a gap where no replay may be requested."""
        if self._shared.replay:
            self._hold(event)
        else:
            from_start = not self._shared.nothing_before
            yield from self._deliver_after_gap(event, self._shared.lost, missed_from_start=from_start)

    def _hold(self, event: ReceivedEvent) -> None:
        self._request_replay()
        self._held_session = event.session
        self.held.add(event)

    def _request_replay(self) -> None:
        self._shared.requests[self._shard] = ReplayRequest(self._shard, self._delivered.session, self._delivered.upto)
        self._replay_reported = False
        self._replayed_to = None

    def _deliver_after_gap(self, event: ReceivedEvent, cause: str, *, missed_from_start: bool) -> Iterator[Item]:
        """Report the gap before ``event`` and deliver it. ``missed_from_start``: of a new session, also its beginning."""
        delivered, seq = self._delivered, event.seq
        if event.type == GAP_RECORD:
            yield from self._report_recorded_gap(event, delivered.upto + 1)
        elif seq is None and event.type != POSITION_RECORD:
            yield from self._receive_record(event)
        else:
            if delivered.session is None:
                self._begin(event.session, _before(seq, nothing_missed=not missed_from_start))
            elif event.session != delivered.session:
                yield from self._change_session(event.session or "", cause, seq)
            yield from self._deliver_in_session(event, cause)

    def _deliver_in_session(self, event: ReceivedEvent, cause: str) -> Iterator[Item]:
        delivered, seq = self._delivered, event.seq
        if seq is None:
            position = event.decode(PositionData)
            if not delivered.covers(position):
                yield self._gap(GapKind.SUBSCRIBER, delivered.upto + 1, position.last, cause)
            delivered.advance(position.last)
        elif delivered.wants(event.type) and seq > delivered.delivered_to(event.type):
            if not delivered.follows(event, seq):
                yield self._gap_before(event, seq, cause)
            delivered.deliver(event.type, seq)
            yield event

    def _gap_before(self, event: ReceivedEvent, seq: int, cause: str) -> Gap:
        if event.prev is not None:
            first = self._delivered.delivered_to(event.type) + 1
            return self._gap(GapKind.SUBSCRIBER, first, event.prev, cause, frozenset([event.type]))
        gap = self._gap(GapKind.SUBSCRIBER, self._delivered.upto + 1, seq - 1, cause)
        self._delivered.advance(seq - 1)
        return gap

    def _gap(self, kind: GapKind, first: int, last: int | None, cause: str, types: frozenset[str] | None = None) -> Gap:
        return Gap(
            kind=kind,
            shard=self._shard,
            session=self._delivered.session,
            from_seq=first,
            to_seq=last,
            types=self._shared.types if types is None else types,
            cause=cause,
        )

    # ---------------------------------------------------------------- sessions

    def _begin(self, session: str | None, upto: int) -> None:
        """Begin the first session: everything up to ``upto`` is not missed, or a gap will cover it."""
        self._delivered.begin(session or "", upto)
        self.first_position = self._delivered.position(self._shard)

    def _enter_session(self, session: str, seq: int | None) -> Iterator[Item]:
        if self._delivered.session is None:
            self._begin(session, _before(seq, nothing_missed=False))
        elif session != self._delivered.session:
            yield from self._change_session(session, SESSION_ENDED, seq)

    def _change_session(self, session: str, cause: str, seq: int | None) -> Iterator[Item]:
        """Report what Discord would have sent between two sessions as lost, unless the control plane did."""
        if not any(kind is GapKind.SESSION for kind, _ in self._reported):
            self._replay_reported |= self._request is not None and self._request.session == self._delivered.session
            yield self._gap(GapKind.SESSION, self._delivered.upto + 1, None, cause)
        self._reported.clear()
        self._lost_after = None
        self._past.append(self._delivered.session or "")
        self._delivered.begin(session, _before(seq, nothing_missed=False))
        self._replayed_to = None

    # ---------------------------------------------------------------- replay

    def begin_replay(self) -> None:
        self._replay_reported = False  # the end of an answer that was cut off would have reported it

    @property
    def unconfirmed(self) -> ReplayRequest | None:
        request = self._request
        if request is None or self._replayed_to is None:
            return None
        if request.session is not None:
            return request
        first = self.first_position
        return None if first is None else ReplayRequest(self._shard, first.session, first.seq)

    def confirm(self, end: ReplayEnd) -> None:
        """See `GapDetector.confirm`. A ring only forgets: what it has now, it had when it sent the parts that came."""
        session, last = self._delivered.session, self._replayed_to
        same_layout = end.shard in {None, self._shard}
        if end.complete and same_layout and self._request is not None and session is not None and last is not None:
            self._delivered.advance(last)
            self._shared.requests[self._shard] = ReplayRequest(self._shard, session, last)
        self._replayed_to = None

    def receive_replayed(self, event: ReceivedEvent) -> Iterator[Item]:
        delivered, seq = self._delivered, event.seq
        if self._request is None:
            return  # of a replay that was abandoned
        if seq is None:
            yield from self._receive_replayed_record(event)
            return
        if delivered.session is None and self._shared.nothing_before:
            self._begin(event.session, seq - 1)
        yield from self._enter_session(event.session or "", seq)
        self._replayed_to = seq
        if delivered.wants(event.type) and seq > delivered.delivered_to(event.type):
            delivered.deliver_replayed(event.type, seq)
            yield event

    def _receive_replayed_record(self, record: ReceivedEvent) -> Iterator[Item]:
        """Deliver a record that the bus held, which may come before the first event of its session, or instead of it."""
        if record.type != GAP_RECORD:
            if record not in self._records:
                yield from self._receive_record(record)
        elif record.session is not None and record.session not in self._past:
            if self._delivered.session is None and self._shared.nothing_before:
                self._begin(record.session, record.decode(GapData).from_seq - 1)
            yield from self._enter_session(record.session, None)
            yield from self._report_recorded_gap(record)

    def end_replay(self, end: ReplayEnd) -> Iterator[Item]:
        request = self._request
        if request is None:
            return
        yield from self._enter_session(end.session, None)
        if not end.complete:
            yield from self._report_missing(request, end)
        self._delivered.advance(end.last)
        if self._held_session is not None and self._held_session != self._delivered.session:
            self._past.append(self._held_session)  # published before the bus answered, so that session is over
        self._held_session = None
        del self._shared.requests[self._shard]
        held, some_dropped = self.held.release()
        if some_dropped:
            self._request_replay()
        yield from self._deliver_held(held)

    def abandon_replay(self, cause: str) -> Iterator[Item]:
        if self._request is None or not self.held:
            return
        held, _ = self.held.release()
        from_start = self._request.session is None  # everything was requested
        del self._shared.requests[self._shard]
        yield from self._deliver_after_gap(held[0], cause, missed_from_start=from_start)
        yield from self._deliver_held(held[1:])

    def _report_missing(self, request: ReplayRequest, end: ReplayEnd) -> Iterator[Item]:
        """Report what the bus could not repeat; of a session that it no longer knows, the change of sessions did."""
        since, replace = end.since, msgspec.structs.replace
        if request.session not in {None, since.session} and not self._replay_reported:
            yield replace(self._gap(GapKind.SUBSCRIBER, request.after + 1, None, NOT_HELD), session=request.session)
        first = request.after + 1 if since.session == request.session else 1
        if since.seq >= first and not (request.session is None and self._shared.nothing_before):
            yield replace(self._gap(GapKind.SUBSCRIBER, first, since.seq, NOT_HELD), session=since.session)

    def _deliver_held(self, held: list[ReceivedEvent]) -> Iterator[Item]:
        for event in held:
            if event not in self._records:  # the replay may have brought it
                yield from self.receive(event)


def _before(seq: int | None, *, nothing_missed: bool) -> int:
    """Return the position before the first event of a session of which ``seq`` came first; None: a record came first.

    Most sessions number from 1, those of some servers from 0.
    """
    if seq is None:
        return 0
    return seq - 1 if nothing_missed else min(seq - 1, 0)
