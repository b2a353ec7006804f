"""The contract of SessionStore, tested for each implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreUnavailable
from discorder.sessions import (
    Ledger,
    MemorySessionStore,
    SessionStore,
    SqliteSessionStore,
    StartLimit,
    StoredSession,
    fitting,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = StartLimit(total=1000, remaining=990, reset_after_ms=3_600_000, max_concurrency=1)


def session(
    shard_id: int = 0, shard_count: int = 1, *, seq: int = 7, session_id: str = "s-1", intents: int = 513
) -> StoredSession:
    return StoredSession(shard_id, shard_count, session_id, "ws://resume", seq, b'{"v":10}', AT, intents)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    """Yield each implementation, open."""
    makers: dict[str, Callable[[], SessionStore]] = {
        "memory": MemorySessionStore,
        "sqlite": lambda: SqliteSessionStore(tmp_path / "s.sqlite3", bot="b" * 64, clock=FakeClock()),
    }
    made = makers[request.param]()
    await made.open()
    await made.hold([(0, 1)])
    yield made
    await made.close()


async def test_a_new_store_is_empty(store: SessionStore) -> None:
    assert fitting(await store.load_all(), 1, None) == {}
    assert await store.load_all() == []
    assert await store.transact(lambda ledger: (ledger, ledger)) == Ledger()


async def test_what_was_saved_is_loaded_equal(store: SessionStore) -> None:
    store.save(session(), now=True)
    await store.flush()
    assert fitting(await store.load_all(), 1, None) == {0: session()}


async def test_a_save_is_seen_by_a_load_without_a_flush(store: SessionStore) -> None:
    store.save(session())
    assert fitting(await store.load_all(), 1, None) == {0: session()}


async def test_the_last_save_of_a_shard_wins_in_every_field(store: SessionStore) -> None:
    store.save(session(seq=1))
    await store.flush()
    store.save(session(seq=2))
    await store.flush()
    last = replace(session(seq=3, session_id="s-2"), last_ready=None, resume_url="ws://other")
    store.save(last)
    assert fitting(await store.load_all(), 1, None) == {0: last}


async def test_a_lower_seq_of_a_new_session_replaces_a_higher_one(store: SessionStore) -> None:
    store.save(session(seq=900))
    await store.flush()
    store.save(session(seq=1, session_id="s-2"), now=True)
    assert fitting(await store.load_all(), 1, None)[0].seq == 1


async def test_a_session_id_that_comes_again_gets_a_label_of_its_own(store: SessionStore) -> None:
    """A test server repeats its ids after a restart, and counts from 1 again."""
    await store.load_all()
    ordinals = [store.ordinal(one) for one in ("s-1", "s-2", "s-1", "s-1")]
    assert ordinals == [0, 0, 1, 2]
    labels = {replace(session(), ordinal=ordinal).label for ordinal in range(3)}
    assert len(labels) == 3


async def test_an_ordinal_is_kept_with_its_session(store: SessionStore) -> None:
    store.save(replace(session(), ordinal=3), now=True)
    assert fitting(await store.load_all(), 1, None)[0].ordinal == 3
    assert store.ordinal("s-1") == 4


async def test_shards_are_kept_apart(store: SessionStore) -> None:
    for shard_id in range(4):
        store.save(session(shard_id, 4, seq=shard_id))
    assert {key: one.seq for key, one in fitting(await store.load_all(), 4, None).items()} == {0: 0, 1: 1, 2: 2, 3: 3}


async def test_another_layout_is_not_loaded_but_stays_until_it_is_superseded(store: SessionStore) -> None:
    store.save(session(0, 2))
    store.save(session(1, 2))
    assert fitting(await store.load_all(), 4, None) == {}
    store.save(session(2, 4))
    assert [one.shard for one in await store.load_all()] == [(1, 2), (2, 4)]


async def test_a_shard_that_was_released_keeps_what_is_stored_and_is_held_again(store: SessionStore) -> None:
    """What another owner writes meanwhile is not overwritten by what this one knew."""
    store.save(session(seq=7))
    store.pause(0, 1, AT)
    await store.flush()
    store.release([(0, 1)])
    store.release([(0, 1)])
    await store.hold([(0, 1)])
    assert fitting(await store.load_all(), 1, None) == {0: session(seq=7)}
    assert await store.load_pauses() == {(0, 1): AT}


async def test_a_session_with_other_intents_is_not_loaded(store: SessionStore) -> None:
    store.save(session(intents=513))
    assert fitting(await store.load_all(), 1, intents=1) == {}
    assert fitting(await store.load_all(), 1, intents=513) == {0: session()}


async def test_a_forgotten_session_is_gone_and_forgetting_twice_is_no_error(store: SessionStore) -> None:
    store.save(session(), now=True)
    store.forget(0, 1)
    store.forget(0, 1)
    assert await store.load_all() == []


async def test_a_save_after_a_forget_counts(store: SessionStore) -> None:
    store.save(session())
    store.forget(0, 1)
    store.save(session(seq=8))
    assert fitting(await store.load_all(), 1, None)[0].seq == 8


async def test_a_change_of_the_book_is_seen_by_the_next_one(store: SessionStore) -> None:
    def change(ledger: Ledger) -> tuple[Ledger, str]:
        after = ledger.reconciled(LIMIT, at=100.0, now=100.0)
        after, _ = after.take(0, "t-1", now=100.0, shard_count=1)
        return after.sent(0, "t-1", 101.0), "done"

    assert await store.transact(change) == "done"
    ledger = await store.transact(lambda ledger: (ledger, ledger))
    assert ledger.look_up is not None
    assert ledger.look_up.limit == LIMIT
    assert ledger.debits["t-1"].sent_at == 101.0
    assert ledger.slots[0].sent_at == 101.0


async def test_a_refund_is_remembered(store: SessionStore) -> None:
    await store.transact(lambda ledger: (ledger.reconciled(LIMIT, at=100.0, now=100.0), None))
    await store.transact(lambda ledger: ledger.take(0, "t-1", now=100.0, shard_count=1))
    await store.transact(lambda ledger: (ledger.refunded(0, "t-1"), None))
    ledger = await store.transact(lambda ledger: (ledger, ledger))
    assert not ledger.debits
    assert ledger.slots[0].holder == ""


async def test_what_is_recorded_is_seen_at_once_and_by_the_next_transaction(store: SessionStore) -> None:
    store.record(lambda ledger: ledger.paid(0, "t-1", 100.0))
    store.record(lambda ledger: ledger.sent(0, "t-1", 101.0))
    assert store.ledger.debits["t-1"].sent_at == 101.0
    ledger = await store.transact(lambda ledger: (ledger, ledger))
    assert (ledger, ledger.slots[0].sent_at) == (store.ledger, 101.0)


async def test_a_change_that_raises_changes_nothing(store: SessionStore) -> None:
    def broken(ledger: Ledger) -> tuple[Ledger, None]:
        raise LookupError(len(ledger.slots))

    with pytest.raises(LookupError):
        await store.transact(broken)
    assert await store.transact(lambda ledger: (ledger, ledger)) == Ledger()


async def test_closing_twice_is_no_error_and_a_closed_store_changes_no_book(store: SessionStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.transact(lambda ledger: (ledger, None))


@pytest.mark.parametrize(
    ("shard_id", "shard_count", "seq", "session_id"),
    [(1, 1, 0, "s"), (-1, 1, 0, "s"), (0, 1, -1, "s"), (0, 1, 2**63, "s"), (0, 1, 0, "")],
)
def test_what_cannot_be_a_session_is_refused(shard_id: int, shard_count: int, seq: int, session_id: str) -> None:
    with pytest.raises(ValueError, match="shard"):
        session(shard_id, shard_count, seq=seq, session_id=session_id)


async def test_a_pause_is_kept_with_its_time_until_it_is_ended(store: SessionStore) -> None:
    """Apart from the session of the shard; ending it twice is no error."""
    assert await store.load_pauses() == {}
    store.save(session(), now=True)
    store.pause(0, 1, AT)
    store.pause(2, 4, AT)
    assert await store.load_pauses() == {(0, 1): AT, (2, 4): AT}
    store.forget(0, 1)
    store.unpause(2, 4)
    store.unpause(2, 4)
    await store.flush()
    assert await store.load_pauses() == {(0, 1): AT}


async def test_the_last_pause_of_a_shard_counts(store: SessionStore) -> None:
    later = AT.replace(hour=5)
    store.pause(0, 1, AT)
    store.unpause(0, 1)
    store.pause(0, 1, later)
    await store.flush()
    assert await store.load_pauses() == {(0, 1): later}
