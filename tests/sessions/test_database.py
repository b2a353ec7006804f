"""The database file: which file is open, which of its content is used, and that no connection is leaked."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.errors import UnusableFile
from discorder.sessions import Ledger, StartLimit, StoredSession
from discorder.sessions.database import Database
from discorder.sessions.locks import mutex
from discorder.sessions.schema import SCHEMA, Unsound, replace_session, select_ledger, write_ledger

MakeSession = Callable[..., StoredSession]
Spoil = Callable[[Path], None]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOT = "b" * 64


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An open database."""
    made = Database(path, BOT)
    made.open(NOW)
    yield made
    made.close()


def failing(code: int, message: str) -> Callable[..., None]:
    """Return a function that raises the SQLite error with this result code."""

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError(message)
        error.sqlite_errorcode = code
        raise error

    return fail


def is_open(path: Path) -> bool:
    """Return whether this process has the file at ``path`` open."""
    wanted = path.stat()
    for descriptor in Path("/dev/fd").iterdir():
        try:
            found = os.fstat(int(descriptor.name))
        except OSError:  # the descriptor of the listing itself
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def swap_in(other: Path, path: Path) -> None:
    """Put the file ``other`` in the place of the store, as when restoring a backup."""
    path.rename(path.with_name("gone"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(other, path)


def test_a_file_that_was_replaced_is_let_go_when_the_new_one_is_opened(database: Database, path: Path) -> None:
    current = [database.is_current]
    path.rename(path.with_name("gone"))
    current.append(database.is_current)
    assert is_open(path.with_name("gone"))
    database.open(NOW)
    current.append(database.is_current)
    assert current == [True, False, True]
    assert not is_open(path.with_name("gone"))


def test_nothing_is_current_once_it_is_closed(database: Database) -> None:
    database.close()
    assert not database.is_current
    with pytest.raises(sqlite3.OperationalError, match="not open"):
        database.write_sessions({})


def test_what_an_open_file_holds_can_be_read_after_it_was_removed(
    database: Database, make_session: MakeSession, path: Path
) -> None:
    database.write_sessions({(0, 1): make_session()})
    path.unlink()
    assert database.read_sessions() == [make_session()]


def test_a_file_that_could_not_be_opened_is_read_and_not_trusted_unchecked(
    database: Database, make_session: MakeSession, path: Path, spoil_index: Spoil
) -> None:
    """A read-only file, for example: its content is still used, unless it is damaged."""
    database.write_sessions({(0, 1): make_session()})
    database.close()
    reader = Database(path, BOT)
    assert reader.read_sessions() == [make_session()]
    spoil_index(path)
    with pytest.raises(Unsound):
        reader.read_sessions()


def test_a_damaged_file_is_set_aside_and_let_go(
    database: Database, make_session: MakeSession, path: Path, spoil_index: Spoil
) -> None:
    database.write_sessions({(0, 1): make_session()})
    database.close()
    spoil_index(path)
    aside = database.open(NOW)
    assert aside is not None
    assert not is_open(aside)
    assert database.read_sessions() == []


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE session",
        "ALTER TABLE session DROP COLUMN seq",
        "DROP TABLE debit",
        "CREATE TABLE keyless AS SELECT * FROM look_up; DROP TABLE look_up; ALTER TABLE keyless RENAME TO look_up",
    ],
)
def test_a_file_without_what_it_must_have_is_set_aside(database: Database, path: Path, change: str) -> None:
    database.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(change)
    assert database.open(NOW) is not None
    assert database.read_sessions() == []


@pytest.mark.parametrize("step", ["examine", "select_ledger"])
def test_a_file_that_cannot_be_read_just_now_is_neither_opened_nor_set_aside(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Its content was not checked, and it may be readable a moment later."""
    database.close()
    busy = failing(sqlite3.SQLITE_BUSY, "database is locked")

    def busy_once(*_: object) -> None:
        monkeypatch.undo()
        busy()

    monkeypatch.setattr(f"discorder.sessions.database.{step}", busy_once)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database.open(NOW)
    assert not database.is_current
    assert not list(path.parent.glob("*corrupt*"))
    assert database.open(NOW) is None


def test_the_log_of_a_damaged_file_goes_aside_with_it(path: Path) -> None:
    """The log belongs to that file, and must not be applied to the new one."""
    path.parent.mkdir()
    log = path.with_name(f"{path.name}-wal")
    for file in (path, log):
        file.write_bytes(file.name.encode() * 1000)
    database = Database(path, BOT)
    aside = database.open(NOW)
    database.close()
    assert aside is not None
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == log.name.encode() * 1000
    assert not log.exists()


def kill_in_the_middle(path: Path, *before: str) -> None:
    """Leave a partial file and a journal at ``path``, as a process that is killed during a commit does."""
    at_work = path.with_name("at-work")
    with closing(sqlite3.connect(at_work, isolation_level=None)) as connection:
        for statement in (*before, "PRAGMA cache_size = 1", "BEGIN", "CREATE TABLE half (made)"):
            connection.execute(statement)
        connection.execute("INSERT INTO half VALUES (zeroblob(100000))")
        for suffix in ("", "-journal"):
            shutil.copy(at_work.with_name(at_work.name + suffix), path.with_name(path.name + suffix))


def test_a_store_that_was_left_half_made_is_made_anew(path: Path) -> None:
    """Rolling back the journal needs write access. A kill must not make the store unusable forever."""
    path.parent.mkdir()
    kill_in_the_middle(path)
    database = Database(path, BOT)
    assert database.open(NOW) is None
    assert database.read_sessions() == []
    database.close()


def test_a_damaged_file_with_a_journal_is_set_aside_too(path: Path) -> None:
    path.parent.mkdir()
    for suffix in ("", "-journal"):
        path.with_name(path.name + suffix).write_bytes(b"garbage" * 1000)
    database = Database(path, BOT)
    assert database.open(NOW) is not None
    database.close()


def test_another_program_that_was_killed_gets_no_tables_of_ours(path: Path) -> None:
    path.parent.mkdir()
    kill_in_the_middle(path, "CREATE TABLE precious (x)")
    with pytest.raises(UnusableFile, match="another program"):
        Database(path, BOT).open(NOW)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]


OUT_OF_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO]


@pytest.mark.parametrize("number", [*OUT_OF_SPACE, errno.EACCES, errno.EROFS])
def test_a_lack_that_may_pass_is_no_reason_to_give_up(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Retry when there is no space, no descriptor, or a failing disk. Give up where the file can never be created."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    database = Database(path, BOT)
    path.parent.mkdir()
    monkeypatch.setattr("discorder.sessions.database.os.open", refuse)
    with pytest.raises(OSError if number in OUT_OF_SPACE else UnusableFile, match=os.strerror(number)):
        database.open(NOW)


@pytest.mark.parametrize("readable", [True, False])
def test_a_file_that_may_only_be_read_is_no_reason_to_give_up(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """The file cannot be opened for writing, but can be read. A file that cannot be read either is of no use."""
    database.close()
    monkeypatch.setattr("discorder.sessions.database.os.access", lambda _, mode: readable and mode == os.R_OK)
    with pytest.raises(PermissionError if readable else UnusableFile, match="read-only"):
        database.open(NOW)
    assert not is_open(path)


def test_a_file_that_is_gone_while_it_is_opened_is_no_reason_to_give_up(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file can be created in its place."""
    database.close()
    cannot_open = failing(sqlite3.SQLITE_CANTOPEN, "unable to open database file")

    def gone(*_: object) -> None:
        path.unlink()
        cannot_open()

    monkeypatch.setattr("discorder.sessions.database.examine", gone)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        database.open(NOW)


def test_folders_are_made_for_it(path: Path) -> None:
    """Create all missing folders, readable for their owner only."""
    database = Database(path.parent / "far" / "away" / path.name, BOT)
    database.open(NOW)
    database.close()
    assert database.path.exists()
    assert database.path.parent.stat().st_mode & 0o777 == 0o700


def test_who_opens_waits_for_others_that_do(path: Path) -> None:
    """Two processes that find the same damaged file must not both set it aside."""
    database = Database(path, BOT)
    database.lock_directory.mkdir(parents=True)
    opened = threading.Event()

    def open_it() -> None:
        database.open(NOW)
        opened.set()
        database.close()

    opening = threading.Thread(target=open_it)
    with mutex(database.lock_directory, blocking=True):
        opening.start()
        assert not opened.wait(0.05)
        assert not path.exists()
    opening.join(5.0)
    assert opened.is_set()


def test_whoever_comes_first_makes_the_place_where_others_wait(database: Database) -> None:
    assert (database.lock_directory / "mutex").exists()
    assert database.lock_directory.stat().st_mode & 0o777 == 0o700


# ---------------------------------------------------------------- transactions


def test_damage_that_is_found_in_use_is_told_and_the_file_let_go(
    database: Database, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next `open` sets the file aside."""
    damaged = failing(sqlite3.SQLITE_CORRUPT_INDEX, "database disk image is malformed")
    with monkeypatch.context() as patch:
        patch.setattr("discorder.sessions.database.replace_session", damaged)
        with pytest.raises(Unsound, match="malformed"):
            database.write_sessions({(0, 1): make_session()})
    assert not database.is_current


def test_a_change_of_the_book_waits_longer_and_for_the_disk_if_it_must(
    database: Database, make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debit must survive a power loss and may wait five seconds for the lock; a sequence is written again anyway."""
    seen: list[tuple[int, int]] = []

    def noted(work: Callable[..., object]) -> Callable[..., object]:
        def note(connection: sqlite3.Connection, *rest: object) -> object:
            pragmas = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "busy_timeout"))
            seen.append((next(pragmas), next(pragmas)))
            return work(connection, *rest)

        return note

    monkeypatch.setattr("discorder.sessions.database.select_ledger", noted(select_ledger))
    monkeypatch.setattr("discorder.sessions.database.replace_session", noted(replace_session))
    database.write_sessions({(0, 1): make_session()})
    for durable in (True, False):
        database.change_ledger(lambda ledger: ledger, durable=durable)
    full, normal = 2, 1
    assert seen == [(normal, 1_000), (full, 5_000), (normal, 5_000)]


# ---------------------------------------------------------------- rows


def test_what_is_removed_is_gone_from_the_file(database: Database, make_session: MakeSession, path: Path) -> None:
    database.write_sessions({(0, 2): make_session(0, 2), (1, 2): make_session(1, 2)})
    database.write_sessions({(0, 2): None})
    assert [one.shard for one in database.read_sessions()] == [(1, 2)]


WRONG = {
    "session_id": "x'00'",
    "resume_url": "x'00'",
    "seq": "'many'",
    "intents": "1.5",
    "last_ready": "'text'",
    "updated_at": "x'00'",
    "token_key": "x'00'",
    "untold": "x'00'",
}


@pytest.mark.parametrize(("column", "value"), [*WRONG.items(), ("untold", "'[{}]'"), ("updated_at", "'2026-01-01'")])
def test_a_row_of_the_wrong_kind_is_left_out(
    database: Database, make_session: MakeSession, path: Path, column: str, value: str
) -> None:
    """The other rows are still used."""
    database.write_sessions({(0, 2): make_session(0, 2), (1, 2): make_session(1, 2)})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE session SET {column} = {value} WHERE shard_id = 0")  # noqa: S608  # constants
        connection.commit()
    assert [one.shard for one in database.read_sessions()] == [(1, 2)]


def test_of_a_book_only_what_has_changed_is_written() -> None:
    """Each debit waits for the disk, so it must not rewrite all the others."""
    limit = StartLimit(1000, 900, 3_600_000, 16)
    books = [Ledger().reconciled(limit, at=100.0, now=100.0)]
    for bucket in range(3):
        after, _ = books[-1].take(bucket, f"t-{bucket}", now=100.0, shard_count=1)
        books.append(after)
    written: list[int] = []
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        for before, after in itertools.pairwise([Ledger(), *books, books[-1]]):
            changes = connection.total_changes
            write_ledger(connection, BOT, before, after)
            written.append(connection.total_changes - changes)
        assert select_ledger(connection, BOT) == books[-1]
    assert written == [1, 2, 2, 2, 0], "the look-up, then a debit and its bucket each time"


def test_what_was_removed_can_be_written_again(database: Database, make_session: MakeSession) -> None:
    """The whole row is written, even if nothing but its sequence has changed."""
    database.write_sessions({(0, 1): make_session(seq=1)})
    database.write_sessions({(0, 1): None})
    database.write_sessions({(0, 1): make_session(seq=2)})
    assert database.read_sessions() == [make_session(seq=2)]


def test_a_sequence_is_never_given_to_the_session_of_somebody_else(
    database: Database, make_session: MakeSession
) -> None:
    """Another process without a lock has replaced the row. A mixture of both sessions could not be resumed."""
    other = Database(database.path, BOT)
    other.open(NOW)
    database.write_sessions({(0, 1): make_session(seq=1)})
    other.write_sessions({(0, 1): make_session(seq=900, session_id="s-2")})
    database.write_sessions({(0, 1): make_session(seq=2)})
    assert database.read_sessions() == [make_session(seq=2)]
    other.close()


def test_into_a_file_that_was_put_there_a_session_is_written_whole(
    database: Database, make_session: MakeSession, path: Path
) -> None:
    """The row of a backup may be outdated in more than its sequence."""
    session = make_session(seq=1)
    database.write_sessions({(0, 1): replace(session, intents=1)})
    database.close()
    backup = Path(shutil.copy(path, path.with_name("backup")))
    database.open(NOW)
    database.write_sessions({(0, 1): session})
    swap_in(backup, path)
    database.open(NOW)
    database.write_sessions({(0, 1): replace(session, seq=2)})
    assert database.read_sessions() == [replace(session, seq=2)]


@pytest.mark.parametrize("closed", [False, True], ids=["after kill -9", "after a stop"])
def test_a_file_is_read_where_the_disk_has_no_room_for_another(
    database: Database, path: Path, make_session: MakeSession, closed: bool
) -> None:
    """SQLite wants shared memory beside the file, which is not there: what is stored is still resumed."""
    stored = make_session(0)
    database.write_sessions({stored.shard: stored})
    copy = path.with_name("copy.sqlite3")
    if closed:
        database.close()
    shutil.copy(path, copy)
    if not closed:
        shutil.copy(path.with_name(path.name + "-wal"), copy.with_name(copy.name + "-wal"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    other = Database(copy, BOT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(sqlite3.OperationalError):
            other.open(NOW)
        assert [session.session_id for session in other.read_sessions()] == [stored.session_id]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    other.open(NOW)
    assert [session.session_id for session in other.read_sessions()] == [stored.session_id]
    other.close()
