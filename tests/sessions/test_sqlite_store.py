"""The SQLite store's file: coalesced writes, permissions, and every kind of fault (fault case 25)."""

# ruff: noqa: ASYNC240  # the tests arrange files, nobody else is on the loop

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreLocked, StoreUnavailable, UnusableFile
from discorder.sessions import (
    Ledger,
    MemorySessionStore,
    Seal,
    SessionStore,
    SqliteSessionStore,
    StartLimit,
    StoredSession,
    StoreState,
    UnreportedLoss,
    bot_key,
    default_store_path,
    fitting,
    hold_shards,
    open_store,
    read_store,
)
from discorder.sessions.schema import replace_session

MakeStore = Callable[..., Awaitable[SqliteSessionStore]]
MakeSession = Callable[..., StoredSession]
TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDe.s3cr3t-s3cr3t-s3cr3t-s3cr3t"  # the first part is base64 of 123456789012345678


def state(store: SessionStore) -> StoreState:
    return store.health.state


def seq_in_file(path: Path) -> int | None:
    """Return the sequence that another process would read now."""
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT seq FROM session").fetchone()
    return None if row is None else int(row[0])


async def test_a_debit_is_on_the_disk_when_it_is_granted_and_readers_hold_up_nobody(
    make_store: MakeStore, make_session: MakeSession, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """synchronous=FULL for the ledger: a host that loses power must not pay twice. The file is in WAL mode."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr("discorder.sessions.database.sqlite3.connect", noted)
    store = await make_store()
    store.save(make_session(), now=True)
    await store.flush()
    (synchronous,) = await store.transact(
        lambda ledger: (
            ledger,
            opened[-1].execute("PRAGMA synchronous").fetchone(),
        )  # on the store's thread, in its transaction
    )
    assert synchronous == 2, "FULL"
    with closing(connect(path)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_new_store_is_readable_by_its_owner_only(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    store = await make_store()
    store.save(make_session(), now=True)
    await store.flush()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for file in path.parent.glob("sessions.sqlite3*"):
        assert file.stat().st_mode & 0o077 == 0, file


async def test_an_old_store_that_others_could_read_is_closed_to_them(make_store: MakeStore, path: Path) -> None:
    await (await make_store()).close()
    path.chmod(0o644)
    await make_store()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_the_saves_of_one_moment_are_written_together(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    store = await make_store()
    for seq in range(1, 100):
        store.save(make_session(seq=seq))
    await clock.advance(0.09)
    await asyncio.sleep(0.02)
    assert seq_in_file(path) is None
    await clock.advance(0.02)
    await store.flush()
    assert seq_in_file(path) == 99
    assert clock.next_due() is None


async def test_a_save_for_now_does_not_wait_for_the_second(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    store = await make_store()
    store.save(make_session(seq=3), now=True)
    await store.flush()
    assert seq_in_file(path) == 3


async def test_close_writes_what_is_pending_and_joins_its_thread(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    before = threading.active_count()
    store = await make_store()
    store.save(make_session(seq=5))
    await store.close()
    assert seq_in_file(path) == 5
    assert threading.active_count() == before
    assert not path.with_name("sessions.sqlite3-wal").exists()


async def test_a_restart_finds_sessions_and_book(make_store: MakeStore, make_session: MakeSession) -> None:
    first = await make_store()
    first.save(make_session(seq=5))
    limit = StartLimit(1000, 900, 1000, 1)
    await first.transact(lambda ledger: (ledger.reconciled(limit, at=100.0, now=100.0), None))
    await first.transact(lambda ledger: ledger.take(0, "t", now=101.0, shard_count=1))
    await first.close()
    second = await make_store()
    assert fitting(await second.load_all(), 1, None) == {0: make_session(seq=5)}
    assert list((await second.transact(lambda ledger: (ledger, ledger))).debits) == ["t"]


async def test_bots_share_a_file_and_see_nothing_of_each_other(
    make_store: MakeStore, make_session: MakeSession
) -> None:
    one, two = await make_store(bot="1" * 64), await make_store(bot="2" * 64)
    one.save(make_session(seq=1), now=True)
    await one.transact(lambda ledger: (ledger.sent(0, "t", 1.0), None))
    await one.flush()
    assert await two.load_all() == []
    assert await two.transact(lambda ledger: (ledger, ledger)) == Ledger()
    two.save(make_session(0, 2), now=True)
    await two.flush()
    assert fitting(await one.load_all(), 1, None) == {0: make_session(seq=1)}


async def test_the_token_is_nowhere_in_the_store(tmp_path: Path, make_session: MakeSession, clock: FakeClock) -> None:
    store = await open_store(str(tmp_path / "s.sqlite3"), bot=bot_key(TOKEN), clock=clock)
    store.save(make_session(), now=True)
    await store.hold([(0, 1)])
    await store.flush()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(part.encode() in content for part in TOKEN.split(".")), file
            assert TOKEN.partition(".")[0] not in file.name
    await store.close()


def test_a_bot_is_named_by_the_hash_of_its_id_whatever_its_present_token() -> None:
    renewed = TOKEN.partition(".")[0] + ".other.secret"
    assert bot_key(TOKEN) == bot_key(renewed) == bot_key(f"Bot {TOKEN}")
    assert bot_key(TOKEN) == hashlib.sha256(b"123456789012345678").hexdigest()
    assert len({bot_key(TOKEN), bot_key("not-a-token"), bot_key("another"), bot_key("é.x")}) == 4


# --- damaged, foreign, newer


@pytest.mark.parametrize(
    "damage", ["garbage", "truncated", "scrambled page", "index that differs", "missing table", "bad ledger"]
)
async def test_a_damaged_store_is_set_aside_and_never_trusted(
    make_store: MakeStore, make_session: MakeSession, path: Path, damage: str
) -> None:
    store = await make_store()
    store.save(make_session())
    await store.transact(lambda ledger: (ledger.sent(0, "t", 1.0), None))
    await store.close()
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database, but long enough to have a header" * 100)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2 + 100])
    elif damage == "scrambled page":
        path.write_bytes(content[:4096] + b"\xa5" * 4096 + content[8192:])
    elif damage == "index that differs":
        with closing(sqlite3.connect(path)) as connection:
            (page,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name LIKE '%auto%session%'"
            ).fetchone()
        start, end = (page - 1) * 4096, page * 4096
        path.write_bytes(content[:start] + content[start:end].replace(b"b" * 64, b"c" * 64) + content[end:])
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE slot" if damage == "missing table" else "UPDATE debit SET at = 'soon'")
            connection.commit()
    changed = path.read_bytes()

    second = await make_store()
    assert state(second) is StoreState.SET_ASIDE
    assert await second.load_all() == []
    (aside,) = path.parent.glob("*.corrupt-*Z")
    assert aside.name == "sessions.sqlite3.corrupt-20260101T000000Z"
    assert str(aside) in second.health.reason
    assert aside.read_bytes() == changed
    second.save(make_session(seq=9), now=True)
    await second.flush()
    assert seq_in_file(path) == 9
    assert second.health.durable


async def test_two_damaged_stores_in_a_second_are_both_kept(make_store: MakeStore, path: Path) -> None:
    for _ in range(2):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"garbage" * 1000)
        await (await make_store()).close()
    assert len(list(path.parent.glob("*.corrupt-*[Z2]"))) == 2


async def test_a_row_that_cannot_be_a_session_is_left_out(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    store = await make_store()
    for shard_id in range(4):
        store.save(make_session(shard_id, 4))
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE session SET seq = -1 WHERE shard_id = 0")
        connection.execute("UPDATE session SET seq = 'many' WHERE shard_id = 1")
        connection.execute("UPDATE session SET updated_at = 'yesterday' WHERE shard_id = 2")
        connection.commit()
    assert set(fitting(await (await make_store()).load_all(), 4, None)) == {3}


async def test_damage_found_in_use_is_set_aside_and_the_session_is_stored_again(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """A running store whose file is replaced by garbage begins a new one and writes everything it knows."""
    store = await make_store()
    store.save(make_session(0, 2, seq=5), now=True)
    store.save(make_session(1, 2, seq=6), now=True)
    await store.flush()
    path.rename(path.with_name("gone"))
    path.write_bytes(b"garbage" * 1000)
    store.save(make_session(0, 2, seq=7), now=True)
    await store.flush()
    assert state(store) is StoreState.SET_ASIDE
    assert {key: one.seq for key, one in fitting(await (await make_store()).load_all(), 2, None).items()} == {
        0: 7,
        1: 6,
    }


async def test_sessions_are_stored_again_too_when_the_ledger_is_the_first_to_find_the_file_gone(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    """The ledger's write begins the new file, and the sessions of quiet shards must be written too, in case of a kill.

    A session that was forgotten must not appear again.
    """
    store = await make_store()
    for shard in range(3):
        store.save(make_session(shard, 3, seq=5 + shard), now=True)
    await store.flush()
    store.forget(2, 3)
    await store.flush()
    path.rename(path.with_name("gone"))
    await store.transact(lambda ledger: (ledger, None))
    await store.flush()
    assert {key: one.seq for key, one in fitting(await (await make_store()).load_all(), 3, None).items()} == {
        0: 5,
        1: 6,
    }


async def test_a_new_file_that_cannot_be_written_yet_still_begins_with_everything(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full just when the damaged file has been set aside."""
    store = await make_store()
    store.save(make_session(0, 2, seq=5), now=True)
    store.save(make_session(1, 2, seq=6), now=True)
    await store.flush()
    path.rename(path.with_name("gone"))
    with monkeypatch.context() as full:

        def refuse(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        full.setattr("discorder.sessions.database.replace_session", refuse)
        store.save(make_session(0, 2, seq=7), now=True)
        await store.flush()
        assert state(store) is StoreState.FAILING
    await clock.advance(2.5)
    await store.flush()
    assert {key: one.seq for key, one in fitting(await (await make_store()).load_all(), 2, None).items()} == {
        0: 7,
        1: 6,
    }


async def test_a_store_of_a_newer_version_is_not_touched(
    make_store: MakeStore, make_session: MakeSession, path: Path
) -> None:
    store = await make_store()
    store.save(make_session())
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    content = path.read_bytes()

    newer = await make_store()
    assert state(newer) is StoreState.UNUSABLE
    assert "newer version" in newer.health.reason
    assert fitting(await newer.load_all(), 1, None) == {}
    newer.save(make_session(seq=9), now=True)
    await newer.flush()
    with pytest.raises(StoreUnavailable, match="newer"):
        await newer.transact(lambda ledger: (ledger, None))
    await newer.hold([(0, 1)])
    await newer.close()
    assert path.read_bytes() == content


async def test_the_database_of_another_program_is_an_error_and_not_touched(make_store: MakeStore, path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE precious (x)")
    content = path.read_bytes()
    with pytest.raises(UnusableFile, match="another program"):
        await make_store()
    assert path.read_bytes() == content


# --- not writable


@pytest.mark.parametrize("obstacle", ["a directory", "under a file"])
async def test_where_no_store_can_be_it_is_an_error_that_names_the_path(
    make_store: MakeStore, tmp_path: Path, obstacle: str
) -> None:
    threads = threading.active_count()
    if obstacle == "a directory":
        place = tmp_path / "folder"
        place.mkdir()
    else:
        (tmp_path / "file").write_text("")
        place = tmp_path / "file" / "s.sqlite3"
    with pytest.raises(UnusableFile, match=str(place)) as caught:
        await make_store(at=place)
    assert caught.value.exit_code == 74
    assert threading.active_count() == threads


async def test_while_writing_fails_the_session_runs_on_and_nothing_is_lost_when_it_works_again(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    store = await make_store()
    store.save(make_session(seq=1), now=True)
    await store.flush()
    path.rename(path.with_name("gone"))
    path.mkdir()
    store.save(make_session(seq=2), now=True)
    await store.flush()
    assert state(store) is StoreState.FAILING
    assert str(path) in store.health.reason
    assert fitting(await store.load_all(), 1, None) == {0: make_session(seq=2)}
    with pytest.raises(StoreUnavailable):
        await store.transact(lambda ledger: (ledger, None))
    path.rmdir()
    await clock.advance(2.5)
    await store.flush()
    assert state(store) is StoreState.OK
    assert seq_in_file(path) == 2


class HeldUp:
    """A store whose write of a session waits on the store's thread until it is released, and then may fail."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails
        self._under_way, self._on = threading.Event(), threading.Event()

    def replace_session(self, *arguments: Any) -> None:
        self._under_way.set()
        assert self._on.wait(10.0), "the test has not let it on"
        if self._fails:
            raise sqlite3.OperationalError("disk I/O error")
        replace_session(*arguments)

    async def under_way(self) -> None:
        assert await asyncio.to_thread(self._under_way.wait, 10.0), "nothing is written"

    def let_on(self) -> None:
        self._on.set()


async def test_what_is_saved_during_a_write_that_fails_is_not_overwritten_by_the_older(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile one shard saves its next session, and the session of another ends."""
    store, disk = await make_store(), HeldUp(fails=True)
    with monkeypatch.context() as failing:
        failing.setattr("discorder.sessions.database.replace_session", disk.replace_session)
        store.save(make_session(0, 2, session_id="older"), now=True)
        store.save(make_session(1, 2, session_id="ended"), now=True)
        await disk.under_way()
        store.save(make_session(0, 2, session_id="newer"))
        store.forget(1, 2)
        disk.let_on()
        await store.flush()
        assert state(store) is StoreState.FAILING
    await clock.advance(2.5)
    await store.flush()
    assert await (await make_store()).load_all() == [make_session(0, 2, session_id="newer")]


async def test_the_shards_are_held_until_the_last_write_is_done(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next owner of the shards must find everything that this process knew."""
    store, disk = await make_store(bot="b" * 64), HeldUp(fails=False)
    monkeypatch.setattr("discorder.sessions.database.replace_session", disk.replace_session)
    locks = path.with_name(f"{path.name}.locks")
    await store.hold([(0, 1)])
    store.save(make_session())
    closing = asyncio.create_task(store.close())
    await disk.under_way()
    with pytest.raises(StoreLocked):
        await hold_shards(locks, "b" * 64, [(0, 1)], clock=clock)
    disk.let_on()
    await closing
    (await hold_shards(locks, "b" * 64, [(0, 1)], clock=clock)).release()


async def test_a_store_that_failed_at_start_is_tried_again_without_a_save(
    make_store: MakeStore, make_session: MakeSession, clock: FakeClock, path: Path
) -> None:
    """Another process keeps the file locked while this one starts."""
    first = await make_store()
    first.save(make_session(seq=4))
    await first.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        store = await make_store()
        assert state(store) is StoreState.FAILING
        other.execute("ROLLBACK")
    await clock.advance(2.5)
    await store.flush()
    assert state(store) is StoreState.OK
    assert fitting(await store.load_all(), 1, None) == {0: make_session(seq=4)}


async def test_a_later_seq_does_not_rewrite_ready(make_store: MakeStore, make_session: MakeSession, path: Path) -> None:
    """READY of a large bot has megabytes: when only the sequence moves, the rest of the row is not written."""
    store = await make_store()
    store.save(make_session(seq=1), now=True)
    await store.flush()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE session SET last_ready = x'00'")
        connection.commit()
    store.save(make_session(seq=2), now=True)
    await store.flush()
    assert [one.last_ready for one in await store.load_all()] == [b"\0"]
    store.save(replace(make_session(seq=3), last_ready=b"new"), now=True)
    await store.flush()
    assert fitting(await store.load_all(), 1, None)[0].last_ready == b"new"


async def test_what_was_told_meanwhile_is_not_told_again_by_the_next_process(
    make_store: MakeStore, make_session: MakeSession
) -> None:
    """The row has changed in more than its sequence, so it is written whole."""
    store, session = await make_store(), make_session(seq=0)
    store.save(
        replace(session, unreported=(UnreportedLoss("0123456789abcdef", (0, 1), 4, session.updated_at),)), now=True
    )
    await store.flush()
    store.save(replace(session, seq=9), now=True)
    await store.flush()
    assert await (await make_store()).load_all() == [replace(session, seq=9)]


async def test_what_was_rolled_back_is_not_taken_for_written(
    make_store: MakeStore, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at another shard of the same transaction, so the row is unchanged and must be written again."""
    store, session = await make_store(), make_session(0, 2, seq=0)
    store.save(
        replace(session, unreported=(UnreportedLoss("0123456789abcdef", (0, 1), 4, session.updated_at),)), now=True
    )
    await store.flush()
    with monkeypatch.context() as full:

        def refuse(connection: sqlite3.Connection, bot: str, session: StoredSession, seal: Seal) -> str | None:
            if session.shard_id == 1:
                raise sqlite3.OperationalError("database or disk is full")
            return replace_session(connection, bot, session, seal)

        full.setattr("discorder.sessions.database.replace_session", refuse)
        store.save(replace(session, seq=7))
        store.save(make_session(1, 2), now=True)
        await store.flush()
        assert state(store) is StoreState.FAILING
    store.save(replace(session, seq=8), now=True)
    await store.flush()
    assert fitting(await (await make_store()).load_all(), 2, None)[0] == replace(session, seq=8)


async def test_a_row_that_somebody_removed_is_written_anew(make_store: MakeStore, make_session: MakeSession) -> None:
    one, two = await make_store(), await make_store()
    one.save(make_session(seq=1), now=True)
    await one.flush()
    two.forget(0, 1)
    await two.flush()
    one.save(make_session(seq=2), now=True)
    assert fitting(await one.load_all(), 1, None) == {0: make_session(seq=2)}


# --- pauses


async def test_a_pause_is_found_by_the_next_process_of_this_bot_only(make_store: MakeStore, clock: FakeClock) -> None:
    store = await make_store()
    store.pause(0, 1, clock.now())
    await store.close()
    assert await (await make_store()).load_pauses() == {(0, 1): clock.now()}
    assert await (await make_store(bot="c" * 64)).load_pauses() == {}


async def test_a_pause_that_could_not_be_written_is_written_later(
    make_store: MakeStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised, the pause holds in this process, and a later one of the same shard wins."""
    store, since = await make_store(), clock.now()
    with monkeypatch.context() as full:

        def refuse(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        full.setattr("discorder.sessions.database.write_pauses", refuse)
        store.pause(0, 1, since)
        await store.flush()
        assert state(store) is StoreState.FAILING
        assert await store.load_pauses() == {(0, 1): since}
        store.pause(1, 2, since)
    await clock.advance(2.5)
    await store.flush()
    assert state(store) is StoreState.OK
    assert await (await make_store()).load_pauses() == {(0, 1): since, (1, 2): since}


async def test_a_store_that_was_removed_and_begun_anew_gets_the_pauses_back(
    make_store: MakeStore, clock: FakeClock, path: Path
) -> None:
    store = await make_store()
    store.pause(0, 1, clock.now())
    await store.flush()
    path.unlink()
    store.pause(1, 2, clock.now())
    await store.flush()
    assert await (await make_store()).load_pauses() == {(0, 1): clock.now(), (1, 2): clock.now()}


async def test_a_pause_with_a_time_that_cannot_be_read_is_a_pause(make_store: MakeStore, path: Path) -> None:
    """Dialling a shard that an operator has paused would be worse than a wrong time."""
    await (await make_store()).close()
    with closing(sqlite3.connect(path)) as connection:
        rows = [("b" * 64, 0, 2, "yesterday"), ("b" * 64, 1, 2, "2026-01-01T00:00:00"), ("b" * 64, "x", 2, "")]
        connection.executemany("INSERT INTO paused VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    assert (await (await make_store()).load_pauses()).keys() == {(0, 2), (1, 2)}


async def test_the_pauses_of_a_file_that_cannot_be_written_are_loaded(
    make_store: MakeStore, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a file without the table."""
    store = await make_store()
    store.pause(0, 1, clock.now())
    await store.close()
    with monkeypatch.context() as read_only:
        read_only.setattr("discorder.sessions.database.os.access", lambda _, mode: mode != os.W_OK)
        late = await make_store()
        assert state(late) is StoreState.FAILING
        assert await late.load_pauses() == {(0, 1): clock.now()}
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE paused")
        assert await (await make_store()).load_pauses() == {}


# --- from the configuration


async def test_a_file_of_an_earlier_version_is_read_and_goes_on_being_read_by_it(
    make_store: MakeStore, make_session: MakeSession, path: Path, clock: FakeClock
) -> None:
    """Missing columns are added, and the earlier version can still write. Only rows of this version are signed."""
    store = await make_store()
    store.save(make_session(), now=True)
    await store.close()
    connection = sqlite3.connect(path)
    for column in ("token_key", "untold", "ordinal", "seal"):
        connection.execute(f"ALTER TABLE session DROP COLUMN {column}")
    connection.execute("DROP TABLE known_id")
    connection.execute("DROP TABLE paused")
    connection.commit()
    connection.close()
    assert read_store(path, "b" * 64).sessions == (make_session(),)
    later = await make_store()
    assert await later.load_all() == [replace(make_session(), resume_url="")]
    later.pause(0, 1, clock.now())
    assert await later.load_pauses() == {(0, 1): clock.now()}
    told_apart = replace(
        make_session(seq=9), token_key="0123456789abcdef", unreported=(UnreportedLoss("s-0", (0, 1), 7, clock.now()),)
    )
    later.save(told_apart, now=True)
    await later.flush()
    assert await later.load_all() == [told_apart]
    await later.close()
    connection = sqlite3.connect(path)
    columns = "bot, shard_id, shard_count, session_id, resume_url, seq, intents, last_ready, updated_at"
    connection.execute(f"CREATE TEMP TABLE copy AS SELECT {columns} FROM session")  # noqa: S608  # constant
    connection.execute(f"INSERT OR REPLACE INTO session ({columns}) SELECT {columns} FROM copy")  # noqa: S608  # constant
    connection.commit()
    connection.close()
    assert await (await make_store()).load_all() == [replace(make_session(seq=9), trusted=False)]


async def test_an_empty_setting_keeps_sessions_in_memory(clock: FakeClock) -> None:
    store = await open_store("", bot=bot_key(TOKEN), clock=clock)
    assert isinstance(store, MemorySessionStore)
    assert state(store) is StoreState.MEMORY
    assert not store.health.durable


async def test_auto_keeps_a_file_per_application_in_the_users_state_directory(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = await open_store("auto", bot=bot_key(TOKEN), clock=clock)
    assert isinstance(store, SqliteSessionStore)
    assert store.path == default_store_path(bot_key(TOKEN))
    assert tmp_path in store.path.parents
    assert store.path.exists()
    await store.close()


async def test_auto_without_a_usable_place_runs_in_memory_and_says_why(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    store = await open_store("auto", bot=bot_key(TOKEN), clock=clock)
    assert state(store) is StoreState.MEMORY
    assert str(tmp_path) in store.health.reason


async def test_a_path_without_a_usable_place_is_an_error(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableFile):
        await open_store(str(tmp_path / "file" / "s"), bot=bot_key(TOKEN), clock=clock)
