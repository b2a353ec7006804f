"""Keep sessions and the identify ledger in memory: `SessionStore` without a file, for one process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import TypeVar

from discorder.errors import StoreUnavailable
from discorder.logs import logger
from discorder.sessions.ledger import Ledger
from discorder.sessions.store import (
    Health,
    Ordinals,
    Shard,
    StoredSession,
    StoreState,
    layout_order,
    superseded,
)

T = TypeVar("T")


class MemorySessionStore:
    """Keeps sessions while the process runs. ``reason`` says why no file is used."""

    def __init__(self, reason: str = "sessions are kept in memory only: a restart identifies anew") -> None:
        self._health = Health(StoreState.MEMORY, reason)
        self._sessions: dict[Shard, StoredSession] = {}
        self._pauses: dict[Shard, datetime] = {}
        self._ordinals = Ordinals()
        self._ledger = Ledger()
        self._closed = False

    @property
    def health(self) -> Health:
        return self._health

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    async def open(self) -> None:
        """Do nothing."""

    async def hold(
        self,
        shards: Iterable[Shard],  # noqa: ARG002  # no other process can want them
        *,
        take_over: bool = False,
        patience: float = 0.0,
    ) -> None:
        """Warn that no owner can be asked or waited for: no other process has this store."""
        if take_over or patience > 0:
            logger.warning("Nobody can be asked to hand over, or waited for", reason=self._health.reason)

    def release(self, shards: Collection[Shard]) -> None:
        """Do nothing: what is stored waits for this process to hold them again."""

    async def load_all(self) -> list[StoredSession]:
        return sorted(self._sessions.values(), key=layout_order)

    def save(self, session: StoredSession, *, now: bool = False) -> None:  # noqa: ARG002  # memory is always now
        for shard in superseded(session.shard, self._sessions):
            del self._sessions[shard]
        self._sessions[session.shard] = session
        self._ordinals.note(session.session_id, session.ordinal)

    def forget(self, shard_id: int, shard_count: int) -> None:
        self._sessions.pop((shard_id, shard_count), None)

    def pause(self, shard_id: int, shard_count: int, since: datetime) -> None:
        self._pauses[shard_id, shard_count] = since

    def unpause(self, shard_id: int, shard_count: int) -> None:
        self._pauses.pop((shard_id, shard_count), None)

    async def load_pauses(self) -> dict[Shard, datetime]:
        return dict(self._pauses)

    def ordinal(self, session_id: str) -> int:
        return self._ordinals.take(session_id)

    async def flush(self) -> None:
        """Do nothing: all is written."""

    async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
        if self._closed:
            msg = "the session store is closed"
            raise StoreUnavailable(msg)
        self._ledger, result = change(self._ledger)
        return result

    def record(self, change: Callable[[Ledger], Ledger]) -> None:
        self._ledger = change(self._ledger)

    async def close(self) -> None:
        self._closed = True
