"""Look up Discord's session start limit, and notice when another process uses the token."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from discorder.clock import Clock, within
from discorder.errors import DiscorderError, StoreUnavailable
from discorder.logs import logger
from discorder.sessions.identify_budget import StartLimit
from discorder.sessions.ledger import Ledger
from discorder.sessions.store import SessionStore

LOOK_UP_WITHIN: Final = 10.0  # seconds that one look-up may take here, and between two of them


@dataclass(frozen=True, slots=True)
class OtherUse:
    """``remaining`` fell by ``identifies`` more than this ledger's own IDENTIFYs explain, last seen at ``seen_at`` (UTC).

    Counted since this process began.
    """

    identifies: int
    seen_at: datetime


class Allowance:
    """The last answer of ``GET /gateway/bot``, and the way to get a newer one.

    ``look_up`` may raise any DiscorderError or OSError: then the last answer stays. Without it only `accept` sets one.
    """

    def __init__(self, clock: Clock, store: SessionStore, look_up: Callable[[], Awaitable[StartLimit]] | None) -> None:
        self.limit: StartLimit | None = None
        self.other_use: OtherUse | None = None
        self._clock = clock
        self._store = store
        self._look_up = look_up
        self._looked_up_at = float("-inf")  # monotonic, of the answer
        self._asked_at = float("-inf")  # monotonic, of the request
        self._looking: asyncio.Task[StartLimit] | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    @property
    def age(self) -> float:
        """Seconds since the last answer."""
        return self._clock.monotonic() - self._looked_up_at

    def close(self) -> None:
        """Cancel the look-up that runs, and begin no other."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()

    async def refresh(self, older_than: float) -> StartLimit | None:
        """Look up again if the last answer is older than that, or its reset has passed. Returns the answer, if one came."""
        if self._look_up is None:
            return None
        async with self._turn:
            now = self._clock.monotonic()
            # 0: no window runs
            reset_passed = self.limit is not None and 0 < self.limit.reset_after_ms <= self.age * 1000
            asked_just_now = now - self._asked_at < LOOK_UP_WITHIN
            if self._closed or (self.age < older_than and not reset_passed) or asked_just_now:
                return None
            self._asked_at, asked_at = now, self._wall()
            self._looking = asyncio.ensure_future(within(self._clock, LOOK_UP_WITHIN, self._look_up()))
            await asyncio.wait({self._looking})
            looking, self._looking = self._looking, None
            if looking.cancelled():
                return None
            error = looking.exception()
            if isinstance(error, DiscorderError | OSError):  # TimeoutError is an OSError
                logger.info("Could not look up the identify budget", error=str(error))
                return None
            limit = _counted_from(looking.result(), self._clock.monotonic() - now)
            await self.accept(limit, asked_at)
            return limit

    async def accept(self, limit: StartLimit, at: float) -> None:
        """Reconcile the ledger with an answer. ``at``: wall time of the request."""

        def reconciled(ledger: Ledger) -> Ledger:
            return ledger.reconciled(limit, at=at, now=self._wall())

        try:
            await self._store.transact(lambda ledger: (reconciled(ledger), None))
        except StoreUnavailable:
            self._store.record(reconciled)
        self.limit = limit
        self._looked_up_at = self._clock.monotonic()
        look_up = self._store.ledger.look_up
        if look_up is not None and look_up.at == at and look_up.foreign:
            self._note_other_use(look_up.foreign, limit.remaining)

    def _note_other_use(self, identifies: int, remaining: int) -> None:
        before = 0 if self.other_use is None else self.other_use.identifies
        self.other_use = OtherUse(before + identifies, self._clock.now())
        logger.warning(
            "Another process uses this token", identifies=identifies, in_all=before + identifies, remaining=remaining
        )

    def _wall(self) -> float:
        return self._clock.now().timestamp()


def _counted_from(limit: StartLimit, seconds: float) -> StartLimit:
    """Return ``limit`` with its reset counted from the answer, which took ``seconds``: late rather than early."""
    if limit.reset_after_ms == 0:
        return limit
    return replace(limit, reset_after_ms=limit.reset_after_ms + math.ceil(seconds * 1000))
