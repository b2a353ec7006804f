"""Is this file a sound store of ours? Looked at through a connection that cannot write.

Everything here blocks. Must not: change a file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from discorder.errors import UnusableFile
from discorder.sessions.rows import Unsound

APPLICATION_ID: Final = 0x44534352  # "DSCR", in the header of every store: tells ours from another program's file
VERSION: Final = 1
READ_BUSY_MS: Final = 1_000


class NewerStore(Exception):
    """The file was written by a newer version; it was not touched."""


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Without a write-ahead log it needs no file beside the store either."""
    log = path.with_name(f"{path.name}-wal")
    writable_place = os.access(path.parent, os.W_OK)
    immutable = not writable_place and not (log.exists() and log.stat().st_size)
    uri = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if immutable else ''}"
    return sqlite3.connect(uri, uri=True, timeout=READ_BUSY_MS / 1000, isolation_level=None)


def examine(path: Path) -> None:
    """Whose is it, and of which version? Raises Unsound, NewerStore, and UnusableFile for another program's file."""
    with damage_is_unsound(), closing(connect_read_only(path)) as connection:
        application, version = header(connection)
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == APPLICATION_ID and version > VERSION:
        msg = f"{path} was written by a newer version (format {version}, this one knows {VERSION}); it is not touched"
        raise NewerStore(msg)
    if application != APPLICATION_ID and (application or tables):
        msg = f"{path} is an SQLite file of another program; choose another [session] store"
        raise UnusableFile(msg)


@contextmanager
def damage_is_unsound() -> Iterator[None]:
    """What SQLite reports of a damaged file, and of one that never was a database, becomes Unsound."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise Unsound(str(error)) from error
        raise


def check_integrity(connection: sqlite3.Connection) -> None:
    """Raises Unsound. The file is small: the whole check takes milliseconds."""
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        msg = f"the integrity check says: {verdict}"
        raise Unsound(msg)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error that SQLite did not raise."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def header(connection: sqlite3.Connection) -> tuple[int, int]:
    """(application id, version) out of the file's header."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return application, version
