"""`SqliteSessionStore`: sessions and the identify book in an SQLite file, written by a thread of its own.

What goes wrong, and what follows (architecture.md, exit code 74; fault case 25):

=============================================  ======================================================================
at start: no store there and none can be made  `open` raises UnusableFile (exit code 74)
at start: another program's SQLite file        the same: nothing of it is touched
damaged file, at any time                      set aside as ``<name>.corrupt-<time>``, a new one begun; state SET_ASIDE
written by a newer version                     not touched; runs without; state UNUSABLE
read-only, disk full, locked, removed          runs on and tries again every 2 s; state FAILING; what a read-only file
                                               holds is still loaded
=============================================  ======================================================================

A run of failures is announced once, and its end. Must not: block the loop, or speak SQL (database.py does).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from discorder.clock import Clock, Timer
from discorder.errors import StoreUnavailable, UnusableFile
from discorder.logs import logger
from discorder.sessions.book import Book
from discorder.sessions.database import Database
from discorder.sessions.locks import ShardLocks, hold_shards
from discorder.sessions.rows import Unsound
from discorder.sessions.soundness import NewerStore
from discorder.sessions.store import (
    Health,
    Shard,
    StoredSession,
    StoreState,
    T,
    fitting,
    layout_order,
    superseded,
)

WRITE_EVERY: Final = 1.0  # seconds; what a crash may cost is replayed by Discord, so a second more is no loss
RETRY_EVERY: Final = 2.0  # seconds between two tries while writing fails

_FAILURES = (sqlite3.Error, OSError, UnusableFile, Unsound)


class SqliteSessionStore:
    """Sessions of one bot (`bot_key`) in the file ``path``, which other bots and other processes may share."""

    def __init__(self, path: Path, *, bot: str, clock: Clock) -> None:
        self.path = path.absolute()
        self._bot = bot
        self._clock = clock
        self._database = Database(self.path, bot)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="discorder-store")
        self._health = Health(StoreState.FAILING, "the session store is not open yet")
        self._sound = Health(StoreState.OK)  # what to return to after a run of failures
        self._failing = False
        self._latest: dict[Shard, StoredSession] = {}  # all that was saved, to begin a new file with
        self._pending: dict[Shard, StoredSession | None] = {}
        self._begun_anew = False  # a file was opened in which what this process has saved may be missing
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: Timer | None = None
        self._locks: list[ShardLocks] = []
        self._closed = False

    @property
    def health(self) -> Health:
        return self._health

    async def open(self) -> None:
        try:
            await self._on_thread(self._reopen)
        except UnusableFile:
            self._closed = True
            self._thread.shutdown()
            raise
        except _FAILURES as error:
            self._note_failure(error)
        except NewerStore as error:
            self._give_up(error)
        else:
            self._begun_anew = False  # nothing was saved yet
            self._note_success()

    async def hold(self, shards: Iterable[Shard], *, take_over: bool = False, patience: float = 0.0) -> None:
        directory = self._database.lock_directory
        try:
            locks = await hold_shards(
                directory, self._bot, shards, clock=self._clock, take_over=take_over, patience=patience
            )
        except OSError as error:
            if self._health.durable:
                msg = f"cannot lock shards in {directory}: {error}; choose another [session] store"
                raise UnusableFile(msg) from error
            logger.warning("Running without a lock on the shards", directory=str(directory), error=str(error))
        else:
            self._locks.append(locks)

    async def load(self, shard_count: int, *, intents: int | None = None) -> dict[int, StoredSession]:
        return fitting(await self.load_all(), shard_count, intents)

    async def load_all(self) -> list[StoredSession]:
        await self.flush()
        if self._health.state is StoreState.UNUSABLE:
            return sorted(self._latest.values(), key=layout_order)
        async with self._writing:  # what a try is about to write is neither in the file nor pending
            try:
                stored = await self._on_thread(self._database.read_sessions)
            except _FAILURES as error:
                self._note_failure(error)
                return sorted(self._latest.values(), key=layout_order)
            kept = {session.shard: session for session in stored}
            for shard, session in self._pending.items():  # what a failing disk has not taken yet
                kept.pop(shard, None)
                if session is not None:
                    for old in superseded(shard, kept):
                        del kept[old]
                    kept[shard] = session
            return sorted(kept.values(), key=layout_order)

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        for shard in superseded(session.shard, self._latest):
            del self._latest[shard]
            self._pending.pop(shard, None)
        self._latest[session.shard] = session
        self._pending[session.shard] = session
        self._write_in(0.0 if now else WRITE_EVERY)

    def forget(self, shard_id: int, shard_count: int) -> None:
        self._latest.pop((shard_id, shard_count), None)
        self._pending[shard_id, shard_count] = None
        self._write_in(0.0)

    async def flush(self) -> None:
        async with self._writing:
            if self._is_owed_anything and not self._closed and self._health.state is not StoreState.UNUSABLE:
                await self._write_pending()

    @property
    def _is_owed_anything(self) -> bool:
        return bool(self._pending) or self._failing or self._begun_anew

    async def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool = True) -> T:
        if self._closed:
            msg = "the session store is closed"
            raise StoreUnavailable(msg)
        if self._health.state is StoreState.UNUSABLE:
            raise StoreUnavailable(self._health.reason)

        def on_thread() -> T:
            if not self._database.is_current:
                self._reopen()
            return self._database.transact(change, durable=durable)

        try:
            result = await self._on_thread(on_thread)
        except _FAILURES as error:
            self._note_failure(error)
            raise StoreUnavailable(self._health.reason) from error
        except NewerStore as error:
            self._give_up(error)
            raise StoreUnavailable(self._health.reason) from error
        self._note_success()
        if self._begun_anew:
            self._write_in(0.0)
        return result

    async def close(self) -> None:
        if self._closed:
            return
        try:
            await self.flush()
            await self._on_thread(self._database.close)
        finally:
            self._closed = True
            self._stop_timer()
            self._thread.submit(self._database.close)  # again, for a close that was cancelled
            self._thread.shutdown()  # joins, so that nothing is written after the shards are let go
            for locks in self._locks:
                locks.release()
            if self._tasks:
                await asyncio.wait(self._tasks)  # what they still have to write, the store refuses now

    # --- writing --------------------------------------------------------------------------------------------------------

    def _write_in(self, seconds: float) -> None:
        """Write what is pending after ``seconds``; a write that is due sooner stays, and while writing fails nothing hurries."""
        if self._closed or self._health.state is StoreState.UNUSABLE:
            return
        if seconds > 0:
            if self._timer is None:
                self._timer = self._clock.call_later(seconds, self._start_writing)
        else:
            self._stop_timer()
            self._start_writing()

    def _start_writing(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self.flush(), name="discorder-store-flush")
        self._tasks = [*(one for one in self._tasks if not one.done()), task]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _write_pending(self) -> None:
        """One try; what was not written stays pending, unless something newer took its place meanwhile."""
        batch, self._pending = self._pending, {}
        written = False

        def on_thread() -> None:
            if not self._database.is_current:
                self._reopen()
            # another file than the one that was written to so far begins with everything, whoever has opened it
            self._database.write_sessions({**latest, **batch} if self._begun_anew else batch)
            self._begun_anew = False

        latest: dict[Shard, StoredSession | None] = dict(self._latest)
        try:
            await self._on_thread(on_thread)
            written = True
        except _FAILURES as error:
            self._note_failure(error)
        except NewerStore as error:
            self._give_up(error)
        finally:
            if not written:
                self._pending = {**batch, **self._pending}
        if written:
            self._note_success()

    # --- the store's thread ---------------------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Runs on the store's thread."""
        aside = self._database.open(self._clock.now())
        self._begun_anew = True
        if aside is not None:
            self._sound = Health(
                StoreState.SET_ASIDE, f"the session store was damaged: it lies at {aside}, and a new one was begun"
            )
            logger.warning("The session store was damaged and set aside", path=str(self.path), aside=str(aside))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """Raises sqlite3.OperationalError when the store is closed."""
        if self._closed:
            msg = "the session store is closed"
            raise sqlite3.OperationalError(msg)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- health ---------------------------------------------------------------------------------------------------------

    def _note_failure(self, error: Exception) -> None:
        if self._closed:
            return
        self._health = Health(StoreState.FAILING, f"the session store {self.path} cannot be used: {error}")
        if not self._failing:
            self._failing = True
            logger.warning("The session store fails; the session runs on", path=str(self.path), error=str(error))
        self._write_in(RETRY_EVERY)

    def _note_success(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("The session store works again", path=str(self.path))
        self._health = self._sound

    def _give_up(self, error: Exception) -> None:
        self._health = Health(StoreState.UNUSABLE, str(error))
        self._stop_timer()
        logger.warning("Running without a session store", path=str(self.path), error=str(error))
