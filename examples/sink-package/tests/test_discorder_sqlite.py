"""The sink passes the contract of Discorder's publishers, and keeps its own promise: each event once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from discorder_sqlite import SqlitePublisher

from discorder.errors import UnusableFile
from discorder.testing import PublisherContract, PublisherRig, Received
from discorder.testing.publisher_contract import event


def rows(path: Path) -> list[Received]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT type, seq, data FROM event ORDER BY rowid").fetchall()


class Rig:
    """Reads the table back."""

    must_be_open = True

    def __init__(self, path: Path) -> None:
        self.publisher = SqlitePublisher(path)
        self._path = path
        self._read = 0

    async def ready(self) -> None: ...

    async def received(self, count: int) -> Sequence[Received]:
        new = rows(self._path)[self._read :]
        self._read += count
        return new

    async def close(self) -> None: ...


class TestSqlitePublisher(PublisherContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> PublisherRig:
        return Rig(tmp_path / "events.sqlite")


def test_an_event_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(2):  # two lives
            publisher = SqlitePublisher(tmp_path / "events.sqlite")
            await publisher.open()
            await publisher.publish([event(1), event(2)])
            await publisher.publish([event(2), event(3)])
            await publisher.close()

    asyncio.run(scenario())
    assert [seq for _, seq, _ in rows(tmp_path / "events.sqlite")] == [1, 2, 3]


def test_a_file_that_cannot_be_used_is_named_with_its_key(tmp_path: Path) -> None:
    publisher = SqlitePublisher(tmp_path / "missing" / "events.sqlite", "archive")
    with pytest.raises(UnusableFile, match=r"publishers\.archive\.path: .*events\.sqlite cannot be used"):
        asyncio.run(publisher.open())
