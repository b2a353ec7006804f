"""One shard of one subscription: what is handed on, what is held back for a replay, and when a gap is told. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from discorder.bot.places import (
    GAP_RECORD,
    POSITION_RECORD,
    Ask,
    Gap,
    GapData,
    GapKind,
    Item,
    PositionData,
    ReplayEnd,
    Saved,
    Shard,
)
from discorder.bot.proof import Proof
from discorder.wire import ReceivedEvent

HELD_EVENTS = 10_000  # per shard, while a replay runs; beyond it they are replayed as well
HELD_BYTES = 67_108_864
PAST_SESSIONS = 64  # per shard
NOT_ASKED = "an event was lost on the way, and the bus is not asked to repeat it"
NOT_HELD = "the bus cannot repeat it any more: its ring has moved on, or it was restarted"
OVER = "the session ended, and another one began"


@dataclass(slots=True)
class Wishes:
    """What all shards of a subscription share. ``asking``: the replays that are wanted now.

    ``from_oldest``: a shard that is met for the first time starts at the oldest event there is. ``nothing_before``: what lay
    before its first event is not missed.
    """

    types: frozenset[str] | None
    replay: bool
    from_oldest: bool
    nothing_before: bool
    asking: dict[Shard, Ask] = field(default_factory=dict)


class Held:
    """Events that wait for a replay, within bounds: what is more than they allow is to be replayed as well."""

    def __init__(self) -> None:
        self._events: list[ReceivedEvent] = []
        self._bytes = 0
        self._overflowed = False

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: ReceivedEvent) -> None:
        """Keep it, or everything is given up."""
        size = len(event.data)
        if self._overflowed or len(self._events) >= HELD_EVENTS or self._bytes + size > HELD_BYTES:
            self._events, self._bytes, self._overflowed = [], 0, True
        else:
            self._events.append(event)
            self._bytes += size

    def let_go(self) -> tuple[list[ReceivedEvent], bool]:
        """All of them, in order, and whether some were given up."""
        events, overflowed = self._events, self._overflowed
        self._events, self._bytes, self._overflowed = [], 0, False
        return events, overflowed


class ShardContinuity:
    """See `Continuity`, whose methods these are."""

    def __init__(self, shard: Shard, wishes: Wishes) -> None:
        self.held = Held()
        self._shard = shard
        self._wishes = wishes
        self._proof = Proof(wishes.types)
        self._told: set[tuple[GapKind, int]] = set()  # what the control plane told of this session and was handed on
        self._oldest: Saved | None = None  # where a replay of everything began, if nothing before it is missed
        self._doubted: str | None = None  # the session of the event for which a replay was asked
        self._told_all = False  # a gap covers everything from where the replay began
        self._past: deque[str] = deque(
            maxlen=PAST_SESSIONS
        )  # what still comes of them was replayed, or is told as lost
        self._record_at: datetime | None = None  # the newest record that was handed on

    def go_on_from(self, place: Saved) -> None:
        """As an earlier run left it; what came since is asked for."""
        self._proof.go_on_from(place)
        if self._wishes.replay:
            self._ask()

    def meet(self) -> None:
        """The shard exists."""
        if self._proof.session is None and self.asked is None and self._wishes.from_oldest:
            self._ask()

    def end(self, cause: str) -> Iterator[Item]:
        """The shard exists no more."""
        if self._proof.session is not None:
            yield self._gap(GapKind.SESSION, self._proof.upto + 1, None, cause)

    @property
    def asked(self) -> Ask | None:
        """The replay that is wanted, or runs."""
        return self._wishes.asking.get(self._shard)

    @property
    def saved(self) -> Saved | None:
        """What a cursor is to keep."""
        asked = self.asked
        if asked is not None:
            start = self._oldest if asked.session is None else Saved(self._shard, asked.session, asked.after)
            if start is None or start.session != self._proof.session:
                return start  # a replay that has come into the next session: what it lacks is told at its end
        return self._proof.saved(self._shard)

    # ---------------------------------------------------------------- as it was published

    def accept(self, event: ReceivedEvent) -> bool:
        """See `Continuity.accept`."""
        proof, seq = self._proof, event.seq
        if seq is None or event.session != proof.session or self._shard in self._wishes.asking:
            return False
        if not proof.wants(event.type) or seq <= proof.has(event.type) or not proof.follows(event, seq):
            return False
        proof.take(event.type, seq)
        return True

    def live(self, event: ReceivedEvent) -> Iterator[Item]:
        """See `Continuity.live`."""
        if event.session in self._past and (event.seq is not None or event.type in {GAP_RECORD, POSITION_RECORD}):
            return
        if self.asked is not None:
            if event.seq is None or self._proof.wants(event.type):
                self.held.add(event)
        elif event.type == POSITION_RECORD:
            yield from self._position(event)
        elif event.type == GAP_RECORD and self._lacks_before(event):
            yield from self._doubt(event)
        elif event.seq is None:
            yield from self._record(event)
        elif self._proof.wants(event.type):
            yield from self._event(event, event.seq)

    def _event(self, event: ReceivedEvent, seq: int) -> Iterator[Item]:
        proof = self._proof
        if proof.session is None:
            if self._wishes.from_oldest:
                self._suspect(event)
                return
            proof.begin(event.session or "", seq - 1)
        if event.session != proof.session:
            yield from self._doubt(event)
        elif seq > proof.has(event.type):
            if proof.follows(event, seq):
                proof.take(event.type, seq)
                yield event
            else:
                yield from self._doubt(event)

    def _position(self, record: ReceivedEvent) -> Iterator[Item]:
        position, proof = record.decode(PositionData), self._proof
        if proof.session is None:
            if self._wishes.from_oldest:
                self._suspect(record)
            else:
                proof.begin(record.session or "", position.last)
        elif record.session != proof.session or not proof.has_all(position):
            yield from self._doubt(record)
        else:
            proof.move_to(position.last)

    def _record(self, record: ReceivedEvent) -> Iterator[Item]:
        if record.type == GAP_RECORD:
            yield from self._gap_record(record)
        elif self._proof.wants(record.type):
            self._record_at = record.timestamp
            yield record

    def _lacks_before(self, record: ReceivedEvent) -> bool:
        """Whether the session ended with more than was handed on: its rest is to be replayed before that is told."""
        gap = record.decode(GapData)
        told = (GapKind.SESSION, gap.from_seq) in self._told
        ours = record.session == self._proof.session and gap.kind == GapKind.SESSION and not told
        return ours and self._proof.upto < gap.from_seq - 1

    def _gap_record(self, record: ReceivedEvent, first: int | None = None) -> Iterator[Item]:
        """The control plane lost something, at the latest from ``first`` on. Of another session it concerns nobody here."""
        gap = record.decode(GapData)
        kind = GapKind.SESSION if gap.kind == GapKind.SESSION else GapKind.PUBLISHER
        key = (kind, gap.from_seq)
        if record.session != self._proof.session or key in self._told:
            return
        self._told.add(key)
        yield self._gap(kind, gap.from_seq if first is None else min(first, gap.from_seq), gap.to_seq, gap.cause)
        if gap.to_seq is not None and self._proof.upto >= gap.from_seq - 1:
            self._proof.move_to(gap.to_seq)

    # ---------------------------------------------------------------- holes

    def _doubt(self, event: ReceivedEvent) -> Iterator[Item]:
        """``event`` does not follow on what was handed on."""
        if self._wishes.replay:
            self._suspect(event)
        else:
            yield from self._go_on_with(event, NOT_ASKED)

    def _suspect(self, event: ReceivedEvent) -> None:
        self._ask()
        self._doubted = event.session
        self.held.add(event)

    def _ask(self) -> None:
        self._wishes.asking[self._shard] = Ask(self._shard, self._proof.session, self._proof.upto)
        self._told_all = False

    def _go_on_with(self, event: ReceivedEvent, cause: str) -> Iterator[Item]:
        """Tell of the hole before ``event``, and hand it on."""
        proof, seq = self._proof, event.seq
        if event.type == GAP_RECORD:
            yield from self._gap_record(event, proof.upto + 1)
        elif seq is None and event.type != POSITION_RECORD:
            yield from self._record(event)
        else:
            if proof.session is None:
                proof.begin(event.session or "", (seq or 1) - 1 if self._wishes.nothing_before else 0)
            elif event.session != proof.session:
                yield from self._change_session(event.session or "", cause)
            yield from self._after_the_hole(event, cause)

    def _after_the_hole(self, event: ReceivedEvent, cause: str) -> Iterator[Item]:
        proof, seq = self._proof, event.seq
        if seq is None:
            position = event.decode(PositionData)
            if not proof.has_all(position):
                yield self._gap(GapKind.SUBSCRIBER, proof.upto + 1, position.last, cause)
            proof.move_to(position.last)
        elif proof.wants(event.type) and seq > proof.has(event.type):
            if not proof.follows(event, seq):
                yield self._gap_before(event, seq, cause)
            proof.take(event.type, seq)
            yield event

    def _gap_before(self, event: ReceivedEvent, seq: int, cause: str) -> Gap:
        if event.prev is not None:
            first = self._proof.has(event.type) + 1
            return self._gap(GapKind.SUBSCRIBER, first, event.prev, cause, frozenset([event.type]))
        gap = self._gap(GapKind.SUBSCRIBER, self._proof.upto + 1, seq - 1, cause)
        self._proof.move_to(seq - 1)
        return gap

    def _change_session(self, session: str, cause: str) -> Iterator[Item]:
        """What Discord would have sent between two sessions is lost, and the control plane has said so or will not."""
        if not any(kind is GapKind.SESSION for kind, _ in self._told):
            self._told_all |= self.asked is not None and self.asked.session == self._proof.session
            yield self._gap(GapKind.SESSION, self._proof.upto + 1, None, cause)
        self._told.clear()
        self._past.append(self._proof.session or "")
        self._proof.begin(session)

    def _gap(self, kind: GapKind, first: int, last: int | None, cause: str, types: frozenset[str] | None = None) -> Gap:
        return Gap(
            kind=kind,
            shard=self._shard,
            session=self._proof.session,
            from_seq=first,
            to_seq=last,
            types=self._wishes.types if types is None else types,
            cause=cause,
        )

    # ---------------------------------------------------------------- replay

    def replay_begins(self) -> None:
        """See `Continuity.replay_begins`. What the end of an answer that was cut off would have told must be told anew."""
        self._told_all = False

    def replayed(self, event: ReceivedEvent) -> Iterator[Item]:
        """See `Continuity.replayed`."""
        proof, seq = self._proof, event.seq
        if self.asked is None:
            return  # of a replay that was given up
        if seq is None:
            if proof.session is not None and (event.type == GAP_RECORD or self._is_new(event)):
                yield from self._record(event)
            return
        if proof.session is None and self._wishes.nothing_before:
            proof.begin(event.session or "", seq - 1)
            self._oldest = proof.saved(self._shard)
        yield from self._come_into(event.session or "")
        if proof.wants(event.type) and seq > proof.has(event.type):
            proof.take_replayed(event.type, seq)
            yield event

    def replay_ended(self, end: ReplayEnd) -> Iterator[Item]:
        """See `Continuity.replay_ended`."""
        asked = self.asked
        if asked is None:
            return
        yield from self._come_into(end.session)
        if not end.complete:
            yield from self._lacking(asked, end)
        self._proof.move_to(end.last)
        if self._doubted is not None and self._doubted != self._proof.session:
            self._past.append(self._doubted)  # it was published before the bus answered, so that session is over
        self._doubted = None
        del self._wishes.asking[self._shard]
        held, more = self.held.let_go()
        if more:
            self._ask()
        yield from self._resume(held)

    def give_up(self, cause: str) -> Iterator[Item]:
        """See `Continuity.give_up`."""
        if self.asked is None or not self.held:
            return
        held, _ = self.held.let_go()
        del self._wishes.asking[self._shard]
        yield from self._go_on_with(held[0], cause)
        yield from self._resume(held[1:])

    def _is_new(self, record: ReceivedEvent) -> bool:
        return self._record_at is None or record.timestamp > self._record_at

    def _come_into(self, session: str) -> Iterator[Item]:
        if self._proof.session is None:
            self._proof.begin(session)
        elif session != self._proof.session:
            yield from self._change_session(session, OVER)

    def _lacking(self, asked: Ask, end: ReplayEnd) -> Iterator[Item]:
        """What the bus could not repeat. Of a session that it does not know any more, the change of sessions has told."""
        since, replace = end.since, msgspec.structs.replace
        if asked.session not in {None, since.session} and not self._told_all:
            yield replace(self._gap(GapKind.SUBSCRIBER, asked.after + 1, None, NOT_HELD), session=asked.session)
        first = asked.after + 1 if since.session == asked.session else 1
        if since.seq >= first and not (asked.session is None and self._wishes.nothing_before):
            yield replace(self._gap(GapKind.SUBSCRIBER, first, since.seq, NOT_HELD), session=since.session)

    def _resume(self, held: list[ReceivedEvent]) -> Iterator[Item]:
        for event in held:
            yield from self.live(event)
