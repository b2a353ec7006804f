"""Know the connections and the sessions that are live, and share what all of them use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from discorder.clock import Clock
from discorder.facade.clients import Clients
from discorder.facade.commands import CommandDesk
from discorder.facade.counts import CountsByShard
from discorder.facade.places import Places
from discorder.guilds.feed import Feed
from discorder.tracking.facade_status import FacadeSessionStatus


class LiveSession(Protocol):
    """A session with a connection."""

    @property
    def client_name(self) -> str: ...

    @property
    def shard_id(self) -> int: ...

    def status(self, now: float, url: str) -> FacadeSessionStatus:
        """Return what is shown of it. ``now``: seconds since the epoch; ``url``: of the façade."""
        ...

    def sample_lag(self, now: float) -> None:
        """Look up the age of the oldest event that the bot has yet to get. Called once a second."""

    def note_place(self) -> None:
        """Put the place up to which the bot has the events into the places."""

    def wake(self) -> None:
        """Look for new events soon."""


class LiveSessions:
    """The live sessions, each shard's in the order of their beginning."""

    def __init__(self) -> None:
        self._by_shard: dict[int, list[LiveSession]] = {}

    def add(self, session: LiveSession) -> None:
        """Add a session that begins or is resumed."""
        self._by_shard.setdefault(session.shard_id, []).append(session)

    def remove(self, session: LiveSession) -> None:
        """Remove a session whose connection has ended."""
        self._by_shard[session.shard_id].remove(session)

    def of_shard(self, shard: int) -> list[LiveSession]:
        """Return the sessions of a shard."""
        return self._by_shard.get(shard, [])

    def is_newest(self, session: LiveSession) -> bool:
        """Return whether no later session of the same bot is on the shard."""
        return next(self._of_bot(session.client_name, session.shard_id)) is session

    def has_bot(self, client: str, shard: int) -> bool:
        """Return whether a bot has a session on the shard."""
        return next(self._of_bot(client, shard), None) is not None

    def all(self) -> list[LiveSession]:
        """Return the sessions of all shards."""
        return [one for sessions in list(self._by_shard.values()) for one in list(sessions)]

    def _of_bot(self, client: str, shard: int) -> Iterator[LiveSession]:
        return (one for one in reversed(self.of_shard(shard)) if one.client_name == client)


@dataclass(frozen=True, slots=True)
class FacadeServices:
    """What all connections of one façade use. ``key`` signs session ids; ``heartbeat``: seconds between two of a bot."""

    feed: Feed
    clients: Clients
    key: bytes
    desk: CommandDesk
    places: Places
    clock: Clock
    heartbeat: float = 15.0
    live: LiveSessions = field(default_factory=LiveSessions)
    counts: CountsByShard = field(default_factory=CountsByShard)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self.clock.now().timestamp()
