"""A store that fails or hangs when the test requests it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from discorder.errors import StoreUnavailable
from discorder.sessions import Ledger, MemorySessionStore

T = TypeVar("T")


class ShakyStore(MemorySessionStore):
    """Transactions fail while ``broken`` and hang until ``goes_on`` is set. ``asked`` and ``recorded`` count the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.recorded = 0
        self.broken = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def record(self, change: Callable[[Ledger], Ledger]) -> None:
        self.recorded += 1
        super().record(change)

    async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
        self.asked += 1
        await self.goes_on.wait()
        if self.broken:
            msg = "disk full"
            raise StoreUnavailable(msg)
        return await super().transact(change)
