"""The book as one process keeps it: changes go to the store, several in one transaction, and none gets lost.

While the store cannot be used, the last book that was seen goes on in memory, and what happened meanwhile is owed to the
store. A store that was lost (damaged, removed) and begun anew gets back what this process knows: a ledger that forgot what was
spent would pay twice. Must not: decide whether a ticket is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from discorder.errors import StoreUnavailable
from discorder.sessions.book import Book
from discorder.sessions.store import SessionStore

T = TypeVar("T")
Change = Callable[[Book], tuple[Book, T]]


@dataclass(frozen=True, slots=True)
class _Order:
    """A change that was asked for, and who waits for its result."""

    change: Change[Any]
    durable: bool
    answer: asyncio.Future[Any]


class Bookkeeper:
    """Changes are applied in the order in which they were asked for. To be used on one loop."""

    def __init__(self, store: SessionStore) -> None:
        self.book = Book()  # the last one seen, and the only one while the store cannot be used
        self._store = store
        self._orders: list[_Order] = []
        self._owed: list[Callable[[Book], Book]] = []  # what the store has not got yet, in order
        self._writing: asyncio.Task[None] | None = None

    async def change(self, change: Change[T], *, durable: bool = True) -> T:
        """Change the store's book; see `SessionStore.transact`. Raises StoreUnavailable: nothing was changed then."""
        loop = asyncio.get_running_loop()
        order = _Order(change, durable, loop.create_future())
        self._orders.append(order)
        if self._writing is None:
            self._writing = loop.create_task(self._write(), name="identify-book")
        result: T = await order.answer
        return result

    async def record(self, change: Callable[[Book], Book]) -> None:
        """Make a change that must not get lost: the store gets it later if it cannot be used now.

        It does not wait for the disk: it was paid for before, and READY, which is stored next, must not stand behind it.
        """
        try:
            await self.change(lambda book: (change(book), None), durable=False)
        except StoreUnavailable:
            self.book = change(self.book)
            self.owe(change)

    def owe(self, change: Callable[[Book], Book]) -> None:
        """``change`` is in `book` already; the store gets it as soon as it can be used."""
        self._owed.append(change)

    async def _write(self) -> None:
        """All that is waiting in one transaction: a round of identify buckets costs one wait for the disk, not sixteen."""
        try:
            while self._orders:
                orders, self._orders = self._orders, []
                try:
                    results = await self._transact(orders)
                except Exception as error:  # noqa: BLE001  # it belongs to those who asked
                    for order in orders:
                        if not order.answer.done():
                            order.answer.set_exception(error)
                else:
                    for order, result in results:
                        if not order.answer.done():
                            order.answer.set_result(result)
        finally:
            self._writing = None

    async def _transact(self, orders: list[_Order]) -> list[tuple[_Order, Any]]:
        owed, known = tuple(self._owed), self.book

        def whole(book: Book) -> tuple[Book, tuple[Book, list[tuple[_Order, Any]]]]:
            book = book.completed_from(known)
            for debt in owed:
                book = debt(book)
            results = []
            for order in orders:
                book, result = order.change(book)
                results.append((order, result))
            return book, (book, results)

        self.book, results = await self._store.transact(whole, durable=any(order.durable for order in orders))
        del self._owed[: len(owed)]
        return results
