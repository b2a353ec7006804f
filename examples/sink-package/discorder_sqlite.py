"""A publisher for Discorder that stores every event in an SQLite file, each once.

After a crash the control plane may deliver an event twice; the table's key (session, shard, seq) rejects the second one.
Disk access runs in one worker thread, so that it never blocks the control plane's event loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta

from discorder.errors import PublisherError, UnusableFile
from discorder.publishers.options import DeliveryOptions
from discorder.wire import Event, format_timestamp

T = TypeVar("T")

# In SQLite NULLs differ from each other, so the key never rejects records of the control plane, whose seq is NULL.
SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    type TEXT NOT NULL, timestamp TEXT NOT NULL, session TEXT, shard INTEGER NOT NULL, seq INTEGER, data BLOB NOT NULL,
    UNIQUE (session, shard, seq)
)
"""


class SqliteOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a table with ``kind = "sqlite"``, in addition to those of every publisher."""

    path: Annotated[str, Meta(min_length=1, description="the file of the database")]


class SqlitePublisher:
    """Appends to the table ``event`` of the file ``path``: type, timestamp, session, shard, seq, data (Discord's bytes).

    A batch is one transaction. Accepted events are on the disk, so ``required = true`` is allowed.
    """

    Options = SqliteOptions
    durable = True

    def __init__(self, path: str | Path, name: str = "sqlite") -> None:
        self.name = name
        self._path = Path(path)
        self._worker: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open or create the file. Raises UnusableFile."""
        self._worker = ThreadPoolExecutor(1, f"{self.name}-sqlite")
        try:
            await self._in_worker(self._connect)
        except sqlite3.Error as error:
            await self.close()
            msg = f"publishers.{self.name}.path: {self._path} cannot be used: {error}; name a file in a writable directory"
            raise UnusableFile(msg) from error

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the batch is committed. Raises PublisherError; then no event of the batch is stored."""
        try:
            await self._in_worker(lambda: self._insert(events))
        except sqlite3.Error as error:
            msg = f"{self._path}: {error}"
            raise PublisherError(msg) from error

    async def close(self) -> None:
        """Finish running work, close the file and join the thread."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.get_running_loop().run_in_executor(worker, self._disconnect)
            worker.shutdown()

    async def _in_worker(self, work: Callable[[], T]) -> T:
        if self._worker is None:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _connect(self) -> None:
        self._database = sqlite3.connect(self._path)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(SCHEMA)

    def _insert(self, events: Sequence[Event]) -> None:
        if self._database is None:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        with self._database:  # one transaction
            self._database.executemany(
                "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?)",
                [(e.type, format_timestamp(e.received_at), e.session, e.shard[0], e.seq, e.data) for e in events],
            )

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()
