"""A ticket says once what became of it, and the bookkeeper writes that once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from discorder.clock import FakeClock
from discorder.errors import StoreUnavailable
from discorder.sessions import Book, IdentifyGate, MemorySessionStore, StartLimit, Ticket
from discorder.sessions.bookkeeper import Bookkeeper

T = TypeVar("T")


class Noting(MemorySessionStore):
    """Notes of each transaction whether it waits for the disk; fails while it is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: list[bool] = []
        self.broken = False

    async def transact(self, change: Callable[[Book], tuple[Book, T]], *, durable: bool = True) -> T:
        if self.broken:
            msg = "disk full"
            raise StoreUnavailable(msg)
        self.durable.append(durable)
        return await super().transact(change, durable=durable)


class Heard:
    """A ticket, and what it said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ticket = Ticket(3, 1, "t", on_sent=self.sent, on_refund=self.refunded)

    def sent(self, ticket: Ticket) -> None:
        self.said.append(f"sent {ticket.id}")

    def refunded(self, ticket: Ticket) -> None:
        self.said.append(f"refunded {ticket.id}")


def test_what_was_sent_is_told_once_and_never_given_back() -> None:
    it = Heard()
    it.ticket.sent()
    it.ticket.sent()
    it.ticket.refund()
    assert it.said == ["sent t"]
    assert repr(it.ticket) == "Ticket(shard_id=3, bucket=1, sent)"


def test_what_was_given_back_is_told_once_and_must_not_be_sent() -> None:
    it = Heard()
    it.ticket.refund()
    it.ticket.refund()
    with pytest.raises(RuntimeError, match="shard 3 was sent on a ticket that had been refunded"):
        it.ticket.sent()
    assert it.said == ["refunded t"]
    assert repr(it.ticket) == "Ticket(shard_id=3, bucket=1, refunded)"


async def test_only_the_debit_waits_for_the_disk(clock: FakeClock) -> None:
    """What became of it need not: it was paid for before, and READY must not stand behind it."""
    store = Noting()
    gate = IdentifyGate(clock, store)
    gate.set_limits(StartLimit(1000, 1000, 3_600_000, 1))
    await gate.flush()
    store.durable.clear()
    ticket = await gate.admit(0)
    assert isinstance(ticket, Ticket)
    assert store.durable == [True]
    ticket.sent()
    await gate.flush()
    assert store.durable == [True, False]
    await gate.close()


@pytest.fixture
def keeper() -> Bookkeeper:
    return Bookkeeper(Noting())


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
    store = Noting()
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
