"""The tables of the session store, and rows to values and back.

Rows are checked as they are read: what no version of this program writes is never trusted. Must not: open, begin or commit
(database.py does).
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from datetime import datetime
from typing import Final

import msgspec

from discorder.sessions.book import Book, Slot
from discorder.sessions.ledger import Debit, Ledger, LookUp, StartLimit
from discorder.sessions.store import Shard, StoredSession, Untold, superseded

SCHEMA: Final = (
    """CREATE TABLE session (bot TEXT NOT NULL, shard_id INTEGER NOT NULL, shard_count INTEGER NOT NULL,
       session_id TEXT NOT NULL, resume_url TEXT NOT NULL, seq INTEGER NOT NULL, intents INTEGER NOT NULL, last_ready BLOB,
       updated_at TEXT NOT NULL, token_key TEXT NOT NULL DEFAULT '', untold TEXT NOT NULL DEFAULT '[]',
       PRIMARY KEY (bot, shard_id, shard_count))""",
    """CREATE TABLE look_up (bot TEXT PRIMARY KEY, total INTEGER NOT NULL, remaining INTEGER NOT NULL,
       reset_after_ms INTEGER NOT NULL, max_concurrency INTEGER NOT NULL, at REAL NOT NULL, extern INTEGER NOT NULL)""",
    """CREATE TABLE debit (bot TEXT NOT NULL, ticket TEXT NOT NULL, at REAL NOT NULL, sent_at REAL, settled INTEGER NOT NULL,
       PRIMARY KEY (bot, ticket))""",
    """CREATE TABLE slot (bot TEXT NOT NULL, bucket INTEGER NOT NULL, sent_at REAL NOT NULL, holder TEXT NOT NULL,
       held_until REAL NOT NULL, PRIMARY KEY (bot, bucket))""",
)

_LATER_COLUMNS: Final = {"token_key": "''", "untold": "'[]'"}  # and what they are in a row of a version that had none

_SESSION_COLUMNS: Final = (
    "shard_id",
    "shard_count",
    "session_id",
    "resume_url",
    "seq",
    "intents",
    "last_ready",
    "updated_at",
    "token_key",
    "untold",
)
_SessionRow = tuple[int, int, str, str, int, int, bytes | None, str, str, str]
_decode_untold = msgspec.json.Decoder(tuple[Untold, ...]).decode


class Unsound(Exception):
    """The file cannot be trusted: not a database, damaged, or without the tables that it must have."""


def add_columns(connection: sqlite3.Connection) -> None:
    """For a file of an earlier version, which goes on reading and writing the table without those columns."""
    for name in _missing_columns(connection):
        connection.execute(f"ALTER TABLE session ADD COLUMN {name} TEXT NOT NULL DEFAULT {_LATER_COLUMNS[name]}")


def _missing_columns(connection: sqlite3.Connection) -> list[str]:
    """None, but in a file that an earlier version made and no later one has opened for writing."""
    present = {name for _, name, *_ in connection.execute("PRAGMA table_info(session)")}
    return [name for name in _LATER_COLUMNS if name not in present]


def move_session(connection: sqlite3.Connection, bot: str, session: StoredSession) -> bool:
    """Advance the seq of a row that is there; False when somebody removed it, or put another session in its place."""
    cursor = connection.execute(
        "UPDATE session SET seq = ?, updated_at = ? WHERE bot = ? AND shard_id = ? AND shard_count = ? AND session_id = ?",
        (session.seq, session.updated_at.isoformat(), bot, *session.shard, session.session_id),
    )
    return cursor.rowcount == 1


def replace_session(connection: sqlite3.Connection, bot: str, session: StoredSession) -> None:
    layouts = connection.execute("SELECT shard_id, shard_count FROM session WHERE bot = ?", (bot,)).fetchall()
    for shard in superseded(session.shard, layouts):
        delete_session(connection, bot, shard)
    connection.execute(
        f"INSERT OR REPLACE INTO session (bot, {', '.join(_SESSION_COLUMNS)}) VALUES (?{', ?' * len(_SESSION_COLUMNS)})",  # noqa: S608  # constant
        (
            bot,
            session.shard_id,
            session.shard_count,
            session.session_id,
            session.resume_url,
            session.seq,
            session.intents,
            session.last_ready,
            session.updated_at.isoformat(),
            session.token_key,
            msgspec.json.encode(session.untold).decode(),
        ),
    )


def delete_session(connection: sqlite3.Connection, bot: str, shard: Shard) -> None:
    connection.execute(
        "DELETE FROM session WHERE bot = ? AND shard_id = ? AND shard_count = ?",
        (bot, *shard),
    )


def select_sessions(connection: sqlite3.Connection, bot: str) -> list[StoredSession]:
    missing = _missing_columns(connection)
    columns = [_LATER_COLUMNS[name] if name in missing else name for name in _SESSION_COLUMNS]
    rows = connection.execute(
        f"SELECT {', '.join(columns)} FROM session WHERE bot = ? ORDER BY shard_count, shard_id",  # noqa: S608  # constant
        (bot,),
    )
    sessions = []
    for row in rows:
        with suppress(ValueError):  # it is not worth a RESUME
            sessions.append(_session(row))
    return sessions


def select_book(connection: sqlite3.Connection, bot: str) -> Book:
    """Raises Unsound for rows that no version of this program writes."""
    owner = (bot,)
    look_up_row = connection.execute(
        "SELECT total, remaining, reset_after_ms, max_concurrency, at, extern FROM look_up WHERE bot = ?", owner
    ).fetchone()
    debit_rows = connection.execute("SELECT ticket, at, sent_at, settled FROM debit WHERE bot = ?", owner)
    slot_rows = connection.execute("SELECT bucket, sent_at, holder, held_until FROM slot WHERE bot = ?", owner)
    try:
        look_up = None
        if look_up_row is not None:
            *counts, at, foreign = look_up_row
            look_up = LookUp(StartLimit(*map(int, counts)), float(at), int(foreign))
        debits = {
            str(ticket): Debit(float(at), None if sent_at is None else float(sent_at), bool(settled))
            for ticket, at, sent_at, settled in debit_rows
        }
        slots = {
            int(bucket): Slot(float(sent_at), str(holder), float(until)) for bucket, sent_at, holder, until in slot_rows
        }
    except (ValueError, TypeError) as error:
        msg = f"the identify ledger is damaged: {error}"
        raise Unsound(msg) from error
    return Book(Ledger(look_up, debits), slots)


def write_book(connection: sqlite3.Connection, bot: str, before: Book, after: Book) -> None:
    """Write what differs."""
    look_up = after.ledger.look_up
    if look_up is not None and look_up != before.ledger.look_up:
        limit = look_up.limit
        connection.execute(
            "INSERT OR REPLACE INTO look_up VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                bot,
                limit.total,
                limit.remaining,
                limit.reset_after_ms,
                limit.max_concurrency,
                look_up.at,
                look_up.foreign,
            ),
        )
    old, new = before.ledger.debits, after.ledger.debits
    connection.executemany(
        "DELETE FROM debit WHERE bot = ? AND ticket = ?",
        [(bot, ticket) for ticket in old if ticket not in new],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO debit VALUES (?, ?, ?, ?, ?)",
        [
            (bot, ticket, debit.at, debit.sent_at, debit.settled)
            for ticket, debit in new.items()
            if old.get(ticket) != debit
        ],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO slot VALUES (?, ?, ?, ?, ?)",
        [
            (bot, bucket, slot.sent_at, slot.holder, slot.held_until)
            for bucket, slot in after.slots.items()
            if before.slots.get(bucket) != slot
        ],
    )


def _session(row: tuple[object, ...]) -> StoredSession:
    """Raises ValueError for a row that no version of this program writes."""
    values = msgspec.convert(row, _SessionRow, builtin_types=(bytes,))
    shard_id, shard_count, session_id, resume_url, seq, intents, last_ready, updated_at, token_key, untold = values
    return StoredSession(
        shard_id,
        shard_count,
        session_id,
        resume_url,
        seq,
        last_ready,
        datetime.fromisoformat(updated_at),
        intents,
        token_key,
        _decode_untold(untold),
    )
