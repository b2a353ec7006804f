"""Open the SQLite file of `SqliteSessionStore`, and run its transactions. Everything here blocks, on the store's own thread.

A file that another program or a newer version made is never written.
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
from typing import Final, NamedTuple

from discorder.errors import UnusableFile
from discorder.sessions.integrity import (
    APPLICATION_ID,
    BESIDE,
    VERSION,
    check_integrity,
    check_owner,
    connect_alone,
    connect_read_only,
    damage_is_unsound,
    examine,
    header,
    lacks_room,
    readable,
)
from discorder.sessions.ledger import Ledger
from discorder.sessions.locks import lock_directory, mutex
from discorder.sessions.schema import (
    SCHEMA,
    Unsound,
    delete_session,
    move_session,
    replace_session,
    select_ledger,
    select_ordinals,
    select_pauses,
    select_sessions,
    upgrade,
    write_ledger,
    write_pauses,
)
from discorder.sessions.seal import UNKEYED, Seal
from discorder.sessions.store import Shard, StoredSession

BUSY_MS: Final = 1_000  # for a write that will be tried again anyway
LEDGER_BUSY_MS: Final = 5_000  # for a debit, which is worth waiting for


class _Written(NamedTuple):
    """A row as this connection wrote it; ``ready`` is its `ready_hash`."""

    session: StoredSession
    ready: str | None


class Database:
    """One bot's part of one file. Not thread-safe: it belongs to the thread that calls `open`."""

    def __init__(self, path: Path, bot: str, seal: Seal = UNKEYED) -> None:
        self.path = path
        self._seal = seal
        self.lock_directory = lock_directory(path)
        self._bot = bot
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None  # of the file that is open
        self._written: dict[Shard, _Written] = {}

    def open(self, now: datetime) -> Path | None:
        """Open the file, or create it. A damaged file is set aside, and its new path is returned.

        Raises NewerStore, UnusableFile (there is none and none can be made, or it is another program's), and what is worth a
        retry: sqlite3.Error, OSError and Unsound (read-only, disk full, locked, a new file that is damaged too). Nothing is open
        then.
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
        """Close the file; the last connection folds the write-ahead log into it. Idempotent."""
        self._written.clear()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    @property
    def is_current(self) -> bool:
        """Whether a file is open, and the path still leads to it: it was not removed or replaced."""
        return self._connection is not None and self._identity == _identity(self.path)

    def read_sessions(self) -> list[StoredSession]:
        """Return this bot's sessions, without rows that cannot be one. Also reads a file that cannot be written."""
        with self._reading() as connection:
            return select_sessions(connection, self._bot, self._seal)

    def read_ordinals(self) -> list[tuple[str, int]]:
        """See `select_ordinals`. Also reads a file that cannot be written."""
        with self._reading() as connection:
            return select_ordinals(connection, self._bot)

    def read_pauses(self) -> dict[Shard, datetime]:
        """Return this bot's paused shards, and since when. Also reads a file that cannot be written."""
        with self._reading() as connection:
            return select_pauses(connection, self._bot)

    def write_pauses(self, changes: Mapping[Shard, datetime | None]) -> None:
        """Write in one transaction which shards are paused (since when) or not (None). On return the disk has it."""
        with self._closing_damage(), self._transaction(busy_ms=BUSY_MS, durable=True) as connection:
            write_pauses(connection, self._bot, changes)

    def write_sessions(self, changes: Mapping[Shard, StoredSession | None]) -> None:
        """Write or, for None, remove sessions in one transaction. READY's bytes are written only when they changed."""
        with self._closing_damage(), self._transaction(busy_ms=BUSY_MS) as connection:
            written = {
                shard: _Written(session, self._write(connection, session))
                for shard, session in changes.items()
                if session is not None
            }
            for shard in changes.keys() - written.keys():
                delete_session(connection, self._bot, shard)
        self._written.update(written)

    def change_ledger(self, change: Callable[[Ledger], Ledger], *, durable: bool) -> Ledger:
        """Apply ``change`` to the ledger, and return it; ``durable``: with synchronous=FULL it is on the disk on return."""
        with self._closing_damage(), self._transaction(busy_ms=LEDGER_BUSY_MS, durable=durable) as connection:
            before = select_ledger(connection, self._bot)
            after = change(before)
            write_ledger(connection, self._bot, before, after)
        return after

    # --- opening ------------------------------------------------------------------------------------------------------

    def _alone(self) -> AbstractContextManager[object]:
        """Take the start-up mutex, so that two processes cannot both set the file aside; go without where none can be created."""
        stack = ExitStack()
        with suppress(OSError):  # a read-only folder: nothing can be renamed or created in it either
            self.lock_directory.mkdir(mode=0o700, exist_ok=True)
            stack.enter_context(mutex(self.lock_directory, blocking=True))
        return stack

    def _connect(self) -> None:
        check_owner(self.path)
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
            self.path.chmod(0o600)  # session ids and READY are secret
        connection = sqlite3.connect(self.path, timeout=BUSY_MS / 1000, isolation_level=None)
        connection.text_factory = readable
        try:
            with damage_is_unsound(opening=True):
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._identity = _identity(self.path)

    def _examine(self) -> None:
        """See `examine`. A process that was killed while it created the file left a journal, which takes a writing connection."""
        try:
            examine(self.path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            with (
                damage_is_unsound(opening=True),
                closing(sqlite3.connect(self.path, timeout=BUSY_MS / 1000)) as connection,
            ):
                header(connection)
            examine(self.path)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables in a new file; check an old one completely."""
        if header(connection)[0] == 0:
            connection.execute("BEGIN IMMEDIATE")
            for statement in (*SCHEMA, f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {VERSION}"):
                connection.execute(statement)
            connection.execute("COMMIT")
        check_integrity(connection)
        select_sessions(connection, self._bot, self._seal)
        select_ledger(connection, self._bot)
        select_pauses(connection, self._bot)
        upgrade(connection, self._bot, self._seal)
        connection.execute("PRAGMA journal_mode = WAL")

    def _set_aside(self, now: datetime) -> Path:
        """Rename the file and its log."""
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{number}")
        self.path.rename(aside)
        for suffix in BESIDE:
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
        return aside

    def _is_out_of_place(self, error: sqlite3.Error | OSError) -> bool:
        """Whether no store can exist here at all: the disk is not just full, and no store can be read."""
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

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._closing_damage(), ExitStack() as stack:
            connection = self._connection
            if connection is None:
                stack.enter_context(damage_is_unsound(opening=True))
                check_owner(self.path)
                connection = stack.enter_context(closing(self._connect_to_read()))
            yield connection

    def _connect_to_read(self) -> sqlite3.Connection:
        """Return a connection to a file that cannot be opened for writing now: it is read-only, or the disk is full."""
        try:
            return _checked(connect_read_only(self.path))
        except sqlite3.Error as error:
            if not lacks_room(error) or not self.path.is_file():
                raise
            return _checked(connect_alone(self.path))

    # --- transactions ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _closing_damage(self) -> Iterator[None]:
        """Close a file that is found damaged in use: the next `open` sets it aside."""
        try:
            with damage_is_unsound():
                yield
        except Unsound:
            self.close()
            raise

    @contextmanager
    def _transaction(self, *, busy_ms: int, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a transaction. BEGIN IMMEDIATE excludes other processes from the first read on."""
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

    def _write(self, connection: sqlite3.Connection, session: StoredSession) -> str | None:
        """Write a row, or only its seq if nothing else has changed since this connection wrote it. Returns its `ready_hash`."""
        bot, seal, last = self._bot, self._seal, self._written.get(session.shard)
        moved_only = last is not None and session == replace(
            last.session, seq=session.seq, updated_at=session.updated_at
        )
        if last is not None and moved_only and move_session(connection, bot, session, seal, last.ready):
            return last.ready
        return replace_session(connection, bot, session, seal)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode; None for a missing file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _checked(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return ``connection``, whose file is whole. Otherwise close it, and raise the errors of `check_integrity`."""
    try:
        check_integrity(connection)
    except BaseException:
        connection.close()
        raise
    return connection
