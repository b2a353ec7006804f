"""`discorder budget`: the ledger as an operator reads it, and as a machine does."""

# ruff: noqa: ASYNC240  # the tests arrange files, nobody else is on the loop

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from discorder.clock import SystemClock
from discorder.sessions import Ledger, SqliteSessionStore, StartLimit, StoredSession, bot_key
from discorder.simulator import Simulator

pytestmark = pytest.mark.system
Command = Callable[..., Any]
HOUR_MS = 3_600_000
NOBODY = "http://127.0.0.1:1/api/v10"
TOKEN = "MTIz.of.nobody"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """1,000 IDENTIFYs, 40 of them used up; four buckets."""
    async with Simulator(guilds=1, shards=2, max_concurrency=4, session_start_remaining=960) as simulator:
        yield simulator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite3"


async def fill(path: Path, token: str, *, remaining: int, spent: int, sessions: int = 0, of: int = 2) -> None:
    """A store whose last look-up, an hour ago, said ``remaining``; ``spent`` IDENTIFYs were sent since then."""
    now = datetime.now(UTC)
    hour_ago = (now - timedelta(hours=1)).timestamp()
    ledger = Ledger().reconciled(StartLimit(1000, remaining, 20 * HOUR_MS, 4), at=hour_ago, now=hour_ago)
    for number in range(spent):
        ledger = ledger.debited(str(number), hour_ago + 60).sent(0, str(number), hour_ago + 60)
    store = SqliteSessionStore(path, bot=bot_key(token), clock=SystemClock())
    await store.open()
    await store.transact(lambda _: (ledger, None))
    for shard in range(sessions):
        store.save(StoredSession(shard, of, f"s{shard}", "ws://resume", 7, b"{}", now, intents=1))
    await store.close()


def options(sim: Simulator | None, path: Path | str) -> tuple[str, ...]:
    """None: at the address there is nobody."""
    api = NOBODY if sim is None else sim.api_url
    return "--set", f"gateway.api={api}", "--set", f"session.store={path}", "--set", "gateway.intents=1"


async def test_it_shows_what_discord_says_beside_what_the_store_knows(
    discorder: Command, sim: Simulator, path: Path
) -> None:
    """The table, the cost of a cold start, and what the stored sessions spare."""
    await fill(path, sim.token, remaining=963, spent=3, sessions=1)
    before = path.read_bytes()
    outcome = await discorder("budget", *options(sim, path), token=sim.token)
    assert outcome.code == 0, outcome.err
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in table(outcome.out)}
    assert rows["total"] == ["1,000", "1,000"]
    assert rows["remaining"] == ["960", "960"]
    assert rows["identified here in 24 h"] == ["–", "3"]
    assert rows["kept in reserve"] == ["–", "100"]
    assert rows["may be spent now"] == ["–", "860"]
    assert rows["identify buckets"] == ["4", "–"]
    assert rows["last look-up"][1].startswith("1 h 0 min ago")
    assert "A cold start now (2 shards) costs 2 IDENTIFYs, at once." in outcome.out
    assert "With the stored sessions 1 shard would be resumed: 1 IDENTIFY then." in outcome.out
    assert "Another process" not in outcome.out
    assert path.read_bytes() == before
    assert sim.token not in outcome.out + outcome.err
    assert sim.connects == 0


def table(text: str) -> list[list[str]]:
    return [line.strip("│").split("│") for line in text.splitlines() if line.startswith("│")]


async def test_for_machines_it_is_one_json_document(discorder: Command, sim: Simulator, path: Path) -> None:
    """Same facts, plain values; here with another process that spends, and more shards than one round takes."""
    await fill(path, sim.token, remaining=1000, spent=3)
    shards = "gateway.shards={ids=[0, 4, 8, 1], of=12}"
    outcome = await discorder("budget", "--json", *options(sim, path), "--set", shards, token=sim.token)
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["bot"] == bot_key(sim.token)[:16]
    assert found["store"] == str(path)
    assert (found["discord"]["total"], found["discord"]["remaining"], found["discord"]["max_concurrency"]) == (
        1000,
        960,
        4,
    )
    assert (found["known"]["remaining"], found["known"]["spent_here"]) == (997, 3)
    assert found["budget"]["foreign"] == 37
    assert found["cold_start"] == {
        "identifies": 4,
        "rounds": 3,
        "seconds": 10.5,
        "paid": 4,
        "refused_until": None,
        "reason": "",
    }
    assert found["start"] == {"shards": 4, "shard_count": 12, "resumable": 0, "identifies": 4}
    assert found["notes"] == []


async def test_a_start_that_the_ledger_would_refuse_says_so_and_until_when(discorder: Command, path: Path) -> None:
    """103 left and 100 in reserve: three shards of five would come up."""
    async with Simulator(session_start_remaining=103, max_concurrency=1) as sim:
        outcome = await discorder("budget", *options(sim, path), "--set", "gateway.shards=5", token=sim.token)
    assert outcome.code == 0, outcome.err
    assert "A cold start now (5 shards) costs 5 IDENTIFYs, in 5 rounds of 5.25 s, 21 s in all." in outcome.out
    assert "The ledger would pay for 3 of them and park the rest until 20" in outcome.out
    assert "100 are kept in reserve" in outcome.out
    assert f"There is no session store at {path} yet." in outcome.out


async def test_without_discord_it_goes_by_the_store(discorder: Command, path: Path) -> None:
    """And says so; the shard count is that of the last start."""
    await fill(path, TOKEN, remaining=500, spent=3, sessions=4, of=4)
    outcome = await discorder("budget", *options(None, path), token=TOKEN)
    assert outcome.code == 0, outcome.err
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in table(outcome.out)}
    assert rows["remaining"] == ["–", "497"]
    assert rows["whole again"] == ["–", "in 19 h 0 min"] or rows["whole again"][1].startswith("in 18 h 59 min")
    assert "Discord could not be asked: " in outcome.out
    assert "the last start had 4" in outcome.out
    assert "With the stored sessions 4 shards would be resumed: 0 IDENTIFYs then." in outcome.out


@pytest.mark.parametrize("store", ["", "nothing-there.sqlite3"])
async def test_with_neither_discord_nor_a_ledger_it_says_what_is_missing(discorder: Command, store: str) -> None:
    outcome = await discorder("budget", *options(None, store), token=TOKEN)
    assert outcome.code == 69
    assert "there is no identify budget to show" in outcome.err
    assert ("kept in memory only" if not store else "There is no session store at") in outcome.err
    assert "Discord could not be asked" in outcome.err
    assert "Traceback" not in outcome.err


async def test_a_store_that_cannot_be_read_is_named_and_left_alone(
    discorder: Command, sim: Simulator, path: Path
) -> None:
    path.write_bytes(b"not a database at all, and longer than any header" * 30)
    before = path.read_bytes()
    outcome = await discorder("budget", *options(sim, path), token=sim.token)
    assert outcome.code == 0, outcome.err
    assert f"The session store {path} cannot be read: file is not a database." in outcome.out
    assert path.read_bytes() == before


async def test_without_a_token_and_with_a_refused_one_the_exit_code_tells(
    discorder: Command, sim: Simulator, path: Path
) -> None:
    missing = await discorder("budget", *options(sim, path))
    assert (missing.code, missing.out) == (78, "")
    assert "DISCORD_BOT_TOKEN" in missing.err
    refused = await discorder("budget", *options(sim, path), token="MTIz.of.another-bot")
    assert (refused.code, refused.out) == (77, "")
    assert "Discord refused the bot token" in refused.err
    assert "another-bot" not in refused.err
