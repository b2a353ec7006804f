"""Only the owner of the token can write a session that is used, even if others can write the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.sessions import Seal, SqliteSessionStore, StoredSession, StoreState, fitting, token_key

MakeSession = Callable[..., StoredSession]
BOT = "b" * 64
TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDe.s3cr3t-s3cr3t-s3cr3t-s3cr3t"
OTHER = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GxyzDe.an0ther-an0ther-an0ther-an0"


async def opened(path: Path, token: str = TOKEN) -> SqliteSessionStore:
    store = SqliteSessionStore(path, bot=BOT, clock=FakeClock(), seal=Seal.of(token))
    await store.open()
    assert store.health.state is StoreState.OK
    return store


async def stored(path: Path, token: str = TOKEN) -> list[StoredSession]:
    """Return the sessions that a later process with ``token`` finds."""
    store = await opened(path, token)
    found = await store.load_all()
    await store.close()
    return found


async def write(path: Path, *sessions: StoredSession, token: str = TOKEN) -> None:
    store = await opened(path, token)
    for session in sessions:
        store.save(session, now=True)
        await store.flush()
    await store.close()


def execute(path: Path, *statements: str) -> None:
    """Change the file as an attacker with write access would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def session(make_session: MakeSession) -> StoredSession:
    """Return a session of the bot with `TOKEN`."""
    return replace(make_session(), token_key=token_key(TOKEN))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("resume_url", "'wss://elsewhere.example'"),
        ("session_id", "'s-2'"),
        ("seq", "8"),
        ("shard_count", "2"),
        ("bot", f"'{'c' * 64}'"),
        ("intents", "0"),
        ("last_ready", "x'7b7d'"),
        ("last_ready", "NULL"),
        ("updated_at", "'2026-02-01T00:00:00+00:00'"),
        ("token_key", "''"),
        ("ordinal", "1"),
        ("untold", """'[{"session":"a","shard":[0,1],"seq":1,"since":"2026-01-01T00:00:00Z"}]'"""),
        ("seal", "''"),
        ("seal", "'ü'"),
        ("seal", f"'{'0' * 64}'"),
    ],
)
async def test_a_row_that_was_changed_is_no_session(
    path: Path, session: StoredSession, column: str, value: str
) -> None:
    await write(path, session)
    execute(path, f"UPDATE session SET {column} = {value}")  # noqa: S608  # constants
    store = SqliteSessionStore(path, bot="c" * 64 if column == "bot" else BOT, clock=FakeClock(), seal=Seal.of(TOKEN))
    await store.open()
    found = await store.load_all()
    assert [one.trusted for one in found] == [False]
    assert fitting(found, found[0].shard_count, None, token_key(TOKEN)) == {}
    await store.close()


async def test_a_row_moves_on_under_its_signature(path: Path, session: StoredSession) -> None:
    await write(path, session, replace(session, seq=8), replace(session, seq=9))
    store = await opened(path)
    store.save(replace(session, seq=10), now=True)
    await store.flush()
    store.save(replace(session, seq=11), now=True)
    await store.close()
    assert await stored(path) == [replace(session, seq=11)]


async def test_a_row_of_another_token_of_the_bot_is_no_session_but_can_be_told_of(
    path: Path, session: StoredSession
) -> None:
    await write(path, replace(session, token_key=token_key(OTHER)), token=OTHER)
    assert await stored(path) == [replace(session, token_key=token_key(OTHER), trusted=False)]
    assert await stored(path, OTHER) == [replace(session, token_key=token_key(OTHER))]


def as_an_earlier_version_left_it(path: Path) -> None:
    execute(
        path,
        "ALTER TABLE session DROP COLUMN ordinal",
        "ALTER TABLE session DROP COLUMN seal",
        "DROP TABLE known_id",
    )


async def test_the_rows_of_an_earlier_version_go_on_at_the_main_host(path: Path, session: StoredSession) -> None:
    """These rows are not signed, so the token is not sent to the host that they name. From then on they are signed."""
    await write(path, session)
    as_an_earlier_version_left_it(path)
    assert await stored(path) == [replace(session, resume_url="")]
    assert await stored(path) == [replace(session, resume_url="")]


@pytest.mark.parametrize("key", ["", "0123456789abcdef"])
async def test_a_row_of_an_earlier_version_that_does_not_name_the_token_is_no_session(
    path: Path, session: StoredSession, key: str
) -> None:
    """The bot's id is public, so anyone could write such a row."""
    await write(path, replace(session, token_key=key))
    as_an_earlier_version_left_it(path)
    assert [one.trusted for one in await stored(path)] == [False]
    assert [one.trusted for one in await stored(path)] == [False]


async def test_what_an_earlier_version_writes_beside_this_one_is_no_session(path: Path, session: StoredSession) -> None:
    """Only a file without any signature is taken over. Otherwise an attacker could remove a signature."""
    await write(path, session)
    execute(path, "UPDATE session SET seq = 9")
    assert [(one.seq, one.trusted) for one in await stored(path)] == [(9, False)]


async def test_the_ids_that_a_bot_has_had_outlive_its_sessions(path: Path, session: StoredSession) -> None:
    """Another process replaced the session of that id by another one."""
    await write(path, session, replace(session, session_id="s-2"))
    store = await opened(path)
    await store.load_all()
    assert [store.ordinal(one) for one in ("s-1", "s-2", "s-3")] == [1, 1, 0]
    await store.close()


def test_a_seal_shows_neither_key_nor_token() -> None:
    assert "key=" in (text := repr(Seal.of(TOKEN)))
    assert Seal.of(TOKEN).key.hex() not in text
    assert TOKEN.encode() not in Seal.of(TOKEN).key
    assert Seal.of(TOKEN) == Seal.of(f"Bot {TOKEN}") != Seal.of(OTHER)
