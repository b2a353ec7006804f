"""When the store writes by itself, and what it returns while it cannot write."""

# ruff: noqa: ASYNC240  # the tests arrange files, nobody else is on the loop

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.config import Log
from discorder.errors import StoreLocked, StoreUnavailable, UnusableFile
from discorder.logs import configure_logs, logger
from discorder.sessions import Ledger, SqliteSessionStore, StoredSession, StoreState, fitting
from discorder.sessions.database import Database

MakeStore = Callable[..., Awaitable[SqliteSessionStore]]
MakeSession = Callable[..., StoredSession]


async def until(predicate: Callable[[], object]) -> None:
    """Let the store's thread work until ``predicate()``, for at most five seconds."""
    async with asyncio.timeout(60):
        while not predicate():  # noqa: ASYNC110  # what is waited for happens in a thread
            await asyncio.sleep(0.002)


def state(store: SqliteSessionStore) -> StoreState:
    return store.health.state


def seqs_in(path: Path) -> list[int]:
    """Return the sequences that another process would read now."""
    with closing(sqlite3.connect(path)) as connection:
        return [seq for (seq,) in connection.execute("SELECT seq FROM session ORDER BY shard_id")]


def failing(*_: object, **__: object) -> None:
    """Raise what SQLite raises when the disk fails."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise error


# ---------------------------------------------------------------- by itself


async def test_what_can_wait_is_written_within_a_second_and_what_cannot_at_once(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """No call is needed for it. A forgotten session is removed at once."""
    store = await make_store()
    store.save(make_session(0, 2, seq=1))
    await clock.advance(1.1)
    await until(lambda: seqs_in(path) == [1])
    store.save(make_session(0, 2, seq=2))
    await clock.advance(1.1)
    await until(lambda: seqs_in(path) == [2])
    store.save(make_session(1, 2, seq=2), now=True)
    await until(lambda: seqs_in(path) == [2, 2])
    store.forget(0, 2)
    await until(lambda: seqs_in(path) == [2])
    assert clock.next_due() is None


async def test_a_save_for_now_takes_with_it_what_was_waiting(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """The timer of the waiting save then has nothing more to write; the next save starts its own."""
    store = await make_store()
    store.save(make_session(0, 2, seq=1))
    store.save(make_session(1, 2, seq=2), now=True)
    await until(lambda: seqs_in(path) == [1, 2])
    assert clock.next_due() is None
    store.save(make_session(0, 2, seq=3))
    await clock.advance(1.1)
    await until(lambda: seqs_in(path) == [3, 2])


async def test_a_save_that_comes_while_another_waits_does_not_put_it_off(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    store = await make_store()
    store.save(make_session(seq=1))
    await clock.advance(0.07)
    store.save(make_session(seq=2))
    await clock.advance(0.04)
    await until(lambda: seqs_in(path) == [2])


async def test_layouts_that_take_turns_between_two_writes_leave_the_last_one(
    make_store: MakeStore, make_session: MakeSession
) -> None:
    store = await make_store()
    for shard_count in (1, 2, 1):
        store.save(make_session(0, shard_count, seq=shard_count))
    assert [one.shard for one in await store.load_all()] == [(0, 1)]


async def test_a_store_that_has_just_been_opened_has_nothing_to_write(make_store: MakeStore, path: Path) -> None:
    """A process that only reads does not wait for another one's write."""
    store = await make_store()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await store.load_all() == []
    assert state(store) is StoreState.OK


# ---------------------------------------------------------------- the end


def threads() -> list[threading.Thread]:
    """Return the threads of stores."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("discorder-store")]


async def test_where_no_store_can_be_no_thread_is_left_of_it(make_store: MakeStore, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UnusableFile):
        await make_store()
    assert threads() == []


@pytest.mark.parametrize("turns", range(4))
async def test_a_close_that_is_cancelled_leaves_nothing_behind(
    make_store: MakeStore, make_session: MakeSession, turns: int
) -> None:
    """No thread, no task, and no connection with a log beside the file, whatever was under way."""
    store = await make_store()
    await store.hold([(0, 1)])
    store.save(make_session(seq=1), now=True)
    closing_down = asyncio.create_task(store.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing_down.cancel()
    await asyncio.gather(closing_down, return_exceptions=True)
    await store.close()
    assert threads() == []
    assert not store.path.with_name(f"{store.path.name}-wal").exists()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    other = await make_store()
    await other.hold([(0, 1)])


@pytest.mark.parametrize("turns", range(4))
async def test_no_task_is_left_of_what_is_saved_while_it_closes(
    make_store: MakeStore, make_session: MakeSession, turns: int
) -> None:
    store = await make_store()
    store.save(make_session(seq=1))
    closing_down = asyncio.create_task(store.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    store.save(make_session(seq=2), now=True)
    await closing_down
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert threads() == []


async def test_a_file_that_is_slow_to_close_does_not_hold_up_the_loop(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await make_store()
    turned = threading.Event()
    waited: list[bool] = []
    real_close = Database.close

    def slow_close(database: Database) -> None:
        waited.append(turned.wait(2.0))
        real_close(database)

    monkeypatch.setattr(Database, "close", slow_close)
    asyncio.get_running_loop().call_later(0.01, turned.set)
    await store.close()
    assert waited[0]


async def test_what_is_saved_after_the_end_is_not_written(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """Another process may hold the shard by now. The session can still be loaded, and this is no failure of the store."""
    store = await make_store()
    store.save(make_session(seq=1))
    await store.close()
    store.save(make_session(seq=2))
    assert clock.next_due() is None
    store.save(make_session(seq=3), now=True)
    await store.flush()
    assert seqs_in(path) == [1]
    assert await store.load_all() == [make_session(seq=3)]
    assert state(store) is StoreState.OK


# ---------------------------------------------------------------- while it cannot


async def test_before_it_is_opened_nothing_is_kept(path: Path, clock: FakeClock) -> None:
    health = SqliteSessionStore(path, bot="b" * 64, clock=clock).health
    assert str(health) == "failing: the session store is not open yet"
    assert not health.durable


async def test_a_store_that_was_never_opened_makes_no_file(path: Path, clock: FakeClock) -> None:
    store = SqliteSessionStore(path, bot="b" * 64, clock=clock)
    await store.flush()
    await store.close()
    assert not path.exists()


async def test_a_run_of_failures_is_announced_once_and_its_end_once(
    make_store: MakeStore, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message).strip()), level="INFO", format="{message}")
    store = await make_store()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("discorder.sessions.database.Database.write_sessions", failing)
            for seq in range(3):
                store.save(make_session(seq=seq))
                await store.flush()
        for seq in range(3):
            store.save(make_session(seq=seq))
            await store.flush()
    logger.remove(sink)
    assert said == ["The session store fails; the session runs on", "The session store works again"] * 2


async def test_a_write_that_fails_in_a_way_that_nobody_expected_is_logged_and_tried_again(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No call waits for the store's own writes, so a failure must not end them silently. Here the text cannot be encoded."""
    with configure_logs(Log(), console=True):
        store = await make_store()
        store.save(replace(make_session(0, 2), resume_url="\ud800"), now=True)
        await until(lambda: state(store) is StoreState.FAILING)
        store.save(make_session(0, 2, seq=2), now=True)
        await clock.advance(2.0)
        await until(lambda: seqs_in(path) == [2] and state(store) is StoreState.OK)
    log = capsys.readouterr().err
    assert "Writing the session store failed unexpectedly" in log
    assert "UnicodeEncodeError" in log


async def test_a_write_that_somebody_cancels_is_made_up_for(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    store = await make_store()
    before = asyncio.all_tasks()
    store.save(make_session(seq=3), now=True)
    (writing,) = asyncio.all_tasks() - before
    writing.cancel()
    await settle_loop()
    assert seqs_in(path) == []
    await clock.advance(2.0)
    await until(lambda: seqs_in(path) == [3])


async def test_who_only_wants_to_hold_shards_asks_nobody_to_leave(make_store: MakeStore) -> None:
    first, second = await make_store(), await make_store()
    await first.hold([(0, 1)])
    with pytest.raises(StoreLocked, match=r"^all shards of this bot: held by"):
        await second.hold([(0, 1)])


async def test_what_could_not_be_written_yet_is_loaded_as_if_it_were(
    make_store: MakeStore, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces the content of the file: newer sessions, forgotten ones, another layout."""
    store = await make_store()
    for shard_id in range(4):
        store.save(make_session(shard_id, 4, seq=1))
    await store.flush()
    monkeypatch.setattr("discorder.sessions.database.Database.write_sessions", failing)
    store.save(make_session(0, 4, seq=2))
    store.forget(1, 4)
    store.save(make_session(2, 8, seq=3))
    stored = [(one.shard, one.seq) for one in await store.load_all()]
    assert stored == [((0, 4), 2), ((3, 4), 1), ((2, 8), 3)]
    assert state(store) is StoreState.FAILING


async def test_a_file_that_cannot_be_read_is_told_and_read_again_later(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then only the sessions saved by this process are known."""
    other = await make_store()
    other.save(make_session(0, 2), now=True)
    await other.flush()
    store = await make_store()
    store.save(make_session(1, 2), now=True)
    await store.flush()
    with monkeypatch.context() as patch:
        patch.setattr("discorder.sessions.database.Database.read_sessions", failing)
        assert await store.load_all() == [make_session(1, 2)]
        assert state(store) is StoreState.FAILING
        assert "disk I/O error" in store.health.reason
    await clock.advance(2.5)
    await until(lambda: state(store) is StoreState.OK)
    assert set(fitting(await store.load_all(), 2, None)) == {0, 1}


async def test_a_ledger_that_cannot_be_changed_is_told_and_changed_again_later(
    make_store: MakeStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store retries after two seconds, or at once on the next request."""
    store = await make_store()
    for waits in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(Database, "change_ledger", failing)
            with pytest.raises(StoreUnavailable, match="disk I/O error"):
                await store.transact(lambda ledger: (ledger, None))
        assert state(store) is StoreState.FAILING
        if waits:
            await clock.advance(2.5)
            await until(lambda: state(store) is StoreState.OK)
        assert await store.transact(lambda ledger: (ledger, "done")) == "done"
        assert state(store) is StoreState.OK


# ---------------------------------------------------------------- the ledger


def debits_in(path: Path) -> list[str]:
    """Return the debits that another process would read now."""
    with closing(sqlite3.connect(path)) as connection:
        return [ticket for (ticket,) in connection.execute("SELECT ticket FROM debit ORDER BY ticket")]


def paid(ticket: str) -> Callable[[Ledger], Ledger]:
    return lambda ledger: ledger.paid(0, ticket, 1.0)


async def test_what_is_recorded_is_written_by_itself(make_store: MakeStore, path: Path) -> None:
    """No call waits for the write. The ledger that this process shows has the change at once."""
    store = await make_store()
    store.record(paid("a"))
    assert list(store.ledger.debits) == ["a"]
    await until(lambda: debits_in(path) == ["a"])


async def test_what_is_recorded_while_the_store_fails_reaches_it_before_the_next_transaction(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes are written in their order, each once, so that no other process spends the same IDENTIFY."""
    store = await make_store()
    made: list[str] = []

    def noted(name: str) -> Callable[[Ledger], Ledger]:
        def change(ledger: Ledger) -> Ledger:
            made.append(name)
            return paid(name)(ledger)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(Database, "change_ledger", failing)
        store.record(noted("a"))
        store.record(noted("b"))
        await store.flush()
        assert state(store) is StoreState.FAILING
        assert sorted(store.ledger.debits) == ["a", "b"]
        assert debits_in(path) == []
    for _ in range(2):
        assert await store.transact(lambda ledger: (ledger, sorted(ledger.debits))) == ["a", "b"]
    assert made == ["a", "b", "a", "b"], "here, and in the store"
    assert debits_in(path) == ["a", "b"]


async def test_what_is_recorded_while_a_transaction_runs_is_not_taken_for_written(
    make_store: MakeStore, path: Path
) -> None:
    """Another request gave up waiting for the store and paid without it while this transaction was written."""
    store = await make_store()
    began, goes_on = threading.Event(), threading.Event()

    def slow(ledger: Ledger) -> tuple[Ledger, None]:
        began.set()
        goes_on.wait(5.0)
        return ledger, None

    writing = asyncio.create_task(store.transact(slow))
    await until(began.is_set)
    store.record(paid("meanwhile"))
    goes_on.set()
    await writing
    assert list(store.ledger.debits) == ["meanwhile"]
    await until(lambda: debits_in(path) == ["meanwhile"])


async def test_each_of_several_transactions_gets_its_own_answer(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its result, or all get the failure. A cancelled one changes nothing and does not affect the others."""
    store = await make_store()
    taking = [store.transact(lambda ledger, n=n: (paid(n)(ledger), n)) for n in "abc"]  # type: ignore[misc]
    assert await asyncio.gather(*taking) == ["a", "b", "c"]
    began, goes_on = threading.Event(), threading.Event()
    holding = asyncio.get_running_loop().run_in_executor(None, began.wait, 5.0)

    def slow(ledger: Ledger) -> tuple[Ledger, None]:
        began.set()
        goes_on.wait(5.0)
        return ledger, None

    first = asyncio.create_task(store.transact(slow))
    await holding
    gone, stays = (asyncio.create_task(store.transact(lambda ledger, n=n: (paid(n)(ledger), n))) for n in "de")  # type: ignore[misc]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    assert await stays == "e"
    await first
    assert debits_in(path) == ["a", "b", "c", "e"]
    monkeypatch.setattr(Database, "change_ledger", failing)
    outcomes = await asyncio.gather(
        *(store.transact(lambda ledger: (ledger, 1)) for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [StoreUnavailable] * 3


async def test_a_file_that_a_ticket_finds_gone_gets_all_sessions_by_itself(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    store = await make_store()
    store.save(make_session(0, 2, seq=5), now=True)
    await store.flush()
    path.rename(path.with_name("gone"))
    await store.transact(lambda ledger: (ledger, None))
    await until(lambda: seqs_in(path) == [5])
    await store.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await store.flush()
    assert state(store) is StoreState.OK, "there was nothing more to write"


async def test_a_store_that_a_ticket_finds_newer_is_given_up_and_left_alone(
    make_store: MakeStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not opened again for every ticket."""
    store = await make_store()
    path.rename(path.with_name("gone"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 0x44534352")
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreUnavailable, match="newer version"):
        await store.transact(lambda ledger: (ledger, None))
    assert state(store) is StoreState.UNUSABLE
    looks: list[object] = []
    monkeypatch.setattr("discorder.sessions.database.Database.open", lambda *_: looks.append(1))
    with pytest.raises(StoreUnavailable, match="newer version"):
        await store.transact(lambda ledger: (ledger, None))
    assert looks == []


async def test_a_store_that_is_given_up_still_knows_what_was_saved(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """It keeps the last session of each shard and none that was forgotten. The file is not tried again."""
    await (await make_store()).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    store = await make_store()
    for shard in ((3, 4), (0, 1), (2, 4), (1, 4), (3, 4)):
        store.save(make_session(*shard))
        assert clock.next_due() is None
    store.forget(3, 4)
    assert [one.shard for one in await store.load_all()] == [(1, 4), (2, 4)]
    assert clock.next_due() is None


async def test_a_store_that_turns_newer_in_use_is_given_up(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """Another process upgraded the file: unwritten data stays known, and the file is not changed."""
    store = await make_store()
    store.save(make_session(seq=1))
    path.rename(path.with_name("gone"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 0x44534352")
        connection.execute("PRAGMA user_version = 2")
    await store.flush()
    assert state(store) is StoreState.UNUSABLE
    assert clock.next_due() is None
    assert await store.load_all() == [make_session(seq=1)]
    await store.flush()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


@pytest.mark.parametrize("durable", [True, False])
async def test_where_no_lock_can_be_made_only_a_store_that_keeps_nothing_runs_on(
    make_store: MakeStore, path: Path, durable: bool
) -> None:
    """Two owners of one shard would overwrite each other's sessions."""
    path.parent.mkdir()
    path.with_name(f"{path.name}.locks").write_text("in the way")
    if not durable:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA application_id = 0x44534352")
            connection.execute("PRAGMA user_version = 2")
    store = await make_store()
    if durable:
        with pytest.raises(UnusableFile, match="cannot lock shards in "):
            await store.hold([(0, 1)])
    else:
        await store.hold([(0, 1)])
