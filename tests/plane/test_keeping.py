"""What of a session is written when, when it is forgotten, and what the next process is told of those that cannot go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreUnavailable
from discorder.plane.keeping import Claim, Keeper, Sessions, untold_before
from discorder.publishers.delivery import LostSession, ShardDelivery
from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.sessions import Book, MemorySessionStore, StoredSession, Ticket, Untold
from discorder.sessions.store import Shard, T
from discorder.shard.reception import Reception
from discorder.statemachine import Session
from discorder.stats import GatewayStats
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import session_label

FIRST, SECOND = Session("s-1", "wss://one.example"), Session("s-2", "wss://two.example")
LABEL = session_label("s-1")
READY = b'{"v":10}'
THEN = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = SessionStartLimit(total=1000, remaining=999, reset_after_ms=3_600_000, max_concurrency=2)


class Watched(MemorySessionStore):
    """Notes what it is asked for, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[StoredSession, bool]] = []
        self.forgotten: list[Shard] = []
        self.held: list[tuple[list[Shard], bool, float]] = []
        self.book = Book()

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        super().save(session, now=now)
        self.saved.append((session, now))

    def forget(self, shard_id: int, shard_count: int) -> None:
        super().forget(shard_id, shard_count)
        self.forgotten.append((shard_id, shard_count))

    async def hold(self, shards: Iterable[Shard], *, take_over: bool = False, patience: float = 0.0) -> None:
        self.held.append((list(shards), take_over, patience))

    async def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool = True) -> T:
        def noted(book: Book) -> tuple[Book, T]:
            self.book, result = change(book)
            return self.book, result

        return await super().transact(noted, durable=durable)


class Reached(ShardDelivery):
    """How far the publishers are is what the test says."""

    def __init__(self) -> None:
        super().__init__(0, hand_over=lambda _: None, lanes=tuple)
        self.seqs: dict[str, int] = {}
        self.lacking: list[str] = []

    def delivered(self, session: str) -> int | None:
        return self.seqs.get(session)

    @property
    def behind(self) -> list[str]:
        return self.lacking


class Kept:
    """A keeper of shard 1 of 4, and what it works with."""

    def __init__(self, session: Session | None = None, seq: int | None = None, untold: tuple[Untold, ...] = ()) -> None:
        self.clock, self.store, self.delivery = FakeClock(), Watched(), Reached()
        self.reception = Reception((1, 4), self.clock, GatewayStats(), self.delivery)
        self.reception.last_ready = READY
        if session is not None and seq is not None:
            self.reaches(session, seq)
        self.keeper = Keeper(
            self.store,
            (1, 4),
            self.reception,
            self.delivery,
            session=session,
            untold=untold,
            intents=513,
            token="token-key",
            clock=self.clock,
        )

    def reaches(self, session: Session, seq: int) -> None:
        self.delivery.seqs[session_label(session.session_id)] = seq

    @property
    def seqs(self) -> list[tuple[int, bool]]:
        """Of every write: the sequence, and whether it could not wait."""
        return [(session.seq, now) for session, now in self.store.saved]

    @property
    def untold(self) -> list[tuple[str, int]]:
        """What the last write says of the sessions before it."""
        return [(one.session, one.seq) for one in self.store.saved[-1][0].untold]


# ---------------------------------------------------------------- one shard


async def test_a_new_session_is_written_at_once_with_all_that_a_resume_needs() -> None:
    it = Kept()
    await it.clock.advance(60.0)
    it.reaches(FIRST, 1)
    it.keeper.save(FIRST)
    assert it.store.saved == [
        (StoredSession(1, 4, "s-1", "wss://one.example", 1, READY, it.clock.now(), 513, "token-key"), True)
    ]


def test_a_session_of_which_not_even_ready_is_delivered_is_written_with_0() -> None:
    """Whoever takes it over hands READY over itself: Discord does not replay it."""
    it = Kept()
    it.keeper.save(FIRST)
    assert it.seqs == [(0, True)]


def test_a_checkpoint_writes_a_sequence_that_has_moved_and_can_wait() -> None:
    """A sequence that stands still costs no write."""
    it = Kept()
    it.keeper.checkpoint()
    it.keeper.save(FIRST)
    it.keeper.checkpoint()
    it.reaches(FIRST, 4)
    it.keeper.checkpoint()
    it.keeper.checkpoint()
    it.reaches(FIRST, 5)
    it.keeper.checkpoint()
    assert it.seqs == [(0, True), (4, False), (5, False)]


def test_a_stored_session_is_not_written_again_before_it_moves() -> None:
    it = Kept(FIRST, 7)
    it.keeper.checkpoint()
    assert it.seqs == []
    it.reaches(FIRST, 8)
    it.keeper.checkpoint()
    assert it.seqs == [(8, False)]


def test_a_session_that_is_gone_stays_stored_until_its_shard_has_ended() -> None:
    """A process that is killed before could not tell what is missing; it is forgotten once."""
    it = Kept(FIRST, 7)
    it.keeper.drop()
    it.reaches(FIRST, 9)
    it.keeper.checkpoint()
    assert (it.seqs, it.store.forgotten) == ([], [])
    it.keeper.finish()
    assert it.store.forgotten == [(1, 4)]
    it.keeper.checkpoint()
    assert it.store.forgotten == [(1, 4)]


def test_a_session_that_goes_on_is_not_forgotten_at_the_end() -> None:
    it = Kept(FIRST, 7)
    it.keeper.finish()
    it.keeper.checkpoint()
    assert it.store.forgotten == []


def test_a_session_that_is_gone_is_not_forgotten_where_another_has_taken_its_place() -> None:
    it = Kept(FIRST, 7)
    it.keeper.drop()
    it.keeper.save(SECOND)
    it.keeper.finish()
    assert it.store.forgotten == []


def test_a_session_that_is_gone_stays_stored_while_somebody_lacks_some_of_it() -> None:
    """Its end was told of, into a queue that may go with the process."""
    it = Kept(FIRST, 7)
    it.keeper.drop()
    it.delivery.lacking = ["audit"]
    it.keeper.finish()
    assert it.store.forgotten == []
    it.delivery.lacking = []
    it.keeper.checkpoint()
    assert it.store.forgotten == [(1, 4)]


async def test_what_ended_before_ready_was_delivered_is_stored_beside_the_next_session() -> None:
    """With how far it was delivered and when it ended, until the next one's READY is delivered; then never again."""
    it = Kept(FIRST, 7)
    await it.clock.advance(60.0)
    it.keeper.drop()
    ended = it.clock.now()
    await it.clock.advance(60.0)
    it.keeper.save(SECOND)
    assert it.store.saved[-1][0].untold == (Untold(LABEL, (1, 4), 7, ended),)
    it.reaches(SECOND, 1)
    it.keeper.checkpoint()
    assert it.untold == []
    it.reaches(SECOND, 2)
    it.keeper.checkpoint()
    assert it.untold == []


def test_of_a_session_that_ended_with_nothing_delivered_since_the_last_write_counts_what_was_written() -> None:
    """A required publisher that has nothing of it yet: what is stored is what the next process would begin with."""
    it = Kept()
    it.reaches(FIRST, 5)
    it.keeper.save(FIRST)
    it.delivery.seqs.clear()
    it.keeper.drop()
    it.keeper.save(SECOND)
    it.keeper.drop()
    it.keeper.save(Session("s-3", "wss://three.example"))
    assert it.untold == [(LABEL, 5), (session_label("s-2"), 0)]


def test_of_a_stored_session_that_delivered_nothing_all_is_untold() -> None:
    it = Kept(FIRST)
    it.keeper.drop()
    it.keeper.save(SECOND)
    assert it.untold == [(LABEL, 0)]


def test_what_an_earlier_process_left_untold_is_handed_on() -> None:
    """Beside the session that was stored with it, and beside the one that follows that."""
    before = Untold("earlier", (0, 1), 3, THEN)
    it = Kept(FIRST, untold=(before,))
    it.keeper.drop()
    it.keeper.save(SECOND)
    assert it.untold == [("earlier", 3), (LABEL, 0)]


def test_where_no_session_was_nothing_is_untold() -> None:
    it = Kept()
    it.keeper.drop()
    it.keeper.save(FIRST)
    assert it.untold == []


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

    def keeper(self, shard_id: int, shard_count: int, stored: StoredSession | None = None) -> tuple[Keeper, Reached]:
        tracker, delivery = ShardTracker(shard_id, shard_count, self.clock), Reached()
        reception = Reception((shard_id, shard_count), self.clock, tracker.stats, delivery)
        return self.sessions.keeper(tracker, reception, delivery, stored), delivery


async def test_a_plane_holds_its_shards_and_the_whole_bot_while_it_does_not_know_them() -> None:
    it = Plane()
    await it.sessions.hold(([0, 2], 4), Claim(take_over=True, patience=3.0))
    await it.sessions.hold(None, Claim())
    assert it.store.held == [([(0, 4), (2, 4)], True, 3.0), ([(0, 1)], False, 0.0)]


async def test_what_is_resumed_is_of_this_layout_these_intents_and_this_token() -> None:
    """A session that another plane with the same settings runs is left to it."""
    ours, unknown, others = stored(0, 8), stored(2, 8, key=""), stored(4, 8)
    it = Plane(ours, unknown, others, stored(6, 8, intents=1), stored(1, 2))
    assert await it.sessions.load(([0, 1, 2, 6], 8)) == {0: ours, 2: unknown}
    assert it.sessions.lost_to((4, 8)) == []


async def test_nothing_is_resumed_before_the_layout_is_known() -> None:
    """Nor told of as lost: with what is stored nobody knows yet what fits."""
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
    """To the first shard that overlaps with it, with what its own process could not tell any more."""
    before = Untold("earlier", (0, 1), 3, THEN - timedelta(hours=1))
    misfit = replace(misfit, untold=(before,))
    it = Plane(misfit)
    await it.sessions.load(([0, 1, 2], 4))
    assert it.sessions.lost_to((1, 4)) == []
    assert it.sessions.lost_to((0, 4)) == [*untold_before(misfit, still_stored=True), lost(misfit, cause)]
    assert it.sessions.lost_to((0, 4)) == it.sessions.lost_to((2, 4)) == []


def test_what_a_process_could_not_tell_of_is_lost_from_where_it_was_delivered() -> None:
    """It is over, whatever becomes of the session that it was stored with, unless that one is only a misfit."""
    session = replace(stored(0, 4), untold=(Untold("earlier", (0, 1), 3, THEN),))
    for still_stored in (True, False):
        (told,) = untold_before(session, still_stored=still_stored)
        assert (told.shard, told.session, told.delivered, told.since) == ((0, 1), "earlier", 3, THEN)
        assert told.still_stored is still_stored
    assert not untold_before(session)[0].still_stored


async def test_a_shard_goes_on_with_what_is_stored_of_it() -> None:
    session = replace(stored(0, 4), untold=(Untold("earlier", (0, 1), 3, THEN),))
    it = Plane()
    keeper, _ = it.keeper(0, 4, session)
    keeper.drop()
    keeper.save(SECOND)
    ((written, _),) = it.store.saved
    assert (written.shard, written.intents, written.token_key) == ((0, 4), 513, "mine")
    assert [one.session for one in written.untold] == ["earlier", session_label("s-0-4")]


async def test_a_checkpoint_is_one_of_every_shard() -> None:
    it = Plane()
    for shard_id in range(2):
        keeper, delivery = it.keeper(shard_id, 2)
        keeper.save(FIRST)
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
    """What has a driver is its own to forget; what another plane runs is not ours, unless the whole bot is."""
    it = Plane(stored(0, 8), stored(2, 8), stored(4, 8), stored(1, 2))
    it.keeper(0, 8)
    await it.sessions.forget_what_never_began(layout)
    assert [one.shard for one in await it.store.load_all()] == left


def test_before_the_look_up_nothing_is_known_of_the_budget() -> None:
    it = Plane()
    assert it.sessions.budget is None
    assert it.sessions.seconds_to_identify([0]) is None


async def test_an_identify_is_paid_for_once_the_look_up_has_answered() -> None:
    """Buckets, budget and reserve are those of the answer, for the shards of the whole layout."""
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
    """The gate is emptied into the store before that is closed, too."""
    it = Plane()
    it.sessions.set_limits(await it.look_up(), 4)
    ticket = await it.sessions.admit(0)
    assert isinstance(ticket, Ticket)
    assert list(it.store.book.ledger.debits) == [ticket.id]
    ticket.refund()
    await it.sessions.close()
    assert list(it.store.book.ledger.debits) == []
    with pytest.raises(StoreUnavailable):
        await it.store.transact(lambda book: (book, None))


async def test_the_stores_health_is_the_planes() -> None:
    it = Plane()
    assert it.sessions.health is it.store.health
