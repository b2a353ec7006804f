"""A feed and a place store in memory: the journal's double for the tests of the façade."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from discorder.guilds import ShardGuilds
from discorder.guilds.feed import Entry, NotHeld, Snapshot
from discorder.wire import StreamPosition

ALL_INTENTS = 53_608_447


class MemoryFeed:
    """Keeps every event of one session per shard. ``forget`` drops the oldest, as a full ring does."""

    def __init__(self, count: int = 1, *, intents: int = ALL_INTENTS, now: Callable[[], float]) -> None:
        self.layout: tuple[Sequence[int], int] | None = (range(count), count)
        self.intents = intents
        self._now = now
        self._guilds = {shard: ShardGuilds() for shard in range(count)}
        self._entries: dict[int, list[Entry]] = {shard: [] for shard in range(count)}
        self._end: dict[int, StreamPosition] = {}
        self._oldest: dict[int, int] = {}
        self._wakes: list[Callable[[int], None]] = []
        self.reads = 0

    def snapshot(self, shard: int) -> Snapshot | None:
        frozen = self._guilds[shard].freeze()
        return None if frozen is None else Snapshot(self._end[shard], frozen)

    def end(self, shard: int) -> StreamPosition | None:
        return self._end.get(shard)

    def entries(self, shard: int, after: StreamPosition, most_bytes: int) -> Sequence[Entry]:
        self.reads += most_bytes > 1  # not the looks for one event
        end = self._end.get(shard)
        if end is None or after.session != end.session:
            msg = "another session"
            raise NotHeld(msg)
        if after.seq < self._oldest[shard]:
            msg = "not held any more"
            raise NotHeld(msg, self._oldest[shard])
        found: list[Entry] = []
        last = 0
        for entry in self._entries[shard]:
            last = last if entry.seq is None else entry.seq
            if last > after.seq or (entry.seq is None and last >= after.seq):
                found.append(entry)
                most_bytes -= len(entry.data)
                if most_bytes <= 0:
                    break
        return found

    def watch(self, wake: Callable[[int], None]) -> Callable[[], None]:
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake)

    # ---------------------------------------------------------------- what the tests make happen

    def happen(self, kind: str, d: Any, *, shard: int = 0) -> int:
        """Add an event; return its sequence number."""
        end = self._end[shard]
        data = json.dumps(d).encode()
        seq = end.seq + 1
        self._guilds[shard].apply(end.session, kind, data)
        self._entries[shard].append(Entry(seq, kind, self._now(), data))
        self._end[shard] = StreamPosition(end.session, seq)
        self._wake(shard)
        return seq

    def begin(self, session: str, guilds: Sequence[int] = (), *, shard: int = 0) -> None:
        """Begin a session of Discord's: READY, and the guilds."""
        ready = {
            "v": 10,
            "user": {"id": "42", "username": "bot"},
            "session_id": "discords-own",
            "resume_gateway_url": "wss://gateway.discord.gg",
            "application": {"id": "42", "flags": 0},
            "guilds": [{"id": str(one), "unavailable": True} for one in guilds],
            "new_field": {"kept": True},
        }
        self._entries[shard].clear()
        self._oldest[shard] = 0
        self._end[shard] = StreamPosition(session, 0)
        self.happen("READY", ready, shard=shard)
        for one in guilds:
            self.happen("GUILD_CREATE", guild(one), shard=shard)

    def lose(self, *, shard: int = 0) -> None:
        """Record that events were lost."""
        self._entries[shard].append(Entry(None, "DISCORDER_GAP", self._now(), b"{}"))
        self._wake(shard)

    def forget(self, *, shard: int = 0) -> None:
        """Drop all events."""
        self._entries[shard].clear()
        self._oldest[shard] = self._end[shard].seq

    def _wake(self, shard: int) -> None:
        for wake in self._wakes:
            wake(shard)


class MemoryPlaces:
    """Keeps the places of a façade that is stopped."""

    def __init__(self) -> None:
        self.text = b""

    def load_places(self) -> list[bytes]:
        return [self.text] if self.text else []

    def save_places(self, text: bytes) -> None:
        self.text = text

    @property
    def places(self) -> list[dict[str, Any]]:
        """What is saved."""
        places: list[dict[str, Any]] = json.loads(self.text)
        return places

    @places.setter
    def places(self, places: list[dict[str, Any]]) -> None:
        self.text = json.dumps(places).encode()


def guild(guild_id: int, **changes: Any) -> Mapping[str, Any]:
    """Return ``d`` of a GUILD_CREATE."""
    return {
        "id": str(guild_id),
        "name": f"guild {guild_id}",
        "unavailable": False,
        "member_count": 1,
        "large": False,
        "channels": [],
        "roles": [{"id": str(guild_id), "name": "@everyone"}],
        "members": [{"user": {"id": "42"}, "roles": []}],
        "voice_states": [],
        "threads": [],
        "presences": [],
        **changes,
    }
