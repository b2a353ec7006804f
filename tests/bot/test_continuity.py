"""What a subscriber may believe. Single cases first; then a lossy bus that restarts, in every order that hypothesis finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from discorder.bot.continuity import Continuity
from discorder.bot.places import Ask, Gap, Item, ReplayEnd, Saved, Shard, end_of_replay
from discorder.publishers.zeromq_requests import position_document
from discorder.publishers.zeromq_ring import Place, Replay, Ring
from discorder.records import Gap as GapData
from discorder.records import GapKind as Kind
from discorder.records import gap_record
from discorder.wire import Event, ReceivedEvent, decode_document

SHARD = (0, 1)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def event(seq: int, prev: int | None, kind: str = "A", session: str = "s", shard: Shard = SHARD) -> ReceivedEvent:
    return decode_document(Event(kind, shard, seq, prev, session, MOMENT, b"{}").document)


def position(since: int, last: int, session: str = "s", **types: int) -> ReceivedEvent:
    data = msgspec.Raw(msgspec.json.encode({"since": since, "last": last, "types": types}))
    return ReceivedEvent("DISCORDER_POSITION", SHARD, None, None, session, MOMENT, data)


def lost(first: int, last: int | None = None, *, kind: Kind = Kind.SESSION, session: str = "s") -> ReceivedEvent:
    data = GapData(kind, None, first, last, "test", MOMENT, None if last is None else MOMENT)
    return decode_document(gap_record(SHARD, session, MOMENT, data).document)


def end(last: int, *, complete: bool = True, session: str = "s", since: tuple[str, int] = ("s", 0)) -> ReplayEnd:
    fields = {"complete": complete, "session": session, "last": last, "since": {"session": since[0], "seq": since[1]}}
    return end_of_replay(fields)


def seen(items: Iterator[Item]) -> list[Any]:
    """Sequences of events; (kind, from, to) of gaps."""
    return [(i.kind.value, i.from_seq, i.to_seq) if isinstance(i, Gap) else i.seq for i in items]


def new(*types: str, replay: bool = True, saved: tuple[Saved, ...] | None = None) -> Continuity:
    return Continuity(frozenset(types) or None, replay=replay, saved=saved)


def started(*types: str, at: int = 10, replay: bool = True) -> Continuity:
    """A subscription that has everything up to ``at``."""
    return caught_up(new(*types, replay=replay), at)


def caught_up(continuity: Continuity, at: int) -> Continuity:
    assert seen(continuity.live(position(0, at))) == []
    return continuity


def test_a_new_subscription_starts_with_what_comes_first_and_misses_nothing_before() -> None:
    continuity = new("A")
    assert seen(continuity.live(event(7, 5))) == [7]
    assert seen(continuity.live(event(9, 7))) == [9]
    assert not continuity.asks


def test_an_event_whose_predecessor_is_missing_waits_for_a_replay() -> None:
    continuity = started("A", "B")
    assert seen(continuity.live(event(14, 12))) == []
    assert continuity.asks == {SHARD: Ask(SHARD, "s", 10)}
    assert seen(continuity.live(event(15, 14))) == []
    for seq, prev in ((12, 8), (14, 12)):
        assert seen(continuity.replayed(SHARD, event(seq, prev))) == [seq]
    assert seen(continuity.replay_ended(SHARD, end(14))) == [15]
    assert not continuity.asks


def test_what_nobody_can_repeat_is_a_gap() -> None:
    continuity = started("A")
    assert seen(continuity.live(event(40, 38))) == []
    assert seen(continuity.replayed(SHARD, event(38, 36))) == [38]
    assert seen(continuity.replayed(SHARD, event(40, 38))) == [40]
    assert seen(continuity.replay_ended(SHARD, end(40, complete=False, since=("s", 30)))) == [("subscriber", 11, 30)]


def test_without_replay_a_hole_is_told_exactly() -> None:
    continuity = started("A", "B", replay=False)
    (gap, handed_on) = continuity.live(event(40, 38))
    assert isinstance(gap, Gap)
    assert (gap.from_seq, gap.to_seq, gap.types) == (11, 38, frozenset("A"))
    assert handed_on == event(40, 38)
    assert seen(continuity.live(event(41, 12, "B"))) == [("subscriber", 11, 12), 41]
    assert seen(continuity.live(event(42, 40))) == [42]


def test_a_position_tells_of_a_lost_event_that_no_other_follows() -> None:
    continuity = started("A")
    assert seen(continuity.live(position(0, 20, A=10, B=20))) == []
    assert not continuity.asks, "B is not wanted here"
    assert seen(continuity.live(position(0, 30, A=25, B=30))) == []
    assert continuity.asks == {SHARD: Ask(SHARD, "s", 20)}


def test_a_position_that_vouches_for_less_than_is_missing_proves_nothing() -> None:
    """A new process knows what came after the place where it resumed, and nothing of what lay before."""
    continuity = started("A")
    assert seen(continuity.live(position(12, 12))) == []
    assert continuity.asks == {SHARD: Ask(SHARD, "s", 10)}


def test_the_next_number_proves_nothing_to_who_wants_some_types_only() -> None:
    continuity = new("A", saved=(Saved(SHARD, "s", 9),))
    assert seen(continuity.replay_ended(SHARD, end(9))) == []
    assert seen(continuity.live(event(10, None))) == []
    assert SHARD in continuity.asks


def test_a_cursor_stays_where_a_replay_began_until_it_is_known_what_the_replay_lacked() -> None:
    continuity = new("A", saved=(Saved(SHARD, "s", 10),))
    assert seen(continuity.replayed(SHARD, event(12, 9))) == [12]
    assert continuity.place(SHARD) == Saved(SHARD, "s", 10, {"A": 12})
    assert seen(continuity.replayed(SHARD, event(1, 0, session="t"))) == [("session", 11, None), 1]
    assert continuity.place(SHARD) == Saved(SHARD, "s", 10)
    assert seen(continuity.replay_ended(SHARD, end(1, session="t"))) == []
    assert continuity.place(SHARD) == Saved(SHARD, "t", 1)


def test_a_restarted_plane_that_resumes_gives_no_gap_to_who_has_everything() -> None:
    """It cannot say what preceded its first events. All types: the numbers prove it. Some: what was told before does."""
    everything = started()
    assert seen(everything.live(event(11, None))) == [11]
    some = started("A")
    assert seen(some.live(event(13, None))) == []
    assert seen(some.replayed(SHARD, event(13, None))) == [13]
    assert seen(some.replay_ended(SHARD, end(13))) == []
    told = started("A")
    assert seen(told.live(position(10, 12, B=12))) == []
    assert told.place(SHARD) == Saved(SHARD, "s", 12)


def test_what_a_resuming_plane_sends_again_is_not_handed_on_again() -> None:
    continuity = started()
    assert seen(continuity.live(event(9, None))) == []
    assert seen(continuity.live(event(10, 9))) == []
    assert seen(continuity.live(event(11, 10))) == [11]


def test_a_session_that_ends_is_one_gap_told_by_the_plane() -> None:
    continuity = started()
    assert seen(continuity.live(lost(11))) == [("session", 11, None)]
    assert seen(continuity.live(lost(11))) == [], "a record comes again in a replay"
    assert seen(continuity.live(event(1, 0, "READY", session="t"))) == []
    assert seen(continuity.replayed(SHARD, lost(11))) == []
    assert seen(continuity.replayed(SHARD, event(1, 0, "READY", session="t"))) == [1]
    assert seen(continuity.replay_ended(SHARD, end(1, session="t", since=("s", 10)))) == []
    assert continuity.place(SHARD) == Saved(SHARD, "t", 1)


def test_a_session_that_ends_unheard_is_one_gap_too() -> None:
    continuity = started()
    assert seen(continuity.live(event(5, 2, session="t"))) == []
    ended = end(5, session="t", complete=False, since=("t", 1))
    assert seen(continuity.replayed(SHARD, event(5, 2, session="t"))) == [("session", 11, None), 5]
    assert seen(continuity.replay_ended(SHARD, ended)) == [("subscriber", 1, 1)]


def test_what_still_comes_of_a_session_that_was_left_behind_asks_for_nothing() -> None:
    continuity = started()
    for held in (event(13, 11), position(0, 13, A=13), event(1, 0, session="t")):
        assert seen(continuity.live(held)) == []
    assert seen(continuity.replayed(SHARD, event(1, 0, session="t"))) == [("session", 11, None), 1]
    assert seen(continuity.replay_ended(SHARD, end(1, session="t"))) == []
    assert not continuity.asks


def test_the_rest_of_a_session_is_replayed_before_its_end_is_told() -> None:
    continuity = started("A")
    assert seen(continuity.live(lost(15))) == []
    assert seen(continuity.replayed(SHARD, event(13, 9))) == [13]
    assert seen(continuity.replayed(SHARD, lost(15))) == [("session", 15, None)]
    assert seen(continuity.replay_ended(SHARD, end(14))) == []
    assert not continuity.asks


def test_what_the_bus_itself_had_to_drop_is_a_gap_of_its_own() -> None:
    continuity = started()
    assert seen(continuity.live(lost(11, 15, kind=Kind.PUBLISHER))) == [("publisher", 11, 15)]
    assert seen(continuity.live(event(16, 12))) == [16]


def test_a_cursor_goes_on_where_it_was_and_is_told_what_it_missed() -> None:
    continuity = new("A", saved=(Saved(SHARD, "s", 10, {"A": 12}),))
    assert continuity.asks == {SHARD: Ask(SHARD, "s", 10)}
    assert seen(continuity.replayed(SHARD, event(12, 9))) == []
    assert seen(continuity.replayed(SHARD, event(14, 12))) == [14]
    assert seen(continuity.replay_ended(SHARD, end(20))) == []
    assert continuity.place(SHARD) == Saved(SHARD, "s", 20)


def test_a_cursor_meets_a_shard_that_it_does_not_know_from_its_oldest_event() -> None:
    continuity = new("A", saved=())
    assert seen(continuity.live(event(14, 12))) == []
    assert continuity.asks == {SHARD: Ask(SHARD, None, 0)}
    assert continuity.place(SHARD) is None
    assert seen(continuity.replayed(SHARD, event(12, 9))) == [12]
    assert seen(continuity.replayed(SHARD, event(14, 12))) == [14]
    assert seen(continuity.replay_ended(SHARD, end(14, complete=False, since=("s", 8)))) == [("subscriber", 1, 8)]


def test_another_number_of_shards_ends_what_there_was() -> None:
    continuity = new(saved=(Saved((3, 4), "s", 10),))
    assert seen(continuity.live(event(1, 0, "READY", session="t", shard=(0, 2)))) == [("session", 11, None)]
    assert (3, 4) not in continuity.asks


def test_who_is_not_answered_goes_on_with_a_gap() -> None:
    continuity = started("A")
    assert seen(continuity.give_up(SHARD, "nobody answers")) == []
    assert seen(continuity.live(event(14, 12))) == []
    continuity.replay = False
    assert seen(continuity.give_up(SHARD, "nobody answers")) == [("subscriber", 11, 12), 14]
    assert seen(continuity.live(event(15, 14))) == [15]


def test_a_record_that_waited_with_them_is_no_hole() -> None:
    """A state has no session while there is none."""
    continuity = new(saved=(Saved(SHARD, "s", 10),))
    state = msgspec.structs.replace(position(0, 0), type="DISCORDER_STATE", session=None)
    assert seen(continuity.live(state)) == []
    continuity.replay = False
    assert seen(continuity.give_up(SHARD, "nobody answers")) == [None]
    assert seen(continuity.live(event(11, 9))) == [11]


def test_more_than_can_be_held_back_is_replayed_as_well() -> None:
    continuity = started("A")
    for seq in range(14, 10_100):
        assert seen(continuity.live(event(seq, seq - 1))) == []
    assert seen(continuity.replay_ended(SHARD, end(14))) == []
    assert continuity.asks == {SHARD: Ask(SHARD, "s", 14)}


# ---------------------------------------------------------------- a lossy bus


@dataclass
class World:
    """Discord, a control plane with its bus, and a bot; what happens to them is said step by step."""

    types: tuple[str, ...]
    ring_events: int
    stride: int = 1  # Discord counts what it does not send
    published: list[tuple[str, int, str]] = field(default_factory=list)  # session, seq, type, as Discord numbered them
    items: list[list[Item]] = field(default_factory=lambda: [[]])  # of each life of the bot
    losses: int = 0

    def __post_init__(self) -> None:
        self._session = 0
        self._seq = 0
        self._new_plane()
        self.bot = Continuity(frozenset(self.types) or None, replay=True, saved=None)
        self._saved: tuple[Saved, ...] = ()
        self.dispatch("A", arrives=True)
        self.save()

    @property
    def label(self) -> str:
        return f"s{self._session:02d}"

    def _new_plane(self) -> None:
        size = len(Event("A", SHARD, 10, 9, self.label, MOMENT, b"{}").document) + 200
        self._ring = Ring(max_bytes=self.ring_events * size, max_seconds=600)
        self._previous: dict[str, int] = {}
        self._whole_session = False

    def _publish(self, session: str, seq: int, kind: str, *, arrives: bool) -> None:
        prev = self._previous.get(kind, 0 if self._whole_session else None)
        self._previous[kind] = seq
        self._bus(Event(kind, SHARD, seq, prev, session, MOMENT, b"{}"), arrives=arrives)

    def _bus(self, event: Event, *, arrives: bool) -> None:
        self._ring.append(event, event.type.encode(), event.document, 0.0)
        self._arrive(decode_document(event.document), arrives=arrives)

    def _arrive(self, message: ReceivedEvent, *, arrives: bool) -> None:
        if arrives and self.bot.accept(message):  # as a subscription does
            self.items[-1].append(message)
        elif arrives:
            self.items[-1].extend(self.bot.live(message))
        else:
            self.losses += 1

    # steps

    def dispatch(self, kind: str, *, arrives: bool) -> None:
        if self._seq == 0:
            self._whole_session = True
            self._seq = 1 - self.stride
        self._seq += self.stride
        self.published.append((self.label, self._seq, kind))
        self._publish(self.label, self._seq, kind, arrives=arrives)

    def tell(self, *, arrives: bool) -> None:
        for place in self._ring.positions():
            self._arrive(decode_document(position_document(place, MOMENT)), arrives=arrives)

    def answer(self, *, parts: int) -> None:
        """The bus answers what is asked, or as many parts of it as come through."""
        for shard, ask in list(self.bot.asks.items()):
            log = self._ring.log(shard[0])
            if log is None or not log.runs:
                continue
            self.bot.replay_begins(shard)
            replay = Replay(log, None if ask.session is None else Place(ask.session, ask.after), None)
            for _ in range(parts):
                entry = replay.look()
                if entry is None:
                    fields = {"complete": replay.complete, "session": replay.last.session, "last": replay.last.seq}
                    since = {"session": replay.since.session, "seq": replay.since.seq}
                    ended = end_of_replay({**fields, "since": since})
                    self.items[-1].extend(self.bot.replay_ended(shard, ended))
                    break
                replay.step()
                self.items[-1].extend(self.bot.replayed(shard, decode_document(entry.document)))

    def restart_and_resume(self, back: int, *, arrives: bool) -> None:
        """A new process; Discord sends the last ``back`` events of the session again."""
        self._new_plane()
        ours = [one for one in self.published if one[0] == self.label]
        delivered, again = ours[: len(ours) - back], ours[max(0, len(ours) - back) :]
        self._ring.begin(SHARD, self.label, delivered[-1][1] if delivered else 0)
        for session, seq, kind in again:
            self._publish(session, seq, kind, arrives=arrives)

    def lose_session(self, *, arrives: bool, restart: bool) -> None:
        if restart:
            self._new_plane()
            self._ring.begin(SHARD, self.label, self._seq)
        data = GapData(Kind.SESSION, None, self._seq + 1, None, "test", MOMENT, None)
        self._bus(gap_record(SHARD, self.label, MOMENT, data), arrives=arrives)
        self._session, self._seq, self._previous = self._session + 1, 0, {}
        self.dispatch("A", arrives=arrives)

    def save(self) -> None:
        place = self.bot.place(SHARD)
        self._saved = () if place is None else (place,)

    def restart_bot(self) -> None:
        self.bot = Continuity(frozenset(self.types) or None, replay=True, saved=self._saved)
        self.items.append([])

    def settle(self) -> None:
        """Life goes on, nothing is lost any more, and everything is answered."""
        self.dispatch("B", arrives=True)
        for _ in range(10):
            self.tell(arrives=True)
            self.answer(parts=10_000)
        assert not self.bot.asks

    # verdicts

    def handed(self, life: int) -> list[tuple[str, int, str]]:
        return [(i.session or "", i.seq or 0, i.type) for i in self.items[life] if isinstance(i, ReceivedEvent)]

    def missing(self) -> list[tuple[str, int, str]]:
        """What was published and wanted, and neither handed on nor covered by a gap."""
        wanted = [one for one in self.published if not self.types or one[2] in self.types]
        handed = {one for life in range(len(self.items)) for one in self.handed(life)}
        gaps = list(self._gaps())
        return [one for one in wanted if one not in handed and not any(covers(gap, after, one) for gap, after in gaps)]

    def _gaps(self) -> Iterator[tuple[Gap, str]]:
        """Each with the session of the next event of its life, "~" when there is none."""
        for life in self.items:
            for index, item in enumerate(life):
                if isinstance(item, Gap):
                    later = [i.session or "" for i in life[index:] if isinstance(i, ReceivedEvent)]
                    yield item, later[0] if later else "~"


def covers(gap: Gap, next_session: str, one: tuple[str, int, str]) -> bool:
    session, seq, kind = one
    if gap.types is not None and kind not in gap.types:
        return False
    if session == gap.session:
        return gap.from_seq <= seq and (gap.to_seq is None or seq <= gap.to_seq)
    return gap.to_seq is None and (gap.session or "") < session < next_session


KINDS = st.sampled_from(["A", "B"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("dispatch"), KINDS, st.booleans()),
        st.tuples(st.just("dispatch"), KINDS, st.booleans()),
        st.tuples(st.just("dispatch"), KINDS, st.just(True)),
        st.tuples(st.just("tell"), st.booleans()),
        st.tuples(st.just("answer"), st.sampled_from([1, 2, 10_000])),
        st.tuples(st.just("resume"), st.integers(0, 6), st.booleans()),
        st.tuples(st.just("lose"), st.booleans(), st.booleans()),
        st.tuples(st.just("save")),
        st.tuples(st.just("bot")),
    ),
    max_size=60,
)


def play(world: World, steps: Sequence[tuple[Any, ...]]) -> None:
    for step in steps:
        play_one(world, step)
    world.settle()


@example(
    steps=[
        *(("dispatch", "A", False), ("dispatch", "A", True), ("lose", False, True), ("answer", 2)),
        *(("lose", False, False), ("dispatch", "A", False)),
    ],
    types=(),
    ring=4,
    stride=1,
)  # the second change of sessions does not tell of what the first one left behind
@example(
    steps=[
        *(("lose", False, False), ("dispatch", "A", True), ("lose", False, False)),
        *(("answer", 1), ("dispatch", "A", False), ("answer", 1)),
    ],
    types=(),
    ring=4,
    stride=1,
)  # an answer that was cut off would have told of what was missing in the middle
@settings(max_examples=400, deadline=None)
@given(STEPS, st.sampled_from([(), ("A",), ("A", "B")]), st.sampled_from([1, 4, 1_000]), st.sampled_from([1, 3]))
def test_every_event_is_handed_on_or_covered_by_a_gap(
    steps: Sequence[tuple[Any, ...]], types: tuple[str, ...], ring: int, stride: int
) -> None:
    """Whatever is lost, in whatever order bot, plane and session end and begin; and nothing comes twice in one life."""
    world = World(types, ring, stride)
    play(world, steps)
    assert world.missing() == []
    for life in range(len(world.items)):
        handed = world.handed(life)
        assert len(handed) == len(set(handed)), "twice in one life"
        for kind in "AB":
            of_kind = [one for one in handed if one[2] == kind]
            assert of_kind == sorted(of_kind), f"{kind} out of order"


CALM = st.lists(
    st.one_of(
        st.tuples(st.just("dispatch"), KINDS, st.booleans()),
        st.tuples(st.just("dispatch"), KINDS, st.just(True)),
        st.tuples(st.just("answer"), st.sampled_from([1, 10_000])),
        st.tuples(st.just("save")),
        st.tuples(st.just("bot")),
        st.tuples(st.just("graceful"), st.integers(0, 4)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(CALM, st.sampled_from([(), ("A",)]), st.sampled_from([1, 3]))
def test_no_gap_is_told_while_the_ring_reaches_back_and_a_plane_takes_its_leave(
    steps: Sequence[tuple[Any, ...]], types: tuple[str, ...], stride: int
) -> None:
    """What is lost is replayed; a plane that stops tells its position, waits for its readers, and the next one resumes."""
    world = World(types, 100_000, stride)
    for step in steps:
        if step[0] == "graceful":
            world.tell(arrives=True)
            world.answer(parts=100_000)
            world.save()
            world.restart_and_resume(step[1], arrives=True)
        else:
            play_one(world, step)
    world.settle()
    assert [item for life in world.items for item in life if isinstance(item, Gap)] == []
    assert world.missing() == []


def play_one(world: World, step: tuple[Any, ...]) -> None:
    match step:
        case ("dispatch", kind, arrives):
            world.dispatch(kind, arrives=arrives)
        case ("tell", arrives):
            world.tell(arrives=arrives)
        case ("answer", parts):
            world.answer(parts=parts)
        case ("resume", back, arrives):
            world.restart_and_resume(back, arrives=arrives)
        case ("lose", arrives, restart):
            world.lose_session(arrives=arrives, restart=restart)
        case ("save",):
            world.save()
        case ("bot",):
            world.restart_bot()
