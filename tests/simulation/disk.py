"""The session store of a simulated host: what was committed survives its processes, what was on the way there may not.

It keeps to the `SessionStore` seam and to what the SQLite store does about time: a save reaches the disk within about a second,
or at once; a transaction of the ledger is committed before it is answered, and may be committed without ever being answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import TypeVar

from discorder.errors import StoreLocked, StoreUnavailable
from discorder.sessions import Health, Ledger, StoredSession, StoreState
from discorder.sessions.store import Ordinals, layout_order, overlap, superseded
from tests.simulation.faults import Kind, Weather
from tests.simulation.loop import Process, VirtualLoop

T = TypeVar("T")
Shard = tuple[int, int]

WRITE_EVERY = 1.0
RETRY_EVERY = 5.0


class Disk:
    """What a host keeps. ``troubled_at``: when a write failed or was slow last."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, weather: Weather) -> None:
        self.loop = loop
        self.sessions: dict[Shard, StoredSession] = {}
        self.pauses: dict[Shard, datetime | None] = {}
        self.ordinals = Ordinals()
        self.ledger = Ledger()
        self.owners: dict[Shard, Process] = {}
        self.troubled_at = float("-inf")
        self.saved: Callable[[Process, StoredSession, bool], None] = lambda _, __, ___: None  # told of every save
        self._rng = rng
        self._weather = weather
        self._outside = loop.outside

    @property
    def full(self) -> bool:
        return self._weather.anywhere(Kind.DISK_FULL, self.loop.time()) is not None

    async def commit(self, write: Callable[[], T]) -> T:
        """Run ``write`` on the disk; raises OSError when it is full. Once begun it ends, also if the caller is cancelled."""
        slow = self._weather.anywhere(Kind.DISK_SLOW, self.loop.time()) is not None
        if slow:
            self.troubled_at = self.loop.time()
        seconds = self._rng.uniform(0.5, 1.0) if slow else self._rng.uniform(0.002, 0.02)
        done: asyncio.Future[T] = self.loop.create_future()

        def land() -> None:
            if self.full:
                self.troubled_at = self.loop.time()
                result: T | OSError = OSError("disk full")
            else:
                result = write()
            self.loop.call_later(seconds / 2, lambda: answer(done, result), context=self._outside)

        self.loop.call_later(seconds / 2, land, context=self._outside)
        return await done


def answer(done: asyncio.Future[T], result: T | OSError) -> None:
    """Set ``result``, unless the caller was cancelled."""
    if done.done():
        return
    if isinstance(result, OSError):
        done.set_exception(result)
        done.exception()  # seen: whoever waited may be cancelled in this very turn
    else:
        done.set_result(result)


class DiskStore:
    """`SessionStore` of one process on a `Disk`."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._pending: dict[Shard, StoredSession | None] = {}
        self._pending_pauses: dict[Shard, datetime | None] = {}
        self.ledger = disk.ledger
        self._recorded: list[Callable[[Ledger], Ledger]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing = False
        self._closed = False

    @property
    def health(self) -> Health:
        return Health(StoreState.FAILING if self._failing else StoreState.OK)

    async def open(self) -> None:
        """Open nothing."""

    async def hold(self, shards: Iterable[Shard], *, take_over: bool = False, patience: float = 0.0) -> None:
        wanted = list(shards)
        for shard, owner in self._disk.owners.items():
            if owner.alive and owner is not self._process and any(overlap(shard, one) for one in wanted):
                msg = f"{owner.name} holds shard {shard}"
                raise StoreLocked(msg)
        self._disk.owners.update(dict.fromkeys(wanted, self._process))

    def release(self, shards: Collection[Shard]) -> None:
        for shard in shards:
            self._pending.pop(shard, None)
            self._pending_pauses.pop(shard, None)
            if self._disk.owners.get(shard) is self._process:
                del self._disk.owners[shard]

    async def load_all(self) -> list[StoredSession]:
        await self.flush()
        kept = dict(self._disk.sessions)
        for shard, session in self._pending.items():
            kept.pop(shard, None)
            if session is not None:
                kept[shard] = session
        return sorted(kept.values(), key=layout_order)

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        self._disk.saved(self._process, session, now)
        self._put(session.shard, session, WRITE_EVERY if not now else 0.0)

    def forget(self, shard_id: int, shard_count: int) -> None:
        self._put((shard_id, shard_count), None, 0.0)

    def pause(self, shard_id: int, shard_count: int, since: datetime) -> None:
        self._pending_pauses[shard_id, shard_count] = since
        self._write_in(0.0)

    def unpause(self, shard_id: int, shard_count: int) -> None:
        self._pending_pauses[shard_id, shard_count] = None
        self._write_in(0.0)

    async def load_pauses(self) -> dict[Shard, datetime]:
        await self.flush()
        known = {**self._disk.pauses, **self._pending_pauses}
        return {shard: since for shard, since in known.items() if since is not None}

    def ordinal(self, session_id: str) -> int:
        return self._disk.ordinals.take(session_id)

    async def flush(self) -> None:
        async with self._turn:
            while self._has_unwritten and not self._closed:
                if not await self._write():
                    return

    @property
    def _has_unwritten(self) -> bool:
        return bool(self._pending or self._pending_pauses or self._recorded) or self._failing

    async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
        if self._closed:
            msg = "the session store is closed"
            raise StoreUnavailable(msg)

        def write() -> T:
            self._disk.ledger, result = change(self._with_recorded(self._disk.ledger))
            self._recorded.clear()
            self.ledger = self._disk.ledger
            return result

        try:
            return await self._disk.commit(write)
        except OSError as error:
            self._note_failure()
            raise StoreUnavailable(str(error)) from error

    def record(self, change: Callable[[Ledger], Ledger]) -> None:
        self.ledger = change(self.ledger)
        self._recorded.append(change)
        self._write_in(0.0)

    def _with_recorded(self, ledger: Ledger) -> Ledger:
        for change in self._recorded:
            ledger = change(ledger)
        return ledger

    async def close(self) -> None:
        if self._closed:
            return
        try:
            await self.flush()
        finally:
            self._closed = True
            self._stop_timer()
            for task in self._tasks:
                task.cancel()
            self._disk.owners = {shard: one for shard, one in self._disk.owners.items() if one is not self._process}

    def _put(self, shard: Shard, session: StoredSession | None, seconds: float) -> None:
        self._pending[shard] = session
        self._write_in(seconds)

    def _write_in(self, seconds: float) -> None:
        if self._failing or self._closed:
            return
        if seconds > 0:
            if self._timer is None:
                self._timer = self._disk.loop.call_later(seconds, self._start_writing)
        else:
            self._stop_timer()
            self._start_writing()

    def _start_writing(self) -> None:
        self._timer = None
        task = self._disk.loop.create_task(self.flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _write(self) -> bool:
        batch, self._pending = self._pending, {}
        pauses, self._pending_pauses = self._pending_pauses, {}

        def keep() -> None:
            self._pending = {**batch, **self._pending}
            self._pending_pauses = {**pauses, **self._pending_pauses}

        def write() -> None:
            self._disk.ledger = self._with_recorded(self._disk.ledger)
            self._recorded.clear()
            self._disk.pauses.update(pauses)
            for shard, session in batch.items():
                self._disk.sessions.pop(shard, None)
                if session is not None:
                    for other in superseded(shard, self._disk.sessions):
                        del self._disk.sessions[other]
                    self._disk.sessions[shard] = session

        try:
            await self._disk.commit(write)
        except OSError:
            keep()
            self._note_failure()
            return False
        except asyncio.CancelledError:
            keep()
            raise
        self._failing = False
        return True

    def _note_failure(self) -> None:
        self._failing = True
        if self._timer is None and not self._closed:
            self._timer = self._disk.loop.call_later(RETRY_EVERY, self._start_writing)
