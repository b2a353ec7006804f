"""A look at what a store holds, for `discorder budget`: nothing is locked, written, set aside or waited for.

Everything here blocks.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from discorder.errors import StoreUnavailable, UnusableFile
from discorder.sessions.book import Book
from discorder.sessions.rows import Unsound, select_book, select_sessions
from discorder.sessions.soundness import NewerStore, check_integrity, connect_read_only, damage_is_unsound, examine
from discorder.sessions.store import StoredSession


@dataclass(frozen=True, slots=True)
class Reading:
    """One bot's part of a store at one moment."""

    sessions: tuple[StoredSession, ...]
    book: Book


def read_store(path: Path, bot: str) -> Reading:
    """Raises StoreUnavailable, with a sentence, for a store that is not there, not ours, damaged or of a newer version."""
    if not path.is_file():
        msg = f"there is no session store at {path} yet"
        raise StoreUnavailable(msg)
    try:
        examine(path)
        with damage_is_unsound(), closing(connect_read_only(path)) as connection:
            check_integrity(connection)
            return Reading(tuple(select_sessions(connection, bot)), select_book(connection, bot))
    except (NewerStore, UnusableFile) as error:
        raise StoreUnavailable(str(error)) from error
    except (Unsound, sqlite3.Error, OSError) as error:
        msg = f"the session store {path} cannot be read: {error}"
        raise StoreUnavailable(msg) from error
