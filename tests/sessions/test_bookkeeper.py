"""The book as one process keeps it: every change once, whatever the store does, and an answer for everybody who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from discorder.clock import settle_loop
from discorder.errors import StoreUnavailable
from discorder.sessions import Book
from discorder.sessions.bookkeeper import Bookkeeper
from tests.sessions.shaky import ShakyStore

T = TypeVar("T")


@pytest.fixture
def keeper() -> Bookkeeper:
    return Bookkeeper(ShakyStore())


async def soon(awaitable: Awaitable[T]) -> T:
    """What a bookkeeper answers; one that forgets to answer would be waited for without an end."""
    return await asyncio.wait_for(awaitable, 5.0)


async def test_whoever_asks_for_a_change_gets_its_own_result(keeper: Bookkeeper) -> None:
    """Several at once, and one after the other; the book is what all of them have made of it."""
    asking = [keeper.change(lambda book, n=n: (book.sent(n, "t", 1.0), n)) for n in range(3)]  # type: ignore[misc]
    assert await soon(asyncio.gather(*asking)) == [0, 1, 2]
    assert await soon(keeper.change(lambda book: (book, sorted(book.slots)))) == [0, 1, 2]
    assert sorted(keeper.book.slots) == [0, 1, 2]


async def test_a_change_that_raises_is_told_to_who_asked_and_the_next_one_works(keeper: Bookkeeper) -> None:
    def broken(book: Book) -> tuple[Book, None]:
        raise LookupError(len(book.slots))

    with pytest.raises(LookupError):
        await soon(keeper.change(broken))
    assert await soon(keeper.change(lambda book: (book, "done"))) == "done"


async def test_who_no_longer_waits_for_a_change_does_not_disturb_the_others(keeper: Bookkeeper) -> None:
    one, other = (asyncio.create_task(keeper.change(lambda book: (book, "done"))) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert await soon(other) == "done"


async def test_what_is_owed_is_written_once() -> None:
    """Also what was recorded while the store could not be used; until then it stays owed."""
    store = ShakyStore()
    keeper = Bookkeeper(store)
    made: list[str] = []

    def change(name: str) -> Callable[[Book], Book]:
        def made_so(book: Book) -> Book:
            made.append(name)
            return book.sent(0, name, 1.0)

        return made_so

    store.broken = True
    await soon(keeper.record(change("while it was broken")))
    keeper.owe(change("paid without it"))
    assert made == ["while it was broken"], "here alone"
    made.clear()
    store.broken = False
    for _ in range(2):
        assert await soon(keeper.change(lambda book: (book, len(book.slots)))) == 1
    assert made == ["while it was broken", "paid without it"]


async def test_everybody_in_a_transaction_that_fails_is_told() -> None:
    """Who is not would wait for ever, and the end of the gate with it."""
    store = ShakyStore()
    store.broken = True
    keeper = Bookkeeper(store)
    asking = [asyncio.create_task(keeper.change(lambda book: (book, None))) for _ in range(3)]
    await settle_loop()
    assert [type(one.exception()) if one.done() else "waits" for one in asking] == [StoreUnavailable] * 3


async def test_what_is_owed_since_a_transaction_began_is_not_taken_for_written() -> None:
    """Another request gave up on the store and paid without it while this one was being written."""
    store = ShakyStore()
    keeper = Bookkeeper(store)
    store.goes_on.clear()
    writing = asyncio.create_task(keeper.change(lambda book: (book, None)))
    await settle_loop()
    assert store.asked == 1
    keeper.owe(lambda book: Book(book.ledger.debited("paid without the store", 1.0), book.slots))
    store.goes_on.set()
    await soon(writing)
    await soon(keeper.change(lambda book: (book, None)))
    assert "paid without the store" in (await store.transact(lambda book: (book, book))).ledger.debits
