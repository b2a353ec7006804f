"""Stores, clocks and helper processes for the tests of what is kept across connections."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.sessions import SqliteSessionStore, StoredSession

MakeStore = Callable[..., Awaitable[SqliteSessionStore]]
StartScript = Callable[..., "subprocess.Popen[str]"]
MakeSession = Callable[..., StoredSession]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the store; its directory does not exist yet."""
    return tmp_path / "state" / "sessions.sqlite3"


@pytest.fixture
async def make_store(path: Path, clock: FakeClock) -> AsyncIterator[MakeStore]:
    """Return a function that opens another store on the same file; all are closed at the end."""
    made: list[SqliteSessionStore] = []

    async def make(*, bot: str = "b" * 64, at: Path = path) -> SqliteSessionStore:
        store = SqliteSessionStore(at, bot=bot, clock=clock)
        made.append(store)
        await store.open()
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
def spoil_index() -> Callable[[Path], None]:
    """Damage a store that holds a session of bot bbb…."""

    def spoil(path: Path) -> None:
        """Put another bot into the index than into the table. Only a check of the whole file detects that."""
        with closing(sqlite3.connect(path)) as connection:
            (page,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name LIKE '%auto%session%'"
            ).fetchone()
        content, start, end = path.read_bytes(), (page - 1) * 4096, page * 4096
        path.write_bytes(content[:start] + content[start:end].replace(b"b" * 64, b"c" * 64) + content[end:])

    return spoil


@pytest.fixture
def make_session() -> MakeSession:
    def make(shard_id: int = 0, shard_count: int = 1, *, seq: int = 7, session_id: str = "s-1") -> StoredSession:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return StoredSession(shard_id, shard_count, session_id, "ws://resume", seq, b'{"v":10}', at, 513)

    return make


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[StartScript]:
    """Return a function that starts a Python script with arguments as a process; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: object) -> subprocess.Popen[str]:
        script = tmp_path / f"script{len(started)}.py"
        script.write_text(source)
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
