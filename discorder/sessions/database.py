"""The SQLite file behind `SqliteSessionStore`: opening it soundly, and its transactions.

Everything here blocks and runs on the store's own thread. Must not: be called from the event loop, decide what a failure
means for the session (sqlite.py does), or write to a file that another program or a newer version made.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from discorder.errors import UnusableFile
from discorder.sessions.book import Book
from discorder.sessions.locks import mutex
from discorder.sessions.rows import (
    SCHEMA,
    Unsound,
    add_columns,
    delete_session,
    move_session,
    replace_session,
    select_book,
    select_sessions,
    write_book,
)
from discorder.sessions.soundness import (
    APPLICATION_ID,
    VERSION,
    check_integrity,
    connect_read_only,
    damage_is_unsound,
    examine,
    header,
    primary_code,
)
from discorder.sessions.store import Shard, StoredSession, T

BUSY_MS: Final = 1_000  # for a write that will be tried again anyway
LEDGER_BUSY_MS: Final = 5_000  # for a debit, which is worth waiting for


class Database:
    """One bot's part of one file. Not thread-safe: it belongs to the thread that calls `open`."""

    def __init__(self, path: Path, bot: str) -> None:
        self.path = path
        self.lock_directory = path.with_name(f"{path.name}.locks")
        self._bot = bot
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None  # of the file that is open
        self._written: dict[Shard, StoredSession] = {}

    def open(self, now: datetime) -> Path | None:
        """Open the file, or make it. A file that is not sound is set aside, and its new path is returned.

        Raises NewerStore, UnusableFile (there is none and none can be made, or it is another program's), sqlite3.Error, OSError
        and Unsound (read-only, disk full, locked, a new file that is damaged too: worth another try). Nothing is open then.
        """
        self.close()
        aside = None
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                try:
                    self._connect()
                except Unsound:
                    aside = self._set_aside(now)
                    self._connect()
        except (sqlite3.Error, OSError) as error:
            if self._is_out_of_place(error):
                msg = f"the session store {self.path} cannot be opened or made: {error}; choose another [session] store"
                raise UnusableFile(msg) from error
            raise
        return aside

    def close(self) -> None:
        """Let go of the file; the last connection folds the write-ahead log into it. Idempotent."""
        self._written.clear()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    @property
    def is_current(self) -> bool:
        """Open, and the path still leads to the file that is open (nobody removed or replaced it)."""
        return self._connection is not None and self._identity == _identity(self.path)

    def read_sessions(self) -> list[StoredSession]:
        """This bot's sessions; a row that cannot be a session is left out. Also reads a file that cannot be written."""
        with self._closing_damage():
            if self._connection is not None:
                return select_sessions(self._connection, self._bot)
            with closing(connect_read_only(self.path)) as connection:
                check_integrity(connection)
                return select_sessions(connection, self._bot)

    def write_sessions(self, changes: Mapping[Shard, StoredSession | None]) -> None:
        """Write or, for None, remove sessions in one transaction. READY's bytes are written only when they changed."""
        with self._closing_damage(), self._transaction(busy_ms=BUSY_MS) as connection:
            for shard, session in changes.items():
                if session is None:
                    delete_session(connection, self._bot, shard)
                elif not (self._moved_only(session) and move_session(connection, self._bot, session)):
                    replace_session(connection, self._bot, session)
        self._written.update((shard, session) for shard, session in changes.items() if session is not None)

    def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool) -> T:
        """Apply ``change`` to the book; ``durable``: committed with synchronous=FULL, so it has reached the disk on return."""
        with self._closing_damage(), self._transaction(busy_ms=LEDGER_BUSY_MS, durable=durable) as connection:
            before = select_book(connection, self._bot)
            after, result = change(before)
            write_book(connection, self._bot, before, after)
        return result

    # --- opening ------------------------------------------------------------------------------------------------------

    def _alone(self) -> AbstractContextManager[object]:
        """The start-up mutex, so that two starters cannot set the same file aside twice; without it where none can be made."""
        stack = ExitStack()
        with suppress(OSError):  # a read-only place: nothing will be renamed or created there either
            self.lock_directory.mkdir(mode=0o700, exist_ok=True)
            stack.enter_context(mutex(self.lock_directory, blocking=True))
        return stack

    def _connect(self) -> None:
        if self.path.exists() and not self.path.is_file():
            msg = f"the session store {self.path} is not a file; choose another [session] store"
            raise UnusableFile(msg)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        else:
            self._examine()
        if not os.access(self.path, os.W_OK):
            raise PermissionError(errno.EACCES, "the session store is read-only", str(self.path))
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o600)  # session ids and READY are nobody else's business
        connection = sqlite3.connect(self.path, timeout=BUSY_MS / 1000, isolation_level=None)
        try:
            with damage_is_unsound():
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = _identity(self.path)

    def _examine(self) -> None:
        """See `examine`. Who was killed as it made the file has left a journal: only a connection that may write undoes that."""
        try:
            examine(self.path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            with damage_is_unsound(), closing(sqlite3.connect(self.path, timeout=BUSY_MS / 1000)) as connection:
                header(connection)
            examine(self.path)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables in a new file, check an old one from end to end."""
        if header(connection)[0] == 0:
            connection.execute("BEGIN IMMEDIATE")
            for statement in (*SCHEMA, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION}"):
                connection.execute(statement)
            connection.execute("COMMIT")
        check_integrity(connection)
        try:
            select_sessions(connection, self._bot)
            select_book(connection, self._bot)
        except sqlite3.OperationalError as error:
            if primary_code(error) == sqlite3.SQLITE_ERROR:  # no such table or column
                raise Unsound(str(error)) from error
            raise
        add_columns(connection)
        connection.execute("PRAGMA journal_mode = WAL")

    def _set_aside(self, now: datetime) -> Path:
        """Rename the file, and with it the log that belongs to it."""
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{number}")
        self.path.rename(aside)
        for suffix in ("-wal", "-shm", "-journal"):
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        return aside

    def _is_out_of_place(self, error: sqlite3.Error | OSError) -> bool:
        """Can there be no store here at all? A full disk, or a store that can still be read, is another matter."""
        if isinstance(error, OSError) and error.errno in {
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EMFILE,
            errno.ENFILE,
            errno.EIO,
        }:
            return False
        if self.path.is_file():
            return not os.access(self.path, os.R_OK)
        return isinstance(error, OSError)

    # --- transactions ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _closing_damage(self) -> Iterator[None]:
        """A file found damaged in use is let go: the next `open` sets it aside."""
        try:
            with damage_is_unsound():
                yield
        except Unsound:
            self.close()
            raise

    @contextmanager
    def _transaction(self, *, busy_ms: int, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing, and alone: BEGIN IMMEDIATE keeps other processes out from the first reading on."""
        connection = self._connection
        if connection is None:
            msg = "the session store is not open"
            raise sqlite3.OperationalError(msg)
        connection.execute(f"PRAGMA busy_timeout = {busy_ms}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself; the first error is the one to report
                connection.execute("ROLLBACK")
            raise

    def _moved_only(self, session: StoredSession) -> bool:
        """Is it the session that this connection wrote last, with nothing but a later seq?"""
        last = self._written.get(session.shard)
        return last is not None and replace(last, seq=session.seq, updated_at=session.updated_at) == session


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None when nothing is there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
