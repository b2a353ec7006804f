"""The gate with a store that hangs or fails, and with limits that change in use."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

from discorder.clock import FakeClock, settle_loop
from discorder.sessions import IdentifyGate, Ledger, MemorySessionStore, Refusal, RefusalCause, Slot, StartLimit, Ticket
from tests.sessions.shaky import ShakyStore

LIMIT = StartLimit(1000, 1000, 3_600_000, 1)


async def opened(clock: FakeClock, store: MemorySessionStore, limit: StartLimit = LIMIT) -> IdentifyGate:
    """A gate that knows its limits, on a store that knows them too."""
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit)
    await gate.flush()
    return gate


async def ledger_of(store: MemorySessionStore) -> Ledger:
    return await store.transact(lambda ledger: (ledger, ledger))


async def test_a_store_that_hangs_sends_the_shard_away_within_a_minute_and_costs_nothing(clock: FakeClock) -> None:
    """The gate refunds a debit that is written later, because its request is no longer waiting."""
    store = ShakyStore()
    gate = await opened(clock, store)
    store.goes_on.clear()
    asking = asyncio.create_task(gate.admit(0))
    await clock.advance(59.0)
    assert not asking.done()
    await clock.advance(2.0)
    answer = asking.result()
    assert isinstance(answer, Refusal)
    assert answer.cause is RefusalCause.QUEUE
    assert "it is in use" in answer.reason
    assert answer.until > clock.now()
    store.goes_on.set()
    await gate.flush()
    ledger = await ledger_of(store)
    assert not ledger.debits
    assert not any(slot.holder for slot in ledger.slots.values())
    await gate.close()


async def test_what_is_paid_without_the_store_is_owed_to_it_before_it_is_used(clock: FakeClock) -> None:
    """Otherwise another process could spend the same IDENTIFY."""
    store = ShakyStore()
    gate = await opened(clock, store)
    store.broken = True
    first = await gate.admit(0)
    assert isinstance(first, Ticket)
    store.broken = False
    await clock.advance(16.0)  # then its hold is over
    second = await gate.admit(1)
    assert isinstance(second, Ticket)
    assert set((await ledger_of(store)).debits) == {first.id, second.id}
    await gate.close()


async def test_buckets_that_a_look_up_adds_are_used_at_once(clock: FakeClock) -> None:
    """This includes the requests that wait already."""
    asked: list[float] = []

    async def look_up() -> StartLimit:
        asked.append(clock.monotonic())
        return StartLimit(1000, 1000, 3_600_000, 4)

    gate = IdentifyGate(clock, MemorySessionStore(), look_up=look_up)
    gate.set_limits(LIMIT)
    await clock.advance(301.0)
    asking = [asyncio.create_task(gate.admit(shard)) for shard in range(4)]
    await settle_loop()
    tickets = [one.result() for one in asking if one.done()]
    assert [one.bucket for one in tickets if isinstance(one, Ticket)] == [0, 1, 2, 3]
    assert len(asked) == 1
    for one in tickets:
        assert isinstance(one, Ticket)
        one.refund()
    assert isinstance(await asyncio.wait_for(gate.admit(4), 1.0), Ticket), (
        "behind nobody who waited in this bucket before"
    )
    await gate.close()


async def test_a_look_up_is_good_for_thirty_seconds_without_the_store(clock: FakeClock) -> None:
    """After 30 s without the store a new look-up is needed, or the request is refused."""
    store = ShakyStore()
    gate = await opened(clock, store)
    store.broken = True
    await clock.advance(30.0)
    first = await gate.admit(0)
    assert isinstance(first, Ticket)
    first.refund()
    await clock.advance(0.1)
    answer = await gate.admit(0)
    assert isinstance(answer, Refusal)
    assert answer.cause is RefusalCause.LOOK_UP
    await gate.close()


async def test_who_waits_is_told_at_once_of_a_ticket_that_goes_back(clock: FakeClock) -> None:
    gate = await opened(clock, MemorySessionStore())
    first = await gate.admit(0)
    assert isinstance(first, Ticket)
    asking = asyncio.create_task(gate.admit(1))
    await settle_loop()
    assert not asking.done()
    first.refund()
    await settle_loop()
    assert isinstance(asking.result(), Ticket)
    assert clock.next_due() is None, "no timer is left of the wait"
    await gate.close()


async def test_a_shard_whose_minute_is_over_is_refused_without_asking_the_store(clock: FakeClock) -> None:
    """A ticket would have to be refunded at once."""
    store = ShakyStore()
    gate = await opened(clock, store)
    await store.transact(lambda ledger: (replace(ledger, slots={0: Slot(holder="other", held_until=1e12)}), None))
    asking = asyncio.create_task(gate.admit(0))
    asked = refreshed = 0
    while not asking.done():
        asked = store.asked
        await store.transact(lambda ledger: (ledger.sent(0, "other", clock.now().timestamp()), None))
        refreshed += 1
        await clock.advance(1.0)
    assert refreshed == 60
    assert isinstance(asking.result(), Refusal)
    assert store.asked == asked + 1, "our own"
    await gate.close()


async def test_nothing_is_kept_of_a_ticket_that_was_used(clock: FakeClock) -> None:
    """A plane runs for months and identifies many times."""
    gate = await opened(clock, MemorySessionStore())
    ticket = await gate.admit(0)
    assert isinstance(ticket, Ticket)
    ticket.sent()
    await gate.flush()
    name = ticket.id
    del ticket
    await clock.advance(61.0)  # past every timer that was set for it
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Ticket) and one.id == name] == []
    await gate.close()


async def test_without_the_store_a_ticket_that_goes_back_is_given_to_the_next(clock: FakeClock) -> None:
    """The refunded ticket is not counted, neither here nor later in the store."""
    store = ShakyStore()
    gate = await opened(clock, store)
    store.broken = True
    first = await gate.admit(0)
    assert isinstance(first, Ticket)
    first.refund()
    await gate.flush()
    asking = asyncio.create_task(gate.admit(1))
    await settle_loop()
    second = asking.result()
    assert isinstance(second, Ticket)
    assert list(store.ledger.debits) == [second.id]
    store.broken = False
    second.sent()
    await gate.flush()
    assert list((await ledger_of(store)).debits) == [second.id]
    await gate.close()


async def test_a_refusal_that_no_look_up_can_change_is_final(clock: FakeClock) -> None:
    """The store is not asked again."""
    store = ShakyStore()
    gate = await opened(clock, store, replace(LIMIT, remaining=100))
    store.asked = 0
    answer = await gate.admit(0)
    assert isinstance(answer, Refusal)
    assert answer.cause is RefusalCause.BUDGET
    assert store.asked == 1
    await gate.close()


async def test_only_the_debit_waits_for_the_disk(clock: FakeClock) -> None:
    """The sent mark need not wait: the ticket was paid for before, and READY must not be delayed by it."""
    store = ShakyStore()
    gate = await opened(clock, store)
    asked = store.asked
    ticket = await gate.admit(0)
    assert isinstance(ticket, Ticket)
    assert (store.asked - asked, store.recorded) == (1, 0)
    ticket.sent()
    assert (store.asked - asked, store.recorded) == (1, 1)
    assert store.ledger.debits[ticket.id].sent_at is not None
    await gate.close()
