"""Define the tables of the session store, and convert rows to values and back.

Rows are checked as they are read: a row that no version of this program writes is never trusted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from discorder.sessions.identify_budget import Debit, LookUp, Slot, StartLimit
from discorder.sessions.ledger import Ledger
from discorder.sessions.seal import UNKEYED, Seal, ready_hash
from discorder.sessions.store import Shard, StoredSession, UnreportedLoss, superseded
from discorder.wire import session_label

_LATER_TABLES: Final = (  # which files of earlier versions lack
    """CREATE TABLE IF NOT EXISTS known_id (bot TEXT NOT NULL, label TEXT NOT NULL, ordinal INTEGER NOT NULL,
       PRIMARY KEY (bot, label))""",
    """CREATE TABLE IF NOT EXISTS paused (bot TEXT NOT NULL, shard_id INTEGER NOT NULL, shard_count INTEGER NOT NULL,
       since TEXT NOT NULL, PRIMARY KEY (bot, shard_id, shard_count))""",
)
SCHEMA: Final = (
    """CREATE TABLE session (bot TEXT NOT NULL, shard_id INTEGER NOT NULL, shard_count INTEGER NOT NULL,
       session_id TEXT NOT NULL, resume_url TEXT NOT NULL, seq INTEGER NOT NULL, intents INTEGER NOT NULL, last_ready BLOB,
       updated_at TEXT NOT NULL, token_key TEXT NOT NULL DEFAULT '', untold TEXT NOT NULL DEFAULT '[]',
       ordinal INTEGER NOT NULL DEFAULT 0, ready_seq INTEGER NOT NULL DEFAULT 1, seal TEXT NOT NULL DEFAULT '',
       PRIMARY KEY (bot, shard_id, shard_count))""",
    """CREATE TABLE look_up (bot TEXT PRIMARY KEY, total INTEGER NOT NULL, remaining INTEGER NOT NULL,
       reset_after_ms INTEGER NOT NULL, max_concurrency INTEGER NOT NULL, at REAL NOT NULL, extern INTEGER NOT NULL)""",
    """CREATE TABLE debit (bot TEXT NOT NULL, ticket TEXT NOT NULL, at REAL NOT NULL, sent_at REAL, settled INTEGER NOT NULL,
       PRIMARY KEY (bot, ticket))""",
    """CREATE TABLE slot (bot TEXT NOT NULL, bucket INTEGER NOT NULL, sent_at REAL NOT NULL, holder TEXT NOT NULL,
       held_until REAL NOT NULL, PRIMARY KEY (bot, bucket))""",
    *_LATER_TABLES,
)

_LATER_COLUMNS: Final = {  # with the value for rows of a version that had no such column
    "token_key": "TEXT NOT NULL DEFAULT ''",
    "untold": "TEXT NOT NULL DEFAULT '[]'",
    "ordinal": "INTEGER NOT NULL DEFAULT 0",
    "ready_seq": "INTEGER NOT NULL DEFAULT 1",
    "seal": "TEXT NOT NULL DEFAULT ''",
}
_SIGNED_COLUMNS: Final = (  # and last_ready, by its hash
    "shard_id",
    "shard_count",
    "session_id",
    "resume_url",
    "seq",
    "intents",
    "updated_at",
    "token_key",
    "untold",
    "ordinal",
    "ready_seq",
)
_SESSION_COLUMNS: Final = (*_SIGNED_COLUMNS, "last_ready", "seal")
_SessionRow = tuple[int, int, str, str, int, int, str, str, str, int, int, bytes | None, str]
_decode_untold = msgspec.json.Decoder(tuple[UnreportedLoss, ...]).decode


# newest session ids remembered for each bot, about 100 bytes each; a repeat follows a restart at once
KEPT: Final = 4_096
_NOBODY: Final = "nobody"  # no bot_key: those are hex digits


class Unsound(Exception):
    """The file cannot be trusted: it is not a database, is damaged, or lacks tables."""


def upgrade(connection: sqlite3.Connection, bot: str, seal: Seal) -> None:
    """Add what a file of an earlier version lacks, in one transaction; that version can still read and write the rest.

    Rows without a signature are signed here, once: see `_legacy`.
    """
    connection.execute("BEGIN IMMEDIATE")
    missing = _missing_columns(connection)
    kept = select_sessions(connection, bot, seal) if "seal" in missing else []
    for name in missing:
        connection.execute(f"ALTER TABLE session ADD COLUMN {name} {_LATER_COLUMNS[name]}")
    for statement in _LATER_TABLES:
        connection.execute(statement)
    for session in kept:
        if session.trusted:
            replace_session(connection, bot, session, seal)
    connection.execute(
        "DELETE FROM known_id WHERE bot = ? AND rowid <= (SELECT max(rowid) FROM known_id WHERE bot = ?) - ?",
        (bot, bot, KEPT),
    )
    try_tables(connection)
    connection.execute("COMMIT")


def _missing_columns(connection: sqlite3.Connection) -> list[str]:
    """Return the later columns that a file lacks which no later version has opened for writing."""
    present = {name for _, name, *_ in connection.execute("PRAGMA table_info(session)")}
    return [name for name in _LATER_COLUMNS if name not in present]


def try_tables(connection: sqlite3.Connection) -> None:
    """Write one row into each table, read it back and remove it. Raises Unsound, or SQLite's error, if that fails.

    The text of a schema may be damaged in a way that no check of SQLite finds, and that no reading shows.
    """
    at = datetime.fromtimestamp(0, UTC)
    session = StoredSession(0, 1, "id", "url", 2, b"{}", at, 3, "key", (UnreportedLoss("label", (0, 1), 4, at),), 5)
    look_up = LookUp(StartLimit(1, 2, 3, 4), 5.5, 6)
    ledger = Ledger(look_up, {"ticket": Debit(1.5, 2.5, True)}, {7: Slot(1.5, "holder", 2.5)})
    earlier = Ledger(replace(look_up, at=4.5), {"ticket": Debit(1.5, 2.5, False), "spent": Debit(1.5, None, False)}, {})
    connection.execute("SAVEPOINT trial")
    for one in (session, replace(session, seq=9)):  # the second replaces the first
        replace_session(connection, _NOBODY, one, UNKEYED)
    write_ledger(connection, _NOBODY, Ledger(), earlier)
    write_ledger(connection, _NOBODY, earlier, ledger)
    write_pauses(connection, _NOBODY, {(0, 1): at, (1, 2): at})
    write_pauses(connection, _NOBODY, {(1, 2): None})
    read = (select_sessions(connection, _NOBODY, UNKEYED), select_ledger(connection, _NOBODY))
    ids, pauses = select_ordinals(connection, _NOBODY), select_pauses(connection, _NOBODY)
    connection.execute("ROLLBACK TO trial")
    connection.execute("RELEASE trial")
    if read != ([replace(session, seq=9)], ledger) or (ids, pauses) != ([(session_label("id"), 5)], {(0, 1): at}):
        msg = "its tables do not give back what is written into them"
        raise Unsound(msg)


def move_session(
    connection: sqlite3.Connection, bot: str, session: StoredSession, seal: Seal, ready: str | None
) -> bool:
    """Advance the seq of a row. Returns False when the row was removed, or belongs to another session.

    ``ready`` is what `replace_session` returned for it.
    """
    signature = seal.sign(bot, _signed_values(session), ready)
    cursor = connection.execute(
        """UPDATE session SET seq = ?, updated_at = ?, seal = ?
           WHERE bot = ? AND shard_id = ? AND shard_count = ? AND session_id = ? AND ordinal = ?""",
        (
            session.seq,
            session.updated_at.isoformat(),
            signature,
            bot,
            *session.shard,
            session.session_id,
            session.ordinal,
        ),
    )
    return cursor.rowcount == 1


def replace_session(connection: sqlite3.Connection, bot: str, session: StoredSession, seal: Seal) -> str | None:
    """Write a whole row. Returns the `ready_hash` that it is signed with."""
    layouts = connection.execute("SELECT shard_id, shard_count FROM session WHERE bot = ?", (bot,)).fetchall()
    for shard in superseded(session.shard, layouts):
        delete_session(connection, bot, shard)
    signed, ready = _signed_values(session), ready_hash(session.last_ready)
    connection.execute(
        f"INSERT OR REPLACE INTO session (bot, {', '.join(_SESSION_COLUMNS)}) VALUES (?{', ?' * len(_SESSION_COLUMNS)})",  # noqa: S608  # constant
        (bot, *signed, session.last_ready, seal.sign(bot, signed, ready)),
    )
    connection.execute(
        "INSERT OR REPLACE INTO known_id VALUES (?, ?, ?)",
        (bot, session_label(session.session_id), session.ordinal),
    )
    return ready


def delete_session(connection: sqlite3.Connection, bot: str, shard: Shard) -> None:
    connection.execute(
        "DELETE FROM session WHERE bot = ? AND shard_id = ? AND shard_count = ?",
        (bot, *shard),
    )


def _signed_values(session: StoredSession) -> tuple[object, ...]:
    """Return the values of `_SIGNED_COLUMNS`."""
    return (
        session.shard_id,
        session.shard_count,
        session.session_id,
        session.resume_url,
        session.seq,
        session.intents,
        session.updated_at.isoformat(),
        session.token_key,
        msgspec.json.encode(session.unreported).decode(),
        session.ordinal,
        session.ready_seq,
    )


def select_ordinals(connection: sqlite3.Connection, bot: str) -> list[tuple[str, int]]:
    """Return the session ids that this bot had, each by the label of ordinal 0, with the last ordinal that it got."""
    if not _has_table(connection, "known_id"):
        return []
    rows = connection.execute("SELECT label, ordinal FROM known_id WHERE bot = ?", (bot,))
    return [(label, ordinal) for label, ordinal in rows if isinstance(label, str) and isinstance(ordinal, int)]


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Return False for a table that a file of an earlier version lacks, if the file cannot be written."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None


def write_pauses(connection: sqlite3.Connection, bot: str, changes: Mapping[Shard, datetime | None]) -> None:
    """Write which shards are paused, and since when; None for a shard that is not."""
    for shard, since in changes.items():
        if since is None:
            connection.execute("DELETE FROM paused WHERE bot = ? AND shard_id = ? AND shard_count = ?", (bot, *shard))
        else:
            connection.execute("INSERT OR REPLACE INTO paused VALUES (?, ?, ?, ?)", (bot, *shard, since.isoformat()))


def select_pauses(connection: sqlite3.Connection, bot: str) -> dict[Shard, datetime]:
    """Return this bot's paused shards, and since when. A time that cannot be read is the beginning of 1970: it is paused."""
    if not _has_table(connection, "paused"):
        return {}
    rows = connection.execute("SELECT shard_id, shard_count, since FROM paused WHERE bot = ?", (bot,))
    return {
        (shard_id, shard_count): _aware(since)
        for shard_id, shard_count, since in rows
        if isinstance(shard_id, int) and isinstance(shard_count, int)
    }


def _aware(text: object) -> datetime:
    with suppress(ValueError):
        at = datetime.fromisoformat(str(text))
        if at.tzinfo is not None:
            return at
    return datetime.fromtimestamp(0, UTC)


def select_sessions(connection: sqlite3.Connection, bot: str, seal: Seal | None) -> list[StoredSession]:
    """Return this bot's sessions; without ``seal``, no signature is checked."""
    missing = _missing_columns(connection)
    columns = [_LATER_COLUMNS[name].rpartition(" ")[2] if name in missing else name for name in _SESSION_COLUMNS]
    rows = connection.execute(
        f"SELECT {', '.join(columns)} FROM session WHERE bot = ? ORDER BY shard_count, shard_id",  # noqa: S608  # constant
        (bot,),
    )
    sessions = []
    for row in rows:
        with suppress(ValueError):  # a row that cannot be a session is left out
            session, signature = _session(row)
            if seal is not None and "seal" in missing:
                session = _legacy(session, seal)
            elif seal is not None and not seal.fits(
                signature, bot, row[: len(_SIGNED_COLUMNS)], ready_hash(session.last_ready)
            ):
                session = replace(session, trusted=False)
            sessions.append(session)
    return sessions


def _legacy(session: StoredSession, seal: Seal) -> StoredSession:
    """Trust a row of a file whose version did not sign rows if it names the token, and drop its resume host.

    An attacker would have to know a hash of the token, and gets no connection even then: RESUME goes to the main host. Only a
    file without the column is of such a version: removing a signature does not help.
    """
    return replace(session, resume_url="", trusted=session.token_key == seal.token_key)


def select_ledger(connection: sqlite3.Connection, bot: str) -> Ledger:
    """Return this bot's ledger. Raises Unsound for rows that no version of this program writes."""
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
    except (ValueError, TypeError, OverflowError) as error:
        msg = f"the identify ledger is damaged: {error}"
        raise Unsound(msg) from error
    return Ledger(look_up, debits, slots)


def write_ledger(connection: sqlite3.Connection, bot: str, before: Ledger, after: Ledger) -> None:
    """Write the rows that differ."""
    look_up = after.look_up
    if look_up is not None and look_up != before.look_up:
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
    old, new = before.debits, after.debits
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


def _session(row: tuple[object, ...]) -> tuple[StoredSession, str]:
    """Return the row's session and its signature. Raises ValueError for a row that no version of this program writes."""
    converted: Any = msgspec.convert(row, _SessionRow, builtin_types=(bytes,))
    *signed, last_ready, signature = converted
    shard_id, shard_count, session_id, resume_url, seq, intents, updated_at, token_key, untold, ordinal, ready_seq = (
        signed
    )
    session = StoredSession(
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
        ordinal,
        ready_seq,
    )
    return session, signature
