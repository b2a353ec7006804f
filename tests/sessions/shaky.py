"""A store that fails or hangs when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from discorder.errors import StoreUnavailable
from discorder.sessions import Book, MemorySessionStore

T = TypeVar("T")


class ShakyStore(MemorySessionStore):
    """Fails while ``broken``, hangs until ``goes_on`` is set. ``asked`` counts calls, ``durable`` lists what they asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.durable: list[bool] = []
        self.broken = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool = True) -> T:
        self.asked += 1
        await self.goes_on.wait()
        if self.broken:
            msg = "disk full"
            raise StoreUnavailable(msg)
        self.durable.append(durable)
        return await super().transact(change, durable=durable)
