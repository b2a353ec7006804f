"""Find the store that the configuration's ``[session] store`` names; open it, or only read it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from platformdirs import user_state_path

from discorder.clock import Clock
from discorder.errors import StoreUnavailable, UnusableFile
from discorder.logs import logger
from discorder.paths import resolve_path
from discorder.sessions.integrity import NewerStore, check_integrity, connect_read_only, damage_is_unsound, examine
from discorder.sessions.ledger import Ledger
from discorder.sessions.memory import MemorySessionStore
from discorder.sessions.schema import Unsound, select_ledger, select_pauses, select_sessions
from discorder.sessions.seal import UNKEYED, Seal
from discorder.sessions.sqlite import SqliteSessionStore
from discorder.sessions.store import SessionStore, Shard, StoredSession


def default_store_path(bot: str) -> Path:
    """Return where "auto" keeps the sessions of the bot with this `bot_key`: a file per bot in the `state_folder`.

    Raises UnusableFile where there is none.
    """
    return state_folder() / f"{bot[:16]}.sqlite3"


def state_folder() -> Path:
    """Return the folder of Discorder in the user's state directory.

    Raises UnusableFile where there is none: no HOME, no entry of the user in the system's list, no XDG_STATE_HOME.
    """
    try:
        folder = user_state_path("discorder", appauthor=False)
    except (OSError, RuntimeError, KeyError, ValueError):
        folder = Path()
    if not folder.is_absolute():  # a "~" that could not be expanded
        msg = "there is no home directory to keep sessions in; set HOME or XDG_STATE_HOME, or [session] store to a path"
        raise UnusableFile(msg)
    return folder


def store_path(setting: str, bot: str) -> Path | None:
    """Return the file that ``[session] store`` means for the bot with this `bot_key`; None for "", which is memory.

    Raises UnusableFile for a path that needs a home directory where there is none.
    """
    if not setting:
        return None
    if setting == "auto":
        return default_store_path(bot)
    try:
        return resolve_path(setting)
    except ValueError as error:
        msg = f"session.store = {setting!r}: {error}"
        raise UnusableFile(msg) from error


async def open_store(setting: str, *, bot: str, clock: Clock, seal: Seal = UNKEYED) -> SessionStore:
    """Open the store that ``[session] store`` asks for: a path, "auto", or "" for memory. ``seal`` signs its rows.

    Raises UnusableFile for a path where no store can be. If "auto" finds no usable place, sessions are kept in memory, and the
    log and the store's health say why.
    """
    if not setting:
        memory = MemorySessionStore()
        logger.info("Running without a session store", reason=memory.health.reason)
        return memory
    try:
        path = store_path(setting, bot)
        assert path is not None  # noqa: S101  # only of ""
        store = SqliteSessionStore(path, bot=bot, clock=clock, seal=seal)
        await store.open()
    except UnusableFile as error:
        if setting != "auto":
            raise
        logger.warning("Running without a session store", error=str(error))
        return MemorySessionStore(f"{error}; sessions are kept in memory only")
    return store


@dataclass(frozen=True, slots=True)
class Reading:
    """What a store holds of one bot at one moment. ``pauses``: the shards that an operator paused, and since when."""

    sessions: tuple[StoredSession, ...]
    ledger: Ledger
    pauses: Mapping[Shard, datetime] = field(default_factory=dict)


def read_store(path: Path, bot: str) -> Reading:
    """Read a store that another process may use: nothing is locked, written, set aside or waited for. Blocks.

    Raises StoreUnavailable, with a sentence, for a store that is not there, not ours, damaged or of a newer version.
    """
    if not path.is_file():
        msg = f"there is no session store at {path} yet"
        raise StoreUnavailable(msg)
    try:
        examine(path)
        with damage_is_unsound(opening=True), closing(connect_read_only(path)) as connection:
            check_integrity(connection)
            return Reading(
                tuple(select_sessions(connection, bot, None)),
                select_ledger(connection, bot),
                select_pauses(connection, bot),
            )
    except (NewerStore, UnusableFile) as error:
        raise StoreUnavailable(str(error)) from error
    except (Unsound, sqlite3.Error, OSError) as error:
        msg = f"the session store {path} cannot be read: {error}"
        raise StoreUnavailable(msg) from error
