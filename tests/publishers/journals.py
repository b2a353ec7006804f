"""Events for the tests of the journal, and the state of a directory as a `kill -9` leaves it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from discorder.clock import FakeClock
from discorder.publishers.journal import Journal
from discorder.wire import Event, StreamPosition

SESSION, LATER = "0123456789abcdef", "fedcba9876543210"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def event(
    seq: int | None,
    kind: str,
    data: Any,
    *,
    session: str = SESSION,
    shard: tuple[int, int] = (0, 1),
    seconds: float = 0.0,
) -> Event:
    """Return an event; ``data`` is encoded as JSON."""
    text = json.dumps(data, separators=(",", ":")).encode()
    return Event(kind, shard, seq, None, session, MOMENT + timedelta(seconds=seconds), text)


def guild(number: int, **more: Any) -> dict[str, Any]:
    """Return the data of a GUILD_CREATE."""
    return {"id": str(number), "name": f"guild {number}", "unavailable": False, "roles": [], "members": [], **more}


def opening(guilds: int = 2, *, session: str = SESSION, shard: tuple[int, int] = (0, 1)) -> list[Event]:
    """Return READY and the guilds of a session; the ids begin at 1."""
    stubs = [{"id": str(number), "unavailable": True} for number in range(1, guilds + 1)]
    ready = event(1, "READY", {"user": {"id": "99"}, "guilds": stubs}, session=session, shard=shard)
    creates = [
        event(number + 1, "GUILD_CREATE", guild(number), session=session, shard=shard)
        for number in range(1, guilds + 1)
    ]
    return [ready, *creates]


def messages(first: int, count: int, *, session: str = SESSION, size: int = 100, seconds: float = 0.0) -> list[Event]:
    """Return events that change no guild."""
    return [
        event(seq, "MESSAGE_CREATE", {"content": "x" * size}, session=session, seconds=seconds)
        for seq in range(first, first + count)
    ]


@asynccontextmanager
async def opened(directory: Path, **options: Any) -> AsyncIterator[Journal]:
    """Open a journal, and close it afterwards."""
    journal = Journal(directory, **{"clock": FakeClock(), **options})
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


def killed(directory: Path, name: str = "killed") -> Path:
    """Return a copy of a directory that is in use: what another process finds after a kill."""
    copy = directory.with_name(name)
    shutil.copytree(directory, copy)
    return copy


def names(journal: Journal, shard: int = 0) -> dict[int, str]:
    """Return the names of all guilds with a state."""
    snapshot = journal.snapshot(shard)
    assert snapshot is not None
    return {number: json.loads(snapshot.guilds.document(number))["name"] for number in snapshot.guilds.states}


def read_all(journal: Journal, after: int, *, session: str = SESSION, most_bytes: int = 1000) -> list[int | None]:
    """Return the sequences of all events after a place, read step by step."""
    found: list[int | None] = []
    place = StreamPosition(session, after)
    while entries := journal.entries(0, place, most_bytes):
        found += [entry.seq for entry in entries]
        last = entries[-1].seq
        assert last is not None, "an answer ends with an event"
        place = StreamPosition(session, last)
    return found


def segments(directory: Path) -> Sequence[Path]:
    """Return the files of events, oldest first."""
    return sorted(directory.glob("segment.*"))
