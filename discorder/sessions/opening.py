"""From the configuration's ``[session] store`` to an open store. Must not: hold shards or load sessions."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_state_path

from discorder.clock import Clock
from discorder.errors import UnusableFile
from discorder.logs import logger
from discorder.sessions.sqlite import SqliteSessionStore
from discorder.sessions.store import MemorySessionStore, SessionStore


def default_store_path(bot: str) -> Path:
    """Where "auto" keeps the sessions of the bot with this `bot_key`: in the user's state directory, a file per application."""
    return user_state_path("discorder", appauthor=False) / f"{bot[:16]}.sqlite3"


def store_path(setting: str, bot: str) -> Path | None:
    """The file that ``[session] store`` means for the bot with this `bot_key`; None for "", which is memory."""
    if not setting:
        return None
    return default_store_path(bot) if setting == "auto" else Path(setting)


async def open_store(setting: str, *, bot: str, clock: Clock) -> SessionStore:
    """The store that ``[session] store`` asks for, open: a path, "auto", or "" for memory.

    Raises UnusableFile for a path at which there can be no store. Where "auto" finds no usable place, which nobody chose,
    sessions are kept in memory, and the log and the store's health say why.
    """
    path = store_path(setting, bot)
    if path is None:
        memory = MemorySessionStore()
        logger.info("Running without a session store", reason=memory.health.reason)
        return memory
    store = SqliteSessionStore(path, bot=bot, clock=clock)
    try:
        await store.open()
    except UnusableFile as error:
        if setting != "auto":
            raise
        logger.warning("Running without a session store", error=str(error))
        return MemorySessionStore(f"{error}; sessions are kept in memory only")
    logger.info("Opened the session store", path=str(store.path), health=str(store.health))
    return store
