"""A ticket says once what became of it, and the bookkeeper writes that once."""

from __future__ import annotations

from collections.abc import Callable
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
    await keeper.record(change("while it was broken"))
    keeper.owe(change("paid without it"))
    assert made == ["while it was broken"], "here alone"
    made.clear()
    store.broken = False
    for _ in range(2):
        assert await keeper.change(lambda book: (book, len(book.slots))) == 1
    assert made == ["while it was broken", "paid without it"]
