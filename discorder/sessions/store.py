"""What is remembered of each shard's session, the `SessionStore` seam, and the store that forgets with its process.

Every store passes tests/contracts/test_session_store_contract.py. The order of use is open, hold, load, save …, close; all
methods are called on one event loop. Must not: know a file format (sqlite.py), or hold a token: bots are told apart by
`bot_key`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from discorder.errors import StoreUnavailable
from discorder.logs import logger
from discorder.sessions.book import Book

T = TypeVar("T")
Shard = tuple[int, int]  # (id, count), as IDENTIFY has it

MAX_SEQ = 2**63 - 1  # what SQLite and every reader of the bus can hold


@dataclass(frozen=True, slots=True)
class Untold:
    """A session (its label) that ended, of which a publisher that must not lose lacks what came after ``seq`` and the gap.

    ``since`` (aware) is when it ended. ``shard``: the one that it belonged to.
    """

    session: str
    shard: Shard
    seq: int
    since: datetime


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as it outlives its process.

    ``seq`` is the *delivered* one: everything up to it is accepted by every required publisher. ``last_ready`` is the ``d`` of
    the shard's last READY, as it came. ``updated_at`` is aware. ``intents`` are those it was identified with: a resumed session
    keeps them, so one with other intents than the configuration's must not be resumed. ``token_key`` is the `token_key` of the
    token it was identified with, "" when that is not known. ``untold``: the sessions before it, while its READY is not delivered:
    a process that takes it over must tell of them. Raises ValueError for what cannot be a session.
    """

    shard_id: int
    shard_count: int
    session_id: str
    resume_url: str
    seq: int
    last_ready: bytes | None = field(repr=False)
    updated_at: datetime
    intents: int = 0
    token_key: str = ""
    untold: tuple[Untold, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.shard_id < self.shard_count:
            msg = f"there is no shard {self.shard_id} of {self.shard_count}"
            raise ValueError(msg)
        if not self.session_id or not 0 <= self.seq <= MAX_SEQ or self.updated_at.tzinfo is None:
            msg = f"shard {self.shard_id}: not a session that can be stored (seq {self.seq}, updated {self.updated_at})"
            raise ValueError(msg)

    @property
    def shard(self) -> Shard:
        return self.shard_id, self.shard_count


class StoreState(StrEnum):
    """OK and SET_ASIDE store; MEMORY keeps nothing beyond the process; FAILING is retried; UNUSABLE is given up."""

    OK = "ok"
    SET_ASIDE = "set aside"
    MEMORY = "in memory"
    FAILING = "failing"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Health:
    """How the store does; ``reason`` is a sentence for the status page, "" when there is nothing to say."""

    state: StoreState
    reason: str = ""

    @property
    def durable(self) -> bool:
        """What is saved now survives the process."""
        return self.state in {StoreState.OK, StoreState.SET_ASIDE}

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)


class SessionStore(Protocol):
    """Sessions and the identify book of one bot. Only `open` and `hold` raise for a store that is out of order."""

    @property
    def health(self) -> Health: ...

    async def open(self) -> None:
        """Make it usable. Raises UnusableFile when there is no store at the place and none can be made."""
        ...

    async def hold(self, shards: Iterable[Shard], *, take_over: bool = False, patience: float = 0.0) -> None:
        """Own ``shards`` until `close`: nobody else with this store may run an overlapping one. All or none.

        Waits up to ``patience`` seconds for the owner to leave; ``take_over`` asks it to. An owner of a whole layout, or one who
        does not know the layout yet, holds (0, 1), which overlaps with everything. Raises StoreLocked, UnusableFile.
        """
        ...

    async def load(self, shard_count: int, *, intents: int | None = None) -> dict[int, StoredSession]:
        """The sessions of this layout by shard id; with ``intents``, only those identified with them. The others stay."""
        ...

    async def load_all(self) -> list[StoredSession]:
        """Every session kept for this bot, whatever its layout, in order of (count, id)."""
        ...

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        """Remember ``session``, within about a second or at once. Never blocks, never raises for a failing store.

        Replaces the shard's older one, and sessions of other layouts that overlap with it.
        """
        ...

    def forget(self, shard_id: int, shard_count: int) -> None:
        """Remove a session that Discord has ended; no error if there is none."""
        ...

    async def flush(self) -> None:
        """Return once everything saved so far was written, or the try has failed (`health` tells)."""
        ...

    async def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool = True) -> T:
        """Apply a pure function to the book, alone: on return the new book survives this process, if ``durable`` the machine too.

        ``change`` may run on another thread. Raises StoreUnavailable, and then nothing was changed.
        """
        ...

    async def close(self) -> None:
        """Flush, let go of the shards and of every resource; idempotent."""
        ...


class MemorySessionStore:
    """Sessions for as long as the process lives. ``reason`` says why nothing better is used."""

    def __init__(self, reason: str = "sessions are kept in memory only: a restart identifies anew") -> None:
        self._health = Health(StoreState.MEMORY, reason)
        self._sessions: dict[Shard, StoredSession] = {}
        self._book = Book()
        self._closed = False

    @property
    def health(self) -> Health:
        return self._health

    async def open(self) -> None:
        """Nothing to open."""

    async def hold(
        self,
        shards: Iterable[Shard],  # noqa: ARG002  # nobody contests them
        *,
        take_over: bool = False,
        patience: float = 0.0,
    ) -> None:
        """Nobody else can see this store, so that nobody can be waited for or asked."""
        if take_over or patience > 0:
            logger.warning("Nobody can be asked to hand over, or waited for", reason=self._health.reason)

    async def load(self, shard_count: int, *, intents: int | None = None) -> dict[int, StoredSession]:
        return fitting(self._sessions.values(), shard_count, intents)

    async def load_all(self) -> list[StoredSession]:
        return sorted(self._sessions.values(), key=layout_order)

    def save(self, session: StoredSession, *, now: bool = False) -> None:  # noqa: ARG002  # memory is always now
        for shard in superseded(session.shard, self._sessions):
            del self._sessions[shard]
        self._sessions[session.shard] = session

    def forget(self, shard_id: int, shard_count: int) -> None:
        self._sessions.pop((shard_id, shard_count), None)

    async def flush(self) -> None:
        """Nothing is pending."""

    async def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool = True) -> T:  # noqa: ARG002
        if self._closed:
            msg = "the session store is closed"
            raise StoreUnavailable(msg)
        self._book, result = change(self._book)
        return result

    async def close(self) -> None:
        self._closed = True


def bot_key(token: str) -> str:
    """The name of a bot in a store: the SHA-256 of its id, which is the base64 of a token's first part.

    A token of another form (a test's) is told apart by the SHA-256 of that first part. The token itself is never stored.
    """
    head = token.removeprefix("Bot ").strip().partition(".")[0]
    try:
        bot_id = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        bot_id = ""
    return hashlib.sha256((bot_id if bot_id.isdigit() else head).encode()).hexdigest()


def token_key(token: str) -> str:
    """Tells two tokens of one bot apart: a reset ends every session. Not the token: 16 hex digits of its SHA-256."""
    return hashlib.sha256(token.removeprefix("Bot ").strip().encode()).hexdigest()[:16]


def overlap(one: Shard, other: Shard) -> bool:
    """Is there a guild that both shards would get? ``guild_id >> 22`` modulo the count (gateway-protocol.md §8)."""
    return (one[0] - other[0]) % math.gcd(one[1], other[1]) == 0


def superseded(shard: Shard, stored: Collection[Shard]) -> list[Shard]:
    """Which of ``stored`` belong to another layout and end where ``shard`` begins."""
    return [other for other in stored if other[1] != shard[1] and overlap(shard, other)]


def fitting(
    sessions: Iterable[StoredSession], shard_count: int, intents: int | None, token: str = ""
) -> dict[int, StoredSession]:
    """The sessions of one layout, by shard id; with ``token``, a `token_key`, only those that no other one identified."""
    return {
        session.shard_id: session
        for session in sessions
        if session.shard_count == shard_count
        and (intents is None or session.intents == intents)
        and (not token or session.token_key in {"", token})
    }


def layout_order(session: StoredSession) -> Shard:
    return session.shard_count, session.shard_id
