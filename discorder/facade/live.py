"""Keep the live sessions of the façade and their counts, describe them for the status, and share what all connections use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from discorder.clock import Clock
from discorder.facade.clients import REAL, Client, Clients
from discorder.facade.commands import CommandSender
from discorder.facade.places import Places
from discorder.guilds.feed import Feed
from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus

LONGEST_REASON = 200  # characters of a refusal, which may list intents


@dataclass(slots=True)
class SessionCounts:
    """How often a bot identified, resumed and got op 9. ``library``: what it said of itself at its last IDENTIFY."""

    library: str = ""
    identifies: int = 0
    resumes: int = 0
    invalid_sessions: int = 0


class CountsByShard:
    """The counts of every bot on every shard. A shard that is None: an op 9 for a session id without a shard.

    ``refused``: why the last IDENTIFY of a bot was refused; a bot that has had a session since then is not in it.
    """

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self._counts: dict[tuple[str, int | None], SessionCounts] = {}

    def identified(self, client: str, shard: int, library: str) -> None:
        """Count a session that begins."""
        counts = self.of(client, shard)
        counts.library = library
        counts.identifies += 1
        self.refused.pop(client, None)

    def of(self, client: str, shard: int | None) -> SessionCounts:
        """Return the counts of one bot on one shard, which may be changed."""
        return self._counts.setdefault((client, shard), SessionCounts())

    def total(self, client: str) -> SessionCounts:
        """Return the sums over all shards of one bot. Thread-safe."""
        total = SessionCounts()
        for (name, _), counts in list(self._counts.items()):
            if name == client:
                total.identifies += counts.identifies
                total.resumes += counts.resumes
                total.invalid_sessions += counts.invalid_sessions
        return total


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
    commands: CommandSender
    places: Places
    clock: Clock
    heartbeat: float = 15.0
    live: LiveSessions = field(default_factory=LiveSessions)
    counts: CountsByShard = field(default_factory=CountsByShard)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self.clock.now().timestamp()


def describe_bots(services: FacadeServices, url: str, opened_at: float) -> FacadeStatus:
    """Return the sessions that have a connection, and the bots that may connect.

    ``url``: where the façade listens; ``opened_at``: since when, in seconds since the epoch.

    Thread-safe. Costs a few microseconds per session.
    """
    now = services.now()
    sessions = [one.status(now, url) for one in services.live.all()]
    sessions.sort(key=attrgetter("client", "shard"))
    by_client = {name: list(of_one) for name, of_one in groupby(sessions, attrgetter("client"))}
    clients = [
        _client(services, one, max(0.0, now - opened_at), by_client.get(one.name, ())) for one in services.clients
    ]
    return FacadeStatus(
        url,
        tuple(sessions),
        tuple(one for one in clients if one.name != REAL or one.seen_at is not None),
    )


def _client(
    services: FacadeServices, client: Client, open_for: float, sessions: Sequence[FacadeSessionStatus]
) -> FacadeClientStatus:
    now = services.now()
    seen_at = now if sessions else services.places.seen_at(client.name)
    total = services.counts.total(client.name)
    return FacadeClientStatus(
        name=client.name,
        sessions=len(sessions),
        lag=max((one.lag for one in sessions), default=0),
        lag_s=max((one.lag_s for one in sessions), default=0.0),
        seen_at=None if seen_at is None else datetime.fromtimestamp(seen_at, UTC),
        away_s=max(0.0, min(open_for, now - (seen_at or 0.0))),
        catch_up=client.catch_up,
        identifies=total.identifies,
        resumes=total.resumes,
        invalid_sessions=total.invalid_sessions,
        refused=services.counts.refused.get(client.name, "")[:LONGEST_REASON],
    )
