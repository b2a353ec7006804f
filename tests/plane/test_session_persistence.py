"""When sessions are written and forgotten, and which lost sessions the next process reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreUnavailable
from discorder.plane.session_persistence import Claim, Sessions, unreported_before
from discorder.plane.session_writer import SessionWriter
from discorder.publishers.delivery.shard_progress import LostSession, ShardDelivery
from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.sessions import MemorySessionStore, StoredSession, Ticket, UnreportedLoss
from discorder.sessions.store import Ordinals, Shard
from discorder.shard.receiver import Receiver
from discorder.statemachine import Session
from discorder.stats import GatewayStats
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Event, session_label

FIRST, SECOND = Session("s-1", "wss://one.example"), Session("s-2", "wss://two.example")
LABEL = session_label("s-1")
READY = b'{"v":10}'
THEN = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = SessionStartLimit(total=1000, remaining=999, reset_after_ms=3_600_000, max_concurrency=2)


class Watched(MemorySessionStore):
    """Records the calls, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[StoredSession, bool]] = []
        self.forgotten: list[Shard] = []
        self.held: list[tuple[list[Shard], bool, float]] = []

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        super().save(session, now=now)
        self.saved.append((session, now))

    def forget(self, shard_id: int, shard_count: int) -> None:
        super().forget(shard_id, shard_count)
        self.forgotten.append((shard_id, shard_count))

    async def hold(self, shards: Iterable[Shard], *, take_over: bool = False, patience: float = 0.0) -> None:
        self.held.append((list(shards), take_over, patience))


class Reached(ShardDelivery):
    """A delivery whose progress is set by the test."""

    def __init__(self) -> None:
        super().__init__(0, tuple)
        self.seqs: dict[str, int] = {}
        self.lacking: list[str] = []

    def delivered(self, session: str) -> int | None:
        return self.seqs.get(session)

    @property
    def handed_seq(self) -> int | None:
        """Return the highest sequence; no event waits for a publisher."""
        return max(self.seqs.values(), default=None)

    @property
    def behind(self) -> list[str]:
        return self.lacking


class Kept:
    """The session writer of shard 1 of 4, with its dependencies."""

    def __init__(
        self, session: Session | None = None, seq: int | None = None, unreported: tuple[UnreportedLoss, ...] = ()
    ) -> None:
        self.clock, self.store, self.delivery = FakeClock(), Watched(), Reached()
        self.receiver = Receiver((1, 4), self.clock, GatewayStats(), self.delivery, ordinal=Ordinals().take)
        self.receiver.adopt(Session("stored", ""), 1, READY, self.clock.now())
        if session is not None and seq is not None:
            self.reaches(session, seq)
        self.writer = SessionWriter(
            self.store,
            (1, 4),
            self.receiver,
            self.delivery,
            session=session,
            unreported=unreported,
            intents=513,
            token="token-key",
            clock=self.clock,
        )

    def reaches(self, session: Session, seq: int) -> None:
        self.delivery.seqs[session_label(session.session_id)] = seq

    @property
    def seqs(self) -> list[tuple[int, bool]]:
        """Return the sequence of every write, and whether it was urgent."""
        return [(session.seq, now) for session, now in self.store.saved]

    @property
    def unreported(self) -> list[tuple[str, int]]:
        """Return the earlier sessions whose loss the last write marks as unreported."""
        return [(one.session, one.seq) for one in self.store.saved[-1][0].unreported]


# ---------------------------------------------------------------- one shard


async def test_a_new_session_is_written_at_once_with_all_that_a_resume_needs() -> None:
    it = Kept()
    await it.clock.advance(60.0)
    it.reaches(FIRST, 1)
    it.writer.save(FIRST)
    assert it.store.saved == [
        (StoredSession(1, 4, "s-1", "wss://one.example", 1, READY, it.clock.now(), 513, "token-key"), True)
    ]


def test_a_session_of_which_not_even_ready_is_delivered_is_written_with_0() -> None:
    """The next process publishes READY itself, because Discord does not replay it."""
    it = Kept()
    it.writer.save(FIRST)
    assert it.seqs == [(0, True)]


def test_a_checkpoint_writes_a_sequence_that_has_moved_and_can_wait() -> None:
    """An unchanged sequence is not written."""
    it = Kept()
    it.writer.checkpoint()
    it.writer.save(FIRST)
    it.writer.checkpoint()
    it.reaches(FIRST, 4)
    it.writer.checkpoint()
    it.writer.checkpoint()
    it.reaches(FIRST, 5)
    it.writer.checkpoint()
    assert it.seqs == [(0, True), (4, False), (5, False)]


def test_a_stored_session_is_not_written_again_before_it_moves() -> None:
    it = Kept(FIRST, 7)
    it.writer.checkpoint()
    assert it.seqs == []
    it.reaches(FIRST, 8)
    it.writer.checkpoint()
    assert it.seqs == [(8, False)]


def test_the_first_progress_of_a_process_is_written_at_once_and_then_every_hundred_events() -> None:
    """A process that is killed before the next checkpoint still makes progress."""
    it = Kept(FIRST, 7)
    it.delivery.moved()
    for seq in (8, 9, 107, 108, 109, 208):
        it.reaches(FIRST, seq)
        it.delivery.moved()
    assert it.seqs == [(8, True), (108, True), (208, True)]


def test_what_was_replayed_is_written_at_once_when_the_replay_has_ended_and_once_more_at_the_next_event() -> None:
    it = Kept(FIRST, 7)
    for seq in (8, 12):
        it.reaches(FIRST, seq)
        it.delivery.moved()
    it.writer.opened()
    for seq in (13, 14):
        it.reaches(FIRST, seq)
        it.delivery.moved()
    assert it.seqs == [(8, True), (12, True), (13, True)]
    it.writer.checkpoint()
    assert it.seqs[3:] == [(14, False)]


def test_progress_that_only_a_publisher_makes_is_written_too() -> None:
    """Everything was offered long ago; a required publisher accepts it step by step."""
    it = Kept(FIRST, 7)
    handed = Event("X", (1, 4), 1000, None, LABEL, THEN, b"{}")
    ShardDelivery.hand_over(it.delivery, [handed])
    it.reaches(FIRST, 7)
    it.delivery.moved()
    assert it.seqs == []
    it.reaches(FIRST, 8)
    it.delivery.moved()
    assert it.seqs == [(8, True)]


def test_a_session_that_is_gone_stays_stored_until_its_shard_has_ended() -> None:
    """Otherwise a process that is killed earlier could not report what is missing. The session is forgotten once."""
    it = Kept(FIRST, 7)
    it.writer.drop()
    it.reaches(FIRST, 9)
    it.writer.checkpoint()
    assert (it.seqs, it.store.forgotten) == ([], [])
    it.writer.finish()
    assert it.store.forgotten == [(1, 4)]
    it.writer.checkpoint()
    assert it.store.forgotten == [(1, 4)]


def test_a_session_that_goes_on_is_not_forgotten_at_the_end() -> None:
    it = Kept(FIRST, 7)
    it.writer.finish()
    it.writer.checkpoint()
    assert it.store.forgotten == []


def test_a_session_that_is_gone_is_not_forgotten_where_another_has_taken_its_place() -> None:
    it = Kept(FIRST, 7)
    it.writer.drop()
    it.writer.save(SECOND)
    it.writer.finish()
    assert it.store.forgotten == []


def test_a_session_that_is_gone_stays_stored_while_somebody_lacks_some_of_it() -> None:
    """The record of its end is in a queue that may be lost with the process."""
    it = Kept(FIRST, 7)
    it.writer.drop()
    it.delivery.lacking = ["audit"]
    it.writer.finish()
    assert it.store.forgotten == []
    it.delivery.lacking = []
    it.writer.checkpoint()
    assert it.store.forgotten == [(1, 4)]


async def test_what_ended_before_ready_was_delivered_is_stored_beside_the_next_session() -> None:
    """It is stored with its delivered sequence and the time of its end, until the READY of the next session is delivered."""
    it = Kept(FIRST, 7)
    await it.clock.advance(60.0)
    it.writer.drop()
    ended = it.clock.now()
    await it.clock.advance(60.0)
    it.writer.save(SECOND)
    assert it.store.saved[-1][0].unreported == (UnreportedLoss(LABEL, (1, 4), 7, ended),)
    it.reaches(SECOND, 1)
    it.writer.checkpoint()
    assert it.unreported == []
    it.reaches(SECOND, 2)
    it.writer.checkpoint()
    assert it.unreported == []


def test_of_a_session_that_ended_with_nothing_delivered_since_the_last_write_counts_what_was_written() -> None:
    """A required publisher has accepted nothing of it yet: the stored sequence is where the next process would start."""
    it = Kept()
    it.reaches(FIRST, 5)
    it.writer.save(FIRST)
    it.delivery.seqs.clear()
    it.writer.drop()
    it.writer.save(SECOND)
    it.writer.drop()
    it.writer.save(Session("s-3", "wss://three.example"))
    assert it.unreported == [(LABEL, 5), (session_label("s-2"), 0)]


def test_of_a_stored_session_that_delivered_nothing_all_is_unreported() -> None:
    it = Kept(FIRST)
    it.writer.drop()
    it.writer.save(SECOND)
    assert it.unreported == [(LABEL, 0)]


def test_what_an_earlier_process_left_unreported_is_handed_on() -> None:
    """It is stored with the session beside which it was found, and with the one after that."""
    before = UnreportedLoss("earlier", (0, 1), 3, THEN)
    it = Kept(FIRST, unreported=(before,))
    it.writer.drop()
    it.writer.save(SECOND)
    assert it.unreported == [("earlier", 3), (LABEL, 0)]


def test_where_no_session_was_nothing_is_unreported() -> None:
    it = Kept()
    it.writer.drop()
    it.writer.save(FIRST)
    assert it.unreported == []


# ---------------------------------------------------------------- all shards of a plane


def stored(shard_id: int, shard_count: int, *, intents: int = 513, key: str = "mine", seq: int = 7) -> StoredSession:
    name = f"s-{shard_id}-{shard_count}"
    return StoredSession(shard_id, shard_count, name, "wss://resume", seq, READY, THEN, intents, key)


class Plane:
    """The sessions of a control plane, on a store that holds ``sessions``."""

    def __init__(self, *sessions: StoredSession) -> None:
        self.clock, self.store = FakeClock(), Watched()
        for session in sessions:
            self.store.save(session)
        self.look_ups = 0
        self.sessions = Sessions(self.store, look_up=self.look_up, intents=513, token="mine", clock=self.clock)

    async def look_up(self) -> GatewayInfo:
        self.look_ups += 1
        return GatewayInfo("wss://main", 4, LIMIT)

    def writer(
        self, shard_id: int, shard_count: int, stored: StoredSession | None = None
    ) -> tuple[SessionWriter, Reached]:
        tracker, delivery = ShardTracker(shard_id, shard_count, self.clock), Reached()
        receiver = Receiver((shard_id, shard_count), self.clock, tracker.stats, delivery, ordinal=Ordinals().take)
        return self.sessions.writer(tracker, receiver, delivery, stored), delivery


async def test_a_plane_holds_its_shards_and_the_whole_bot_while_it_does_not_know_them() -> None:
    it = Plane()
    await it.sessions.hold(([0, 2], 4), Claim(take_over=True, patience=3.0))
    await it.sessions.hold(None, Claim())
    assert it.store.held == [([(0, 4), (2, 4)], True, 3.0), ([(0, 1)], False, 0.0)]


async def test_what_is_resumed_is_of_this_layout_these_intents_and_this_token() -> None:
    """A session that another plane with the same settings runs is not touched."""
    ours, unknown, others = stored(0, 8), stored(2, 8, key=""), stored(4, 8)
    it = Plane(ours, unknown, others, stored(6, 8, intents=1), stored(1, 2))
    assert await it.sessions.load(([0, 1, 2, 6], 8)) == {0: ours, 2: unknown}
    assert it.sessions.lost_to((4, 8)) == []


async def test_nothing_is_resumed_before_the_layout_is_known() -> None:
    """No session is reported as lost either: it is not yet known which ones fit."""
    it = Plane(stored(0, 1))
    assert await it.sessions.load(None) == {}
    assert it.sessions.lost_to((0, 1)) == []


def lost(session: StoredSession, cause: str) -> LostSession:
    label = session_label(session.session_id)
    return LostSession(session.shard, label, session.seq, cause, THEN, still_stored=True)


@pytest.mark.parametrize(
    ("misfit", "cause"),
    [
        (stored(0, 4, intents=1), "the intents changed"),
        (stored(0, 4, key="other"), "the token changed"),
        (stored(0, 2), "the shard layout changed"),
    ],
)
async def test_a_session_that_cannot_go_on_is_told_of_once_with_the_reason(misfit: StoredSession, cause: str) -> None:
    """The first shard that overlaps with it reports it, with the losses that its own process could not report."""
    before = UnreportedLoss("earlier", (0, 1), 3, THEN - timedelta(hours=1))
    misfit = replace(misfit, unreported=(before,))
    it = Plane(misfit)
    await it.sessions.load(([0, 1, 2], 4))
    assert it.sessions.lost_to((1, 4)) == []
    assert it.sessions.lost_to((0, 4)) == [*unreported_before(misfit, still_stored=True), lost(misfit, cause)]
    assert it.sessions.lost_to((0, 4)) == it.sessions.lost_to((2, 4)) == []


def test_what_a_process_could_not_tell_of_is_lost_from_where_it_was_delivered() -> None:
    """That session has ended, even if the one with which it was stored goes on, unless that one is only a misfit."""
    session = replace(stored(0, 4), unreported=(UnreportedLoss("earlier", (0, 1), 3, THEN),))
    for still_stored in (True, False):
        (told,) = unreported_before(session, still_stored=still_stored)
        assert (told.shard, told.session, told.delivered, told.since) == ((0, 1), "earlier", 3, THEN)
        assert told.still_stored is still_stored
    assert not unreported_before(session)[0].still_stored


async def test_a_shard_goes_on_with_what_is_stored_of_it() -> None:
    session = replace(stored(0, 4), unreported=(UnreportedLoss("earlier", (0, 1), 3, THEN),))
    it = Plane()
    writer, _ = it.writer(0, 4, session)
    writer.drop()
    writer.save(SECOND)
    ((written, _),) = it.store.saved
    assert (written.shard, written.intents, written.token_key) == ((0, 4), 513, "mine")
    assert [one.session for one in written.unreported] == ["earlier", session_label("s-0-4")]


async def test_a_checkpoint_is_one_of_every_shard() -> None:
    it = Plane()
    for shard_id in range(2):
        writer, delivery = it.writer(shard_id, 2)
        writer.save(FIRST)
        delivery.seqs[LABEL] = 5
    it.sessions.checkpoint()
    assert [(one.shard_id, one.seq) for one, _ in it.store.saved] == [(0, 0), (1, 0), (0, 5), (1, 5)]


@pytest.mark.parametrize(
    ("layout", "left"),
    [(([0, 1, 2], 8), [(1, 2), (0, 8), (4, 8)]), (None, [(0, 8)])],
)
async def test_a_goodbye_forgets_what_never_began_and_is_ours(
    layout: tuple[list[int], int] | None, left: list[Shard]
) -> None:
    """Each running shard forgets its own session. The sessions of another plane stay, unless this plane runs the whole bot."""
    it = Plane(stored(0, 8), stored(2, 8), stored(4, 8), stored(1, 2))
    it.writer(0, 8)
    await it.sessions.forget_what_never_began(layout)
    assert [one.shard for one in await it.store.load_all()] == left


def test_before_the_look_up_nothing_is_known_of_the_budget() -> None:
    it = Plane()
    assert it.sessions.budget is None
    assert it.sessions.seconds_to_identify([0]) is None


async def test_an_identify_is_paid_for_once_the_look_up_has_answered() -> None:
    """Buckets, budget and reserve come from the answer, for the shards of the whole layout."""
    it = Plane()
    it.sessions.set_limits(await it.look_up(), 300)
    assert it.sessions.seconds_to_identify([0]) == 0.0
    ticket = await it.sessions.admit(3)
    assert isinstance(ticket, Ticket)
    assert (ticket.shard_id, ticket.bucket) == (3, 1)
    budget = it.sessions.budget
    assert budget is not None
    assert (budget.total, budget.remaining, budget.spent_here) == (1000, 998, 1)
    assert budget.reserve == 300
    assert it.sessions.seconds_to_identify([0, 1, 2, 3]) == pytest.approx(5.25)
    await it.sessions.close()


async def test_what_others_spend_of_the_budget_is_told() -> None:
    it = Plane()
    it.sessions.set_limits(await it.look_up(), 4)
    assert isinstance(await it.sessions.admit(0), Ticket)
    assert not it.sessions.other_use
    it.sessions.set_limits(GatewayInfo("wss://main", 4, msgspec.structs.replace(LIMIT, remaining=900)), 4)
    await it.sessions.close()
    assert it.sessions.other_use
    assert it.sessions.other_use.identifies == 98, "the ticket is our own"


async def test_an_answer_that_grew_old_is_asked_for_anew_before_it_pays() -> None:
    it = Plane()
    it.sessions.set_limits(await it.look_up(), 4)
    await it.clock.advance(301.0)
    assert isinstance(await it.sessions.admit(0), Ticket)
    assert it.look_ups == 2
    await it.sessions.close()


async def test_a_ticket_that_goes_back_as_the_plane_ends_is_given_back() -> None:
    """The gate also writes its pending changes to the store before the store is closed."""
    it = Plane()
    it.sessions.set_limits(await it.look_up(), 4)
    ticket = await it.sessions.admit(0)
    assert isinstance(ticket, Ticket)
    assert list(it.store.ledger.debits) == [ticket.id]
    ticket.refund()
    await it.sessions.close()
    assert list(it.store.ledger.debits) == []
    with pytest.raises(StoreUnavailable):
        await it.store.transact(lambda ledger: (ledger, None))


async def test_the_stores_health_is_the_planes() -> None:
    it = Plane()
    assert it.sessions.health is it.store.health
