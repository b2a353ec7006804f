"""What `discorder budget` shows of a store that it opens for reading only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.errors import StoreUnavailable
from discorder.sessions import Ledger, StoredSession, read_store
from discorder.sessions.database import Database

MakeSession = Callable[..., StoredSession]
BOT = "b" * 64


@pytest.fixture
def stored(path: Path, make_session: MakeSession) -> StoredSession:
    """Return the session in the store at ``path``."""
    database = Database(path, BOT)
    database.open(datetime(2026, 1, 1, tzinfo=UTC))
    database.write_sessions({(0, 1): make_session()})
    database.close()
    return make_session()


def test_it_reads_what_is_there_and_leaves_it_there(path: Path, stored: StoredSession) -> None:
    before = path.read_bytes()
    reading = read_store(path, BOT)
    assert (reading.sessions, reading.ledger) == ((stored,), Ledger())
    assert read_store(path, "c" * 64).sessions == ()
    assert path.read_bytes() == before


def test_where_none_is_yet_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"there is no session store at .* yet"):
        read_store(tmp_path / "none", BOT)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["PRAGMA user_version = 2"], "newer version"),
        (["PRAGMA application_id = 7"], "another program"),
        (["DROP TABLE debit"], "cannot be read: no such table"),
        (["UPDATE slot SET held_until = 'soon'"], "cannot be read: the identify ledger is damaged"),
    ],
)
def test_what_is_not_a_store_of_ours_is_not_read(
    path: Path, stored: StoredSession, changes: list[str], why: str
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO slot VALUES (?, 0, 0.0, '', 0.0)", (BOT,))
        for change in changes:
            connection.execute(change)
    with pytest.raises(StoreUnavailable, match=why):
        read_store(path, BOT)
    assert not list(path.parent.glob("*corrupt*"))


def test_what_is_damaged_is_not_read(path: Path, stored: StoredSession, spoil_index: Callable[[Path], None]) -> None:
    """A damaged file is not read in part, because it is unknown which part is correct."""
    spoil_index(path)
    with pytest.raises(StoreUnavailable, match="cannot be read: the integrity check says"):
        read_store(path, BOT)
