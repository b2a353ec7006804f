"""The owner of the store's file, the effect of a flipped bit, and its place where there is no home."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreUnavailable, UnusableFile
from discorder.sessions import (
    MemorySessionStore,
    SqliteSessionStore,
    StoredSession,
    StoreState,
    open_store,
    read_store,
    store_path,
)

MakeSession = Callable[..., StoredSession]
BOT = "b" * 64
SOMEBODY = 65_533  # a user id that is neither root's nor ours


async def opened(path: Path) -> SqliteSessionStore:
    store = SqliteSessionStore(path, bot=BOT, clock=FakeClock())
    await store.open()
    return store


@pytest.fixture
async def stored(path: Path, make_session: MakeSession) -> Path:
    """A closed store with one session."""
    store = await opened(path)
    store.save(make_session(), now=True)
    await store.close()
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def set_mode(path: Path, bits: int) -> None:
    path.chmod(bits)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def names_in(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


# ---------------------------------------------------------------- owners


@pytest.fixture
def somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every file belong to another user than that of this process."""
    monkeypatch.setattr("os.geteuid", lambda: SOMEBODY)
    monkeypatch.setattr("discorder.sessions.integrity.ROOT", -1)


@pytest.mark.usefixtures("somebody_else")
async def test_a_store_of_somebody_else_is_refused(stored: Path) -> None:
    with pytest.raises(UnusableFile, match="belongs to user") as caught:
        await opened(stored)
    assert str(stored) in str(caught.value)
    assert "chown" in str(caught.value)
    assert caught.value.exit_code == 74


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
async def test_a_store_that_everybody_may_write_is_refused(stored: Path, suffix: str) -> None:
    """The same holds for a writable journal beside it, because SQLite would copy its pages into the file."""
    beside = stored.with_name(stored.name + suffix)
    beside.touch()
    beside.chmod(0o606)
    before = content(stored)
    with pytest.raises(UnusableFile, match="every user"):
        await opened(stored)
    assert content(stored) == before


async def test_a_store_that_becomes_writable_for_everybody_is_not_read_again(
    stored: Path, make_session: MakeSession
) -> None:
    """Another file was put in its place while the process ran."""
    store = await opened(stored)
    planted = stored.with_name("planted")
    planted.write_bytes(content(stored))
    planted.chmod(0o666)
    planted.rename(stored)
    store.save(make_session(seq=9), now=True)
    await store.flush()
    assert store.health.state is StoreState.FAILING
    assert "every user" in store.health.reason
    assert [one.seq for one in await store.load_all()] == [9]
    await store.close()


async def test_a_folder_and_a_file_that_a_group_may_write_are_fine(stored: Path, make_session: MakeSession) -> None:
    """Container platforms set them up like that. The file's permissions are restricted again."""
    set_mode(stored.parent, 0o2775)
    set_mode(stored, 0o660)
    store = await opened(stored)
    assert await store.load_all() == [make_session()]
    assert mode(stored) == 0o600
    await store.close()


# ---------------------------------------------------------------- damage


def schema_bytes(path: Path) -> Iterator[int]:
    """Return where the text of the schema is in the file."""
    whole = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        texts = [text.encode() for (text,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
    assert texts
    for text in texts:
        start = whole.index(text)
        yield from range(start, start + len(text))


async def test_one_flipped_bit_in_the_text_of_the_schema_is_no_traceback(
    stored: Path, make_session: MakeSession, tmp_path: Path
) -> None:
    """The file is set aside, or it works: what is written can be read. Every 13th byte is tried, another bit each time."""
    sound = content(stored)
    aside = 0
    for number, place in enumerate(list(schema_bytes(stored))[::13]):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << number % 8
        path = tmp_path / str(number) / "s.sqlite3"
        path.parent.mkdir()
        path.write_bytes(bytes(damaged))
        store = await opened(path)
        assert store.health.durable, f"byte {place}, bit {number % 8}: {store.health}"
        aside += store.health.state is StoreState.SET_ASIDE
        store.save(make_session(session_id="s-2"), now=True)
        await store.transact(lambda ledger: (ledger, None))
        await store.close()
        again = await opened(path)
        assert [one.session_id for one in await again.load_all()] == ["s-2"]
        await again.close()
        assert read_store(path, BOT).sessions
    assert aside > 10


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sqlite_master SET sql = CAST(x'ff' || sql AS TEXT) WHERE name = 'session'",
        "UPDATE sqlite_master SET sql = replace(sql, 'seq INTEGER', 'seq TEXT') WHERE name = 'session'",
        "UPDATE sqlite_master SET sql = replace(sql, 'session_id', 'session_ie') WHERE name = 'session'",
        "UPDATE sqlite_master SET name = 'sdssion', tbl_name = 'sdssion' WHERE name = 'session'",
        "UPDATE sqlite_master SET sql = replace(sql, 'holder TEXT', 'holder INT REFERENCES x(y) CHECK (0)') WHERE name = 'slot'",
        "UPDATE sqlite_master SET sql = replace(sql, 'label TEXT', 'label_TEXT') WHERE name = 'known_id'",
        "UPDATE sqlite_master SET sql = replace(sql, 'since TEXT', 'since_TEXT') WHERE name = 'paused'",
        "UPDATE sqlite_master SET rootpage = 9999 WHERE name = 'debit'",
        "UPDATE sqlite_master SET type = 'tablf' WHERE name = 'look_up'",
    ],
)
async def test_whatever_the_schema_says_the_store_works_or_is_set_aside(
    stored: Path, make_session: MakeSession, statement: str
) -> None:
    with closing(sqlite3.connect(stored, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement)
    store = await opened(stored)
    assert store.health.state is StoreState.SET_ASIDE
    store.save(make_session(seq=9), now=True)
    await store.flush()
    assert store.health.durable
    assert list(stored.parent.glob(f"{stored.name}.corrupt-*"))
    await store.close()


async def test_a_text_of_a_row_that_is_no_utf_8_makes_it_no_session(stored: Path) -> None:
    with closing(sqlite3.connect(stored, isolation_level=None)) as connection:
        connection.execute("UPDATE session SET resume_url = CAST(x'77ff' AS TEXT)")
    store = await opened(stored)
    assert [one.trusted for one in await store.load_all()] == [False]
    assert store.health.state is StoreState.OK
    await store.close()


async def test_a_damaged_store_that_is_only_looked_at_is_a_sentence(stored: Path) -> None:
    with closing(sqlite3.connect(stored, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = CAST(x'ff' || sql AS TEXT) WHERE name = 'session'")
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        read_store(stored, BOT)


# ---------------------------------------------------------------- places


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, make_socket])
async def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x"
    make(path)
    async with asyncio.timeout(60):
        with pytest.raises(UnusableFile):
            await opened(path)


async def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert store_path("~/s.sqlite3", BOT) == tmp_path / "s.sqlite3"
    assert store_path("s.sqlite3", BOT) == tmp_path / "s.sqlite3"


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a user without a home: no variable, and no entry in the system's list."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: object) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("pwd.getpwnam", nobody)
    monkeypatch.setattr("os.getuid", lambda: SOMEBODY)  # root would get its own folder
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("homeless")
async def test_auto_without_a_home_runs_in_memory_and_says_why(tmp_path: Path) -> None:
    store = await open_store("auto", bot=BOT, clock=FakeClock())
    assert isinstance(store, MemorySessionStore)
    assert "no home directory" in store.health.reason
    assert names_in(tmp_path) == []


@pytest.mark.usefixtures("homeless")
async def test_a_path_that_needs_a_home_is_refused_without_one(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="no home directory"):
        await open_store("~/s.sqlite3", bot=BOT, clock=FakeClock())
    assert names_in(tmp_path) == []


# ---------------------------------------------------------------- READY's own sequence


async def test_a_ready_with_sequence_0_is_told_from_one_that_is_not_delivered(
    path: Path, make_session: MakeSession
) -> None:
    """Servers that follow Discord's protocol may number it so."""
    delivered = replace(make_session(seq=0), ready_seq=0)
    for session, seq in ((delivered, 0), (replace(delivered, seq=-1), None), (make_session(seq=0), None)):
        store = await opened(path)
        store.save(session, now=True)
        await store.close()
        store = await opened(path)
        (found,) = await store.load_all()
        await store.close()
        assert (found, found.delivered) == (session, seq)
