"""Check whether a file is an undamaged store of this program, through a connection that cannot write. Everything here blocks."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from discorder.errors import UnusableFile
from discorder.sessions.schema import Unsound

APPLICATION_ID: Final = (
    0x44534352  # "DSCR", in the header of every store: distinguishes ours from another program's file
)
VERSION: Final = 1
READ_BUSY_MS: Final = 1_000

BESIDE: Final = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a file
_AROUND_THE_FILE: Final = frozenset(  # primary result codes: another process, the disk, rights, memory
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


ROOT: Final = 0  # user id


class NewerStore(Exception):
    """The file was written by a newer version; it was not touched."""


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Connect without the right to write. Without a write-ahead log this needs no file beside the store either."""
    log = path.with_name(f"{path.name}-wal")
    writable_place = os.access(path.parent, os.W_OK)
    immutable = not writable_place and not (log.exists() and log.stat().st_size)
    uri = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if immutable else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=READ_BUSY_MS / 1000, isolation_level=None)
    connection.text_factory = readable
    return connection


def connect_alone(path: Path) -> sqlite3.Connection:
    """Connect as the only process. SQLite needs no shared memory beside the file then, for which a full disk has no room."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=READ_BUSY_MS / 1000, isolation_level=None
    )
    connection.text_factory = readable
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    except BaseException:
        connection.close()
        raise
    return connection


def lacks_room(error: sqlite3.Error) -> bool:
    """Return whether SQLite could not make or extend a file."""
    return primary_code(error) in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def readable(text: bytes) -> str:
    """Decode any text of a file. In a damaged file it may not be UTF-8; then its signature does not fit."""
    return text.decode(errors="replace")


def examine(path: Path) -> None:
    """Check whose file it is, and of which version. Raises Unsound, NewerStore, and UnusableFile for another program's file."""
    with damage_is_unsound(opening=True), closing(connect_read_only(path)) as connection:
        application, version = header(connection)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION_ID and version > VERSION:
        msg = f"{path} was written by a newer version (format {version}, this one knows {VERSION}); it is not touched"
        raise NewerStore(msg)
    if application != APPLICATION_ID and (application or tables):
        msg = f"{path} is an SQLite file of another program; choose another [session] store"
        raise UnusableFile(msg)


def check_owner(path: Path) -> None:
    """Raise UnusableFile for a store, or a journal beside it, of another user, or one that every user may write.

    A missing file is no fault, nor is a file of root, who can write any. A group may write: platforms that run containers give
    folders and their files to a group.
    """
    for name in (path.name, *(path.name + suffix for suffix in BESIDE)):
        try:
            found = path.with_name(name).stat()
        except FileNotFoundError:
            continue
        if found.st_uid not in {os.geteuid(), ROOT}:
            fault = f"belongs to user {found.st_uid}, and this process runs as user {os.geteuid()}"
            remedy = "run as that user, chown the file, or choose another [session] store"
        elif found.st_mode & stat.S_IWOTH:
            fault = f"can be written by every user (mode {stat.S_IMODE(found.st_mode):04o})"
            remedy = "make sure that it is yours and chmod it to 600, or remove it"
        else:
            continue
        msg = f"the session store {path.with_name(name)} {fault}: what it says cannot be trusted; {remedy}"
        raise UnusableFile(msg)


@contextmanager
def damage_is_unsound(*, opening: bool = False) -> Iterator[None]:
    """Raise Unsound for every error that a damaged file causes. Errors of the disk or of other processes are raised as they are.

    One flipped bit may show as any error: a missing table, text that is not UTF-8, a number in place of a name. In use, after
    ``opening``, an error that SQLite did not raise is no sign of damage.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = primary_code(error)
        if code in _AROUND_THE_FILE or not (code or opening):
            raise
        raise Unsound(str(error)) from error
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # ValueError: UnicodeDecodeError too
        if not opening:
            raise
        raise Unsound(str(error) or type(error).__name__) from error


def check_integrity(connection: sqlite3.Connection) -> None:
    """Check the whole file, which takes milliseconds because it is small. Raises Unsound."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        msg = f"the integrity check says: {verdict}"
        raise Unsound(msg)


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error that SQLite did not raise."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def header(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return (application id, version) from the file's header."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version
