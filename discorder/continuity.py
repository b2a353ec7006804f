"""What a subscriber can prove to have got, shard by shard, and what it has to ask for again. Pure: no socket, no clock, no file.

The rule: everything wanted up to ``proven`` was handed on, or a `Gap` covers it. The place moves only by proof: a number that
follows on the one before (when every type is wanted), a position that the bus tells, or a replay. Beyond it each type is followed
by ``prev``. Whatever fits neither is held back until a replay has filled the hole, or a `Gap` says that nobody can.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from discorder.wire import ReceivedEvent

GAP_RECORD = "DISCORDER_GAP"
POSITION_RECORD = "DISCORDER_POSITION"
HELD_EVENTS = 10_000  # per shard, while a replay runs; beyond it they are replayed as well
HELD_BYTES = 67_108_864

PAST_SESSIONS = 64  # per shard

Shard = tuple[int, int]


class GapKind(StrEnum):
    """Where the events were lost."""

    SESSION = "session"  # before the control plane: Discord's session ended, or its replay
    PUBLISHER = "publisher"  # in the control plane: the queue of the bus had no room
    SUBSCRIBER = "subscriber"  # behind it: on the way to this subscriber, and the bus cannot repeat them any more


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Continuity is lost: events from ``from_seq`` to ``to_seq`` of ``session`` on ``shard`` may be missing, both included.

    ``to_seq`` None: all that came between and the next event of this shard, in whatever session. ``types`` None: of any type.
    Some of what it covers may have been handed on nevertheless.
    """

    kind: GapKind
    shard: Shard
    session: str | None
    from_seq: int
    to_seq: int | None
    types: frozenset[str] | None
    cause: str

    @property
    def type(self) -> str:
        """What stands here in an event: ``DISCORDER_GAP``."""
        return GAP_RECORD


class Ask(msgspec.Struct, frozen=True):
    """What is to be replayed: everything of the shard after ``after`` of ``session``; session None: everything there is."""

    shard: Shard
    session: str | None
    after: int


class _Since(msgspec.Struct, frozen=True):
    session: str
    seq: int


class ReplayEnd(msgspec.Struct, frozen=True):
    """The last frame of a replay: ``last`` of ``session`` is where the shard was when it began."""

    complete: bool
    session: str
    last: int
    since: _Since


class _GapData(msgspec.Struct, frozen=True):
    kind: str
    from_seq: int
    to_seq: int | None = None
    cause: str = ""


class _PositionData(msgspec.Struct, frozen=True):
    since: int
    last: int
    types: dict[str, int]


class Saved(msgspec.Struct, frozen=True, omit_defaults=True):
    """The place of one shard as a cursor keeps it: everything up to ``seq``, and of each type in ``seen`` up to there."""

    shard: Shard
    session: str
    seq: int
    seen: dict[str, int] = {}


Item = ReceivedEvent | Gap


class Continuity:
    """All shards of one subscription. ``types`` None: all. ``replay``: whether holes may be asked for; it may be changed.

    ``saved`` is where an earlier run had come, None for none: a shard that is not in it then starts with what comes first, with
    it at the oldest event that can be repeated.
    """

    def __init__(
        self, types: frozenset[str] | None, *, replay: bool, saved: tuple[Saved, ...] | None, from_oldest: bool = False
    ) -> None:
        self.replay = replay
        self._types = types
        self._new_from_oldest = (saved is not None or from_oldest) and replay
        self._silent_start = saved is None
        self.asking: dict[Shard, Ask] = {}
        self._shards: dict[Shard, _Shard] = {}
        for place in saved or ():
            shard = self._shards[place.shard] = _Shard(place.shard, self)
            shard.go_on_from(place)

    # Each of these goes on as it is iterated, and must be iterated to its end before the next is called: what has been yielded is
    # part of `saved`, what has not is not.

    def accept(self, event: ReceivedEvent) -> bool:
        """Whether ``event``, as it was published, is to be handed on, and nothing else: what nearly all of them are."""
        shard = self._shards.get(event.shard)
        return shard is not None and shard.accept(event)

    def live(self, event: ReceivedEvent) -> Iterator[Item]:
        """What is to be handed on now that ``event`` came from the bus, as it was published."""
        if event.shard not in self._shards:
            yield from self._end_other_layouts(event.shard[1])
        yield from self._shard(event.shard).live(event)

    def replayed(self, shard: Shard, event: ReceivedEvent) -> Iterator[Item]:
        """The same for a part of a replay of ``shard``."""
        if event.shard == shard:
            yield from self._shard(shard).replayed(event)

    def replay_ended(self, shard: Shard, end: ReplayEnd) -> Iterator[Item]:
        """The replay of ``shard`` is through."""
        yield from self._shard(shard).replay_ended(end)

    def give_up(self, shard: Shard, cause: str) -> Iterator[Item]:
        """Nobody answers for ``shard``: what was held back goes on, behind a `Gap` where there is a hole."""
        yield from self._shard(shard).give_up(cause)

    def meet(self, shard: Shard) -> Iterator[Item]:
        """There is such a shard."""
        if shard not in self._shards:
            yield from self._end_other_layouts(shard[1])
        self._shard(shard).meet()

    @property
    def asks(self) -> Mapping[Shard, Ask]:
        """The replays that are wanted now."""
        return self.asking

    def is_held(self, shard: Shard) -> bool:
        """Whether events of ``shard`` wait for a replay."""
        return bool(self._shard(shard).held)

    def place(self, shard: Shard) -> Saved | None:
        """What a cursor is to keep of one shard once everything that was yielded is dealt with; None for nothing yet."""
        return self._shard(shard).saved

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards that are known."""
        return tuple(self._shards)

    # ---------------------------------------------------------------- for its shards

    def wants(self, name: str) -> bool:
        """Whether events of this name are to be handed on."""
        return self._types is None or name in self._types

    @property
    def wants_all(self) -> bool:
        """Whether every event is."""
        return self._types is None

    @property
    def types(self) -> frozenset[str] | None:
        """Which are, None for all."""
        return self._types

    @property
    def new_from_oldest(self) -> bool:
        """Whether a shard that is met for the first time starts at the oldest event there is."""
        return self._new_from_oldest

    @property
    def silent_start(self) -> bool:
        """Whether nothing that came before the first event can be missed."""
        return self._silent_start

    def _end_other_layouts(self, count: int) -> Iterator[Item]:
        """The bot runs with ``count`` shards now: what went on with another number of them is over."""
        for shard in [shard for shard in self._shards if shard[1] != count]:
            yield from self._shards.pop(shard).end(f"the bot has {count} shards now")
            self.asking.pop(shard, None)

    def _shard(self, shard: Shard) -> _Shard:
        found = self._shards.get(shard)
        if found is None:
            found = self._shards[shard] = _Shard(shard, self)
        return found


class _Shard:
    """One shard of one subscription."""

    def __init__(self, shard: Shard, whole: Continuity) -> None:
        self.held: deque[ReceivedEvent] = deque()
        self._shard = shard
        self._whole = whole
        self._session: str | None = None
        self._proven = 0
        self._seen: dict[str, int] = {}
        self._held_bytes = 0
        self._overflowed = False
        self._told: set[tuple[GapKind, int]] = set()  # what the control plane told of this session and was handed on
        self._oldest: Saved | None = None  # where a replay of everything began, if nothing before it can be missed
        self._doubted: str | None = None  # the session of the event for which a replay was asked
        self._told_all = False  # a gap covers everything from where the replay began
        self._past: deque[str] = deque(
            maxlen=PAST_SESSIONS
        )  # what still comes of them was replayed, or is told as lost
        self._record_at: datetime | None = None  # the newest record that was handed on

    # ---------------------------------------------------------------- where it stands

    def go_on_from(self, place: Saved) -> None:
        self._session, self._proven, self._seen = place.session, place.seq, dict(place.seen)
        if self._whole.replay:
            self._ask()

    @property
    def asked(self) -> Ask | None:
        """The replay that is wanted, or runs."""
        return self._whole.asking.get(self._shard)

    def end(self, cause: str) -> Iterator[Item]:
        if self._session is not None:
            yield self._gap(GapKind.SESSION, self._proven + 1, None, cause)

    def meet(self) -> None:
        if self._session is None and self.asked is None and self._whole.new_from_oldest:
            self._ask()

    @property
    def saved(self) -> Saved | None:
        asked = self.asked
        if asked is not None:
            start = self._oldest if asked.session is None else Saved(self._shard, asked.session, asked.after)
            if start is None or start.session != self._session:
                return start  # a replay that has come into the next session: what it lacks is told at its end
        if self._session is None:
            return None
        seen = {name: seq for name, seq in self._seen.items() if seq > self._proven}
        return Saved(self._shard, self._session, self._proven, seen)

    def _reached(self, name: str) -> int:
        """Up to here everything of this type is handed on."""
        return max(self._proven, self._seen.get(name, 0))

    def _prove(self, upto: int) -> None:
        if upto > self._proven:
            self._proven = upto
            self._seen = {name: seq for name, seq in self._seen.items() if seq > upto}

    def _begin(self, session: str) -> None:
        self._session, self._proven, self._seen = session, 0, {}

    # ---------------------------------------------------------------- as it was published

    def accept(self, event: ReceivedEvent) -> bool:
        seq = event.seq
        if seq is None or event.session != self._session or self._shard in self._whole.asking:
            return False
        if not self._whole.wants(event.type) or seq <= self._reached(event.type) or not self._follows(event, seq):
            return False
        self._hand_on(event, seq)
        return True

    def live(self, event: ReceivedEvent) -> Iterator[Item]:
        if event.session in self._past and (event.seq is not None or event.type in {GAP_RECORD, POSITION_RECORD}):
            return
        if self.asked is not None:
            if event.seq is None or self._whole.wants(event.type):
                self._hold(event)
        elif event.type == POSITION_RECORD:
            yield from self._position(event)
        elif event.type == GAP_RECORD and self._lacks_before(event):
            yield from self._doubt(event)
        elif event.seq is None:
            yield from self._record(event)
        elif self._whole.wants(event.type):
            yield from self._event(event)

    def _event(self, event: ReceivedEvent) -> Iterator[Item]:
        seq = event.seq or 0
        if self._session is None:
            if self._whole.new_from_oldest:
                self._suspect(event)
                return
            self._begin(event.session or "")
            self._proven = seq - 1
        if event.session != self._session:
            yield from self._doubt(event)
        elif seq > self._reached(event.type):
            if self._follows(event, seq):
                yield self._hand_on(event, seq)
            else:
                yield from self._doubt(event)

    def _follows(self, event: ReceivedEvent, seq: int) -> bool:
        """Whether nothing wanted lies between what is handed on and ``event``."""
        if event.prev is not None:
            return event.prev <= self._reached(event.type)
        return self._whole.wants_all and seq == self._proven + 1

    def _hand_on(self, event: ReceivedEvent, seq: int) -> ReceivedEvent:
        if self._whole.wants_all and seq == self._proven + 1:
            self._proven = seq
        else:
            self._seen[event.type] = seq
        return event

    def _position(self, record: ReceivedEvent) -> Iterator[Item]:
        position = record.decode(_PositionData)
        if self._session is None:
            if self._whole.new_from_oldest:
                self._suspect(record)
            else:
                self._begin(record.session or "")
                self._proven = position.last
        elif record.session != self._session or not self._has_all(position):
            yield from self._doubt(record)
        else:
            self._prove(position.last)

    def _has_all(self, position: _PositionData) -> bool:
        if self._proven < position.since:
            return False
        wants, reached = self._whole.wants, self._reached
        return all(seq <= reached(name) for name, seq in position.types.items() if wants(name))

    def _record(self, record: ReceivedEvent) -> Iterator[Item]:
        if record.type == GAP_RECORD:
            yield from self._gap_record(record)
        elif self._whole.wants(record.type):
            self._record_at = record.timestamp
            yield record

    def _lacks_before(self, record: ReceivedEvent) -> bool:
        """Whether the session ended with more than was handed on: its rest is to be replayed before that is told."""
        gap = record.decode(_GapData)
        told = (GapKind.SESSION, gap.from_seq) in self._told
        ours = record.session == self._session and gap.kind == GapKind.SESSION and not told
        return ours and self._proven < gap.from_seq - 1

    def _gap_record(self, record: ReceivedEvent, first: int | None = None) -> Iterator[Item]:
        """The control plane lost something, at the latest from ``first`` on. Of another session it concerns nobody here."""
        gap = record.decode(_GapData)
        kind = GapKind.SESSION if gap.kind == GapKind.SESSION else GapKind.PUBLISHER
        key = (kind, gap.from_seq)
        if record.session != self._session or key in self._told:
            return
        self._told.add(key)
        yield self._gap(kind, gap.from_seq if first is None else min(first, gap.from_seq), gap.to_seq, gap.cause)
        if gap.to_seq is not None and self._proven >= gap.from_seq - 1:
            self._prove(gap.to_seq)

    # ---------------------------------------------------------------- holes

    def _doubt(self, event: ReceivedEvent) -> Iterator[Item]:
        """``event`` does not follow on what was handed on."""
        if self._whole.replay:
            self._suspect(event)
        else:
            yield from self._go_on_with(event, "an event was lost on the way, and the bus is not asked to repeat it")

    def _suspect(self, event: ReceivedEvent) -> None:
        self._ask()
        self._doubted = event.session
        self._hold(event)

    def _ask(self) -> None:
        self._whole.asking[self._shard] = Ask(self._shard, self._session, self._proven)
        self._told_all = False

    def _hold(self, event: ReceivedEvent) -> None:
        size = len(event.data)
        if len(self.held) >= HELD_EVENTS or self._held_bytes + size > HELD_BYTES:
            self._overflowed = True  # the next replay brings them, and everything after
            self._let_go()
        if not self._overflowed:
            self.held.append(event)
            self._held_bytes += size

    def _let_go(self) -> list[ReceivedEvent]:
        held = list(self.held)
        self.held.clear()
        self._held_bytes = 0
        return held

    def _go_on_with(self, event: ReceivedEvent, cause: str) -> Iterator[Item]:
        """Tell of the hole before ``event``, and hand it on."""
        if event.type == GAP_RECORD:
            yield from self._gap_record(event, self._proven + 1)
            return
        if self._session is None:
            self._begin(event.session or "")
            self._proven = (event.seq or 1) - 1 if self._whole.silent_start else 0
        elif event.session != self._session:
            yield from self._change_session(event.session or "", cause)
        if event.type == POSITION_RECORD:
            position = event.decode(_PositionData)
            if not self._has_all(position):
                yield self._gap(GapKind.SUBSCRIBER, self._proven + 1, position.last, cause)
            self._prove(position.last)
        elif event.seq is None:
            yield from self._record(event)
        elif self._whole.wants(event.type) and event.seq > self._reached(event.type):
            if not self._follows(event, event.seq):
                yield self._gap_before(event, event.seq, cause)
            yield self._hand_on(event, event.seq)

    def _gap_before(self, event: ReceivedEvent, seq: int, cause: str) -> Gap:
        if event.prev is not None:
            first = self._reached(event.type) + 1
            return self._gap(GapKind.SUBSCRIBER, first, event.prev, cause, frozenset([event.type]))
        gap = self._gap(GapKind.SUBSCRIBER, self._proven + 1, seq - 1, cause)
        self._prove(seq - 1)
        return gap

    def _gap(self, kind: GapKind, first: int, last: int | None, cause: str, types: frozenset[str] | None = None) -> Gap:
        return Gap(
            kind=kind,
            shard=self._shard,
            session=self._session,
            from_seq=first,
            to_seq=last,
            types=self._whole.types if types is None else types,
            cause=cause,
        )

    def _change_session(self, session: str, cause: str) -> Iterator[Item]:
        """What Discord would have sent between two sessions is lost, and the control plane has said so or will not."""
        if not any(kind is GapKind.SESSION for kind, _ in self._told):
            self._told_all = True
            yield self._gap(GapKind.SESSION, self._proven + 1, None, cause)
        self._told.clear()
        self._past.append(self._session or "")
        self._begin(session)

    # ---------------------------------------------------------------- replay

    def replayed(self, event: ReceivedEvent) -> Iterator[Item]:
        if self.asked is None:
            return  # of a replay that was given up
        if event.seq is None:
            if self._session is not None and (event.type == GAP_RECORD or self._is_new(event)):
                yield from self._record(event)
            return
        if self._session is None and self._whole.silent_start:
            self._oldest = Saved(self._shard, event.session or "", event.seq - 1)
            self._session, self._proven = self._oldest.session, self._oldest.seq
        yield from self._come_into(event.session or "")
        if self._whole.wants(event.type) and event.seq > self._reached(event.type):
            self._seen[event.type] = event.seq
            yield event

    def _is_new(self, record: ReceivedEvent) -> bool:
        return self._record_at is None or record.timestamp > self._record_at

    def _come_into(self, session: str) -> Iterator[Item]:
        if self._session is None:
            self._begin(session)
        elif session != self._session:
            yield from self._change_session(session, "the session ended, and another one began")

    def replay_ended(self, end: ReplayEnd) -> Iterator[Item]:
        asked = self.asked
        if asked is None:
            return
        yield from self._come_into(end.session)
        if not end.complete:
            yield from self._lacking(asked, end)
        self._prove(end.last)
        if self._doubted is not None and self._doubted != self._session:
            self._past.append(self._doubted)  # it was published before the bus answered, so that session is over
        self._doubted = None
        del self._whole.asking[self._shard]
        if self._overflowed:
            self._overflowed = False
            self._ask()
        yield from self._resume(self._let_go())

    def _lacking(self, asked: Ask, end: ReplayEnd) -> Iterator[Item]:
        """What the bus could not repeat. Of a session that it does not know any more, the change of sessions has told."""
        since = end.since
        cause = "the bus cannot repeat it any more: its ring has moved on, or it was restarted"
        replace = msgspec.structs.replace
        if asked.session not in {None, since.session} and not self._told_all:
            yield replace(self._gap(GapKind.SUBSCRIBER, asked.after + 1, None, cause), session=asked.session)
        first = asked.after + 1 if since.session == asked.session else 1
        if since.seq >= first and not (asked.session is None and self._whole.silent_start):
            yield replace(self._gap(GapKind.SUBSCRIBER, first, since.seq, cause), session=since.session)

    def give_up(self, cause: str) -> Iterator[Item]:
        held = self._let_go()
        if self.asked is None or not held:
            return
        del self._whole.asking[self._shard]
        self._overflowed = False
        yield from self._go_on_with(held[0], cause)
        yield from self._resume(held[1:])

    def _resume(self, held: list[ReceivedEvent]) -> Iterator[Item]:
        for event in held:
            yield from self.live(event)


def end_of_replay(fields: Mapping[str, object]) -> ReplayEnd:
    """The fields of the last frame. Raises ValueError where they do not fit."""
    return msgspec.convert(fields, ReplayEnd)
