"""Keep sessions and the identify ledger in an SQLite file, which a thread of its own writes.

What goes wrong, and what follows:

=============================================  ======================================================================
at start: no store there and none can be made  `open` raises UnusableFile (exit code 74)
at start: another program's SQLite file        the same: nothing of it is touched
damaged file, at any time                      set aside as ``<name>.corrupt-<time>``, a new one begun; state SET_ASIDE
written by a newer version                     not touched; runs without; state UNUSABLE
read-only, disk full, locked, removed          runs on and tries again every 2 s; state FAILING; what a file holds that
                                               cannot be written is still loaded
=============================================  ======================================================================

A series of failures is logged once, and so is its end. Nothing here blocks the loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from discorder.clock import Clock, Timer
from discorder.errors import StoreUnavailable, UnusableFile
from discorder.logs import logger
from discorder.sessions.database import Database
from discorder.sessions.integrity import NewerStore
from discorder.sessions.ledger import Ledger
from discorder.sessions.locks import ShardLocks, hold_shards
from discorder.sessions.schema import Unsound
from discorder.sessions.seal import UNKEYED, Seal
from discorder.sessions.store import (
    Health,
    Ordinals,
    Shard,
    StoredSession,
    StoreState,
    T,
    layout_order,
    superseded,
)

# seconds for which a save waits for those of other shards: the plane saves all of them in one turn
WRITE_AFTER: Final = 0.1
RETRY_EVERY: Final = 2.0  # seconds between two tries while writing fails

_FAILURES = (sqlite3.Error, OSError, UnusableFile, Unsound)


@dataclass(slots=True, eq=False)
class _Transaction:
    """A change of the ledger that waits for the store's thread, and then its result or its error."""

    change: Callable[[Ledger], tuple[Ledger, Any]]
    result: Any = None
    error: BaseException | None = None


class SqliteSessionStore:
    """Sessions of one bot (`bot_key`) in the file ``path``, which other bots and other processes may share."""

    def __init__(self, path: Path, *, bot: str, clock: Clock, seal: Seal = UNKEYED) -> None:
        self.path = path.absolute()
        self._bot = bot
        self._clock = clock
        self._database = Database(self.path, bot, seal)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="discorder-store")
        self._health = Health(StoreState.FAILING, "the session store is not open yet")
        self._sound = Health(StoreState.OK)  # the health after a series of failures
        self._failing = False
        self._ordinals = Ordinals()
        self._latest: dict[Shard, StoredSession] = {}  # all that was saved, for a new file
        self._pending: dict[Shard, StoredSession | None] = {}
        self._pauses: dict[Shard, datetime | None] = {}  # all that was changed, for a new file; None: not paused
        self._pending_pauses: dict[Shard, datetime | None] = {}
        self._begun_anew = False  # a file was opened that may lack what this process has saved
        self._ledger = Ledger()
        self._ledger_lock = threading.Lock()  # for `_ledger` and `_recorded`: the store's thread changes them too
        self._recorded: list[Callable[[Ledger], Ledger]] = []  # changes that the file has not got yet, in order
        self._transactions: deque[_Transaction] = deque()  # that wait for the store's thread
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: Timer | None = None
        self._locks: list[ShardLocks] = []
        self._closed = False

    @property
    def health(self) -> Health:
        return self._health

    @property
    def ledger(self) -> Ledger:
        return self._ledger

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
                directory,
                self._bot,
                shards,
                clock=self._clock,
                take_over=take_over,
                patience=patience,
                own=[shard for locks in self._locks for shard in locks.shards],
            )
        except OSError as error:
            if self._health.durable:
                msg = f"cannot lock shards in {directory}: {error}; choose another [session] store"
                raise UnusableFile(msg) from error
            logger.warning("Running without a lock on the shards", directory=str(directory), error=str(error))
        else:
            self._locks.append(locks)

    def release(self, shards: Collection[Shard]) -> None:
        for shard in shards:
            for kept in (self._latest, self._pending, self._pauses, self._pending_pauses):
                kept.pop(shard, None)
        for locks in self._locks:
            locks.release(shards)

    async def load_all(self) -> list[StoredSession]:
        await self.flush()
        if self._health.state is StoreState.UNUSABLE:
            return sorted(self._latest.values(), key=layout_order)
        async with self._writing:  # a batch that is being written is neither in the file nor pending
            try:
                stored = await self._on_thread(self._database.read_sessions)
                ordinals = await self._on_thread(self._database.read_ordinals)
            except _FAILURES as error:
                self._note_failure(error)
                return sorted(self._latest.values(), key=layout_order)
            for label, ordinal in ordinals:
                self._ordinals.note_label(label, ordinal)
            for session in stored:
                self._ordinals.note(session.session_id, session.ordinal)
            kept = {session.shard: session for session in stored}
            for shard, pending in self._pending.items():  # not written yet, because the disk fails
                kept.pop(shard, None)
                if pending is not None:
                    for old in superseded(shard, kept):
                        del kept[old]
                    kept[shard] = pending
            return sorted(kept.values(), key=layout_order)

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        for shard in superseded(session.shard, self._latest):
            del self._latest[shard]
            self._pending.pop(shard, None)
        self._ordinals.note(session.session_id, session.ordinal)
        self._latest[session.shard] = session
        self._pending[session.shard] = session
        self._write_in(0.0 if now else WRITE_AFTER)

    def forget(self, shard_id: int, shard_count: int) -> None:
        self._latest.pop((shard_id, shard_count), None)
        self._pending[shard_id, shard_count] = None
        self._write_in(0.0)

    def pause(self, shard_id: int, shard_count: int, since: datetime) -> None:
        self._put_pause((shard_id, shard_count), since)

    def unpause(self, shard_id: int, shard_count: int) -> None:
        self._put_pause((shard_id, shard_count), None)

    def _put_pause(self, shard: Shard, since: datetime | None) -> None:
        self._pauses[shard] = self._pending_pauses[shard] = since
        self._write_in(0.0)

    async def load_pauses(self) -> dict[Shard, datetime]:
        await self.flush()
        stored: dict[Shard, datetime | None] = {}
        if self._health.state is not StoreState.UNUSABLE:
            try:
                stored.update(await self._on_thread(self._database.read_pauses))
            except _FAILURES as error:
                self._note_failure(error)
        changed = {**stored, **self._pauses}
        return {shard: since for shard, since in changed.items() if since is not None}

    def ordinal(self, session_id: str) -> int:
        return self._ordinals.take(session_id)

    async def flush(self) -> None:
        async with self._writing:
            if self._has_unwritten and not self._closed and self._health.state is not StoreState.UNUSABLE:
                await self._write_pending()

    @property
    def _has_unwritten(self) -> bool:
        return bool(self._pending or self._pending_pauses or self._recorded) or self._failing or self._begun_anew

    async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
        if self._closed:
            msg = "the session store is closed"
            raise StoreUnavailable(msg)
        if self._health.state is StoreState.UNUSABLE:
            raise StoreUnavailable(self._health.reason)
        transaction = _Transaction(change)
        self._transactions.append(transaction)
        try:
            try:
                await self._on_thread(self._transact_waiting)
            except asyncio.CancelledError:
                with suppress(ValueError):  # the thread has it
                    self._transactions.remove(transaction)
                raise
            if transaction.error is not None:
                raise transaction.error
        except _FAILURES as error:
            self._note_failure(error)
            raise StoreUnavailable(self._health.reason) from error
        except NewerStore as error:
            self._give_up(error)
            raise StoreUnavailable(self._health.reason) from error
        self._note_success()
        if self._begun_anew:
            self._write_in(0.0)
        result: T = transaction.result
        return result

    def record(self, change: Callable[[Ledger], Ledger]) -> None:
        with self._ledger_lock:
            self._ledger = change(self._ledger)
            if self._closed or self._health.state is StoreState.UNUSABLE:
                return
            self._recorded.append(change)
        self._write_in(0.0)

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
            self._thread.shutdown()  # joins, so that nothing is written after the shards are released
            for locks in self._locks:
                locks.release()
            if self._tasks:
                await asyncio.wait(self._tasks)  # the store refuses what they still have to write

    # --- writing --------------------------------------------------------------------------------------------------------

    def _write_in(self, seconds: float) -> None:
        """Write what is pending after ``seconds``, unless a write is due sooner."""
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
        self._tasks = [one for one in self._tasks if not one.done()]
        if len(self._tasks) > 1:
            return  # one writes, and the next writes all that is pending by then
        task = asyncio.get_running_loop().create_task(self.flush(), name="discorder-store-flush")
        task.add_done_callback(self._flush_ended)
        self._tasks.append(task)

    def _flush_ended(self, task: asyncio.Task[None]) -> None:
        """Retry later what a flush has left that somebody else cancelled."""
        if task.cancelled():
            self._write_in(RETRY_EVERY)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _write_pending(self) -> None:
        """Try once. What was not written stays pending, unless something newer has replaced it."""
        batch, self._pending = self._pending, {}
        pauses, self._pending_pauses = self._pending_pauses, {}
        written = False

        def on_thread() -> None:
            if not self._database.is_current:
                self._reopen()
            if self._recorded:
                self._change_ledger([])
            # a file that was begun anew, by whichever call, gets everything
            sessions = {**latest, **batch} if self._begun_anew else batch
            paused = latest_pauses if self._begun_anew else pauses
            if paused:
                self._database.write_pauses(paused)
            if sessions:  # a change of the ledger alone is written above
                self._database.write_sessions(sessions)
            self._begun_anew = False

        latest: dict[Shard, StoredSession | None] = dict(self._latest)
        latest_pauses = dict(self._pauses)
        try:
            await self._on_thread(on_thread)
            written = True
        except _FAILURES as error:
            self._note_failure(error)
        except NewerStore as error:
            self._give_up(error)
        except Exception as error:  # noqa: BLE001  # a bug: no caller waits for this write
            logger.opt(exception=error).error("Writing the session store failed unexpectedly", path=str(self.path))
            self._note_failure(error)
        finally:
            if not written:
                self._pending = {**batch, **self._pending}
                self._pending_pauses = {**pauses, **self._pending_pauses}
        if written:
            self._note_success()

    # --- the store's thread ---------------------------------------------------------------------------------------------

    def _transact_waiting(self) -> None:
        """Run all waiting transactions as one: a round of identify buckets waits for the disk once, not sixteen times."""
        waiting: list[_Transaction] = []
        while self._transactions:
            waiting.append(self._transactions.popleft())
        if not waiting:
            return  # an earlier call took them
        try:
            if not self._database.is_current:
                self._reopen()
            self._change_ledger(waiting)
        except BaseException as error:  # noqa: BLE001  # raised in each `transact`
            for transaction in waiting:
                transaction.error = error

    def _change_ledger(self, transactions: Sequence[_Transaction]) -> None:
        """Write what was recorded, then ``transactions``. Runs on the store's thread."""
        with self._ledger_lock:
            known, recorded = self._ledger, tuple(self._recorded)

        def change(ledger: Ledger) -> Ledger:
            ledger = ledger.completed_from(known)
            for one in recorded:
                ledger = one(ledger)
            for transaction in transactions:
                ledger, transaction.result = transaction.change(ledger)
            return ledger

        ledger = self._database.change_ledger(change, durable=bool(transactions))
        with self._ledger_lock:
            del self._recorded[: len(recorded)]
            for one in self._recorded:  # since
                ledger = one(ledger)
            self._ledger = ledger

    def _reopen(self) -> None:
        """Open the file again. Runs on the store's thread."""
        aside = self._database.open(self._clock.now())
        self._begun_anew = True
        if aside is not None:
            self._sound = Health(
                StoreState.SET_ASIDE, f"the session store was damaged: it lies at {aside}, and a new one was begun"
            )
            logger.warning("The session store was damaged and set aside", path=str(self.path), aside=str(aside))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the store's thread. Raises sqlite3.OperationalError when the store is closed."""
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
