"""Define a stored session and the `SessionStore` protocol, and what every store does alike.

Every store passes tests/contracts/test_session_store_contract.py. The order of use is open, hold, load_all, save …, close; hold
and release may come again at any time. All methods are called on one event loop. No store holds a token: `bot_key` names a bot.
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
from pathlib import Path
from typing import Protocol, TypeVar

from discorder.sessions.ledger import Ledger
from discorder.wire import session_label

T = TypeVar("T")
Shard = tuple[int, int]  # (id, count), as IDENTIFY has it

MAX_SEQ = 2**63 - 1  # what SQLite and every reader of the bus can hold


@dataclass(frozen=True, slots=True)
class UnreportedLoss:
    """A session (its label) that ended before a required publisher had its events after ``seq`` and its gap record.

    ``since`` (aware) is when it ended. ``shard``: the shard that it belonged to.
    """

    session: str
    shard: Shard
    seq: int
    since: datetime


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as it outlives its process.

    ``seq`` is the delivered one: every required publisher has accepted all events up to it; READY's sequence − 1 while READY is
    not accepted. ``last_ready`` is the ``d`` of the shard's last READY, as it came, ``ready_seq`` its sequence. ``updated_at`` is
    aware. ``intents`` and ``token_key`` (a `token_key`, "" if unknown) are those of its IDENTIFY: a resumed session keeps its
    intents, so that one with other intents than the configured ones must not be resumed. ``unreported``: sessions before it whose
    loss was not published, while its READY is not delivered. ``ordinal`` numbers the sessions that had this id, from 0.
    ``trusted`` is False for a row without this token's signature: it is never resumed, but its loss is published. Raises
    ValueError for what cannot be a session.
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
    unreported: tuple[UnreportedLoss, ...] = ()
    ordinal: int = 0
    ready_seq: int = 1
    trusted: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.shard_id < self.shard_count:
            msg = f"there is no shard {self.shard_id} of {self.shard_count}"
            raise ValueError(msg)
        in_range = 0 <= self.ready_seq <= MAX_SEQ and self.ready_seq - 1 <= self.seq <= MAX_SEQ and self.ordinal >= 0
        if not self.session_id or not in_range or self.updated_at.tzinfo is None:
            msg = f"shard {self.shard_id}: not a session that can be stored (seq {self.seq}, updated {self.updated_at})"
            raise ValueError(msg)

    @property
    def shard(self) -> Shard:
        return self.shard_id, self.shard_count

    @property
    def delivered(self) -> int | None:
        """Return ``seq``; None while READY is not delivered."""
        return None if self.seq < self.ready_seq else self.seq

    @property
    def label(self) -> str:
        """Return the name of the session outside the process."""
        return session_label(self.session_id, self.ordinal)


class StoreState(StrEnum):
    """OK and SET_ASIDE store; MEMORY keeps nothing beyond the process; FAILING is retried; UNUSABLE is given up."""

    OK = "ok"
    SET_ASIDE = "set aside"
    MEMORY = "in memory"
    FAILING = "failing"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a store; ``reason`` is a sentence for the status page, "" if all is well."""

    state: StoreState
    reason: str = ""

    @property
    def durable(self) -> bool:
        """Whether a session that is saved now survives the process."""
        return self.state in {StoreState.OK, StoreState.SET_ASIDE}

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else str(self.state)


@dataclass(frozen=True, slots=True)
class SavedSessions:
    """How many of the present sessions are stored, when the last one was written (UTC), and the file (None: memory)."""

    stored: int
    last_saved_at: datetime | None
    path: Path | None


class SessionStore(Protocol):
    """Sessions, paused shards and identify ledger of one bot. Only `open`, `hold` and `transact` raise for a store that fails."""

    @property
    def health(self) -> Health: ...

    @property
    def ledger(self) -> Ledger:
        """The ledger as it was read last, with every change that was recorded since."""
        ...

    async def open(self) -> None:
        """Open or create the store. Raises UnusableFile when there is none at its place and none can be created."""
        ...

    async def hold(self, shards: Iterable[Shard], *, take_over: bool = False, patience: float = 0.0) -> None:
        """Own ``shards`` until `close`, all or none: no other process with this store may run an overlapping one.

        Waits up to ``patience`` seconds for the owner to leave; ``take_over`` asks it to. A process that does not know its layout
        yet holds (0, 1), which overlaps with every shard. Raises StoreLocked, UnusableFile.
        """
        ...

    def release(self, shards: Collection[Shard]) -> None:
        """Own ``shards`` no more: another process may hold them, and finds what was flushed. What was not is dropped."""
        ...

    async def load_all(self) -> list[StoredSession]:
        """Return every session of this bot, whatever its layout, in order of (count, id)."""
        ...

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        """Store ``session``, within a fraction of a second or at once. Never blocks, and never raises for a failing store.

        Replaces the shard's older one, and sessions of other layouts that overlap with it.
        """
        ...

    def forget(self, shard_id: int, shard_count: int) -> None:
        """Remove a session that Discord has ended; no error if there is none."""
        ...

    def pause(self, shard_id: int, shard_count: int, since: datetime) -> None:
        """Store at once that an operator paused a shard at ``since`` (aware). Never blocks, never raises for a failing store."""
        ...

    def unpause(self, shard_id: int, shard_count: int) -> None:
        """Remove what `pause` has stored; no error if there is nothing."""
        ...

    async def load_pauses(self) -> dict[Shard, datetime]:
        """Return the paused shards of this bot, whatever their layout, and since when."""
        ...

    def ordinal(self, session_id: str) -> int:
        """Return the `StoredSession.ordinal` of a session that begins now; to be called once for each, after a first load.

        0 unless this bot had a session with this id before, on whatever shard and in whatever process.
        """
        ...

    async def flush(self) -> None:
        """Return once everything saved so far is written, or a try has failed, which `health` shows."""
        ...

    async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
        """Apply ``change``, a pure function, to the ledger while no other process can: on return the disk has the new one.

        ``change`` may run on another thread; changes that wait together share one transaction. A store that was lost and begun
        anew gets back the ledger that this process knows. Raises StoreUnavailable: then nothing was changed.
        """
        ...

    def record(self, change: Callable[[Ledger], Ledger]) -> None:
        """Apply ``change`` to `ledger` now, and write it without waiting; while the store fails, it is kept for a later try.

        Never raises for a failing store. Every change reaches the store before those of a later `transact`.
        """
        ...

    async def close(self) -> None:
        """Flush, and release the shards and every resource. Idempotent."""
        ...


class Ordinals:
    """Number the sessions that share one session id, so that each gets a label of its own.

    Discord never repeats a session id. A test server that was restarted does, and starts again with sequence 1: under the old
    label every store, cursor and sink would take its events for ones that it has.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}  # ordinals, by the label of ordinal 0

    def take(self, session_id: str) -> int:
        """Return the ordinal of a session that begins now: 0 for an id that was never seen, else one more than the last."""
        label = session_label(session_id)
        ordinal = self._last[label] = self._last.get(label, -1) + 1
        return ordinal

    def note(self, session_id: str, ordinal: int) -> None:
        """Remember a session that is stored."""
        self.note_label(session_label(session_id), ordinal)

    def note_label(self, label: str, ordinal: int) -> None:
        """Remember what a file knows; ``label`` is that of ordinal 0."""
        self._last[label] = max(ordinal, self._last.get(label, -1))


def bot_key(token: str) -> str:
    """Return the name of a bot in a store: the SHA-256 of its id, which is the base64 of a token's first part.

    For a token of another form (in tests) it is the SHA-256 of that first part. The token itself is never stored.
    """
    head = token.removeprefix("Bot ").strip().partition(".")[0]
    try:
        bot_id = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        bot_id = ""
    return hashlib.sha256((bot_id if bot_id.isdigit() else head).encode()).hexdigest()


def token_key(token: str) -> str:
    """Return 16 hex digits of the token's SHA-256. They distinguish two tokens of one bot: a reset ends every session."""
    return hashlib.sha256(token.removeprefix("Bot ").strip().encode()).hexdigest()[:16]


def overlap(one: Shard, other: Shard) -> bool:
    """Whether both shards get some guild: ``guild_id >> 22`` modulo the count (docs/protocol.md#sharding)."""
    return (one[0] - other[0]) % math.gcd(one[1], other[1]) == 0


def superseded(shard: Shard, stored: Collection[Shard]) -> list[Shard]:
    """Return those of ``stored`` that belong to another layout and end where ``shard`` begins."""
    return [other for other in stored if other[1] != shard[1] and overlap(shard, other)]


def fitting(
    sessions: Iterable[StoredSession], shard_count: int, intents: int | None, token: str = ""
) -> dict[int, StoredSession]:
    """Return the trusted sessions of one layout, by shard id; with ``token``, a `token_key`, none that another one identified."""
    return {
        session.shard_id: session
        for session in sessions
        if session.trusted
        and session.shard_count == shard_count
        and (intents is None or session.intents == intents)
        and (not token or session.token_key in {"", token})
    }


def layout_order(session: StoredSession) -> Shard:
    return session.shard_count, session.shard_id
