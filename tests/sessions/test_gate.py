"""The identify gate, on a fake clock: one IDENTIFY per bucket and spacing, paid for before it is given."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from discorder.clock import FakeClock, settle_loop
from discorder.config import Log
from discorder.errors import ConnectFailed
from discorder.logs import configure_logs
from discorder.sessions import (
    SPACING,
    Debit,
    IdentifyGate,
    Ledger,
    MemorySessionStore,
    Refusal,
    RefusalCause,
    SqliteSessionStore,
    StartLimit,
    Ticket,
)
from discorder.sessions.database import Database
from discorder.sessions.identify_budget import Later
from discorder.sessions.wait_queue import WaitingShard
from tests.sessions.shaky import ShakyStore

T = TypeVar("T")
MakeStore = Callable[..., Awaitable[SqliteSessionStore]]
HOUR_MS = 3_600_000


def limit(remaining: int = 1000, *, total: int = 1000, max_concurrency: int = 1) -> StartLimit:
    return StartLimit(total, remaining, HOUR_MS, max_concurrency)


@pytest.fixture
def store() -> ShakyStore:
    return ShakyStore()


@pytest.fixture
async def gate(clock: FakeClock, store: ShakyStore) -> AsyncIterator[IdentifyGate]:
    """A gate that knows its limits: 1,000 IDENTIFYs, one bucket."""
    made = IdentifyGate(clock, store)
    made.set_limits(limit())
    yield made
    await made.close()


async def ticket(gate: IdentifyGate, shard_id: int = 0) -> Ticket:
    answer = await gate.admit(shard_id)
    assert isinstance(answer, Ticket), answer
    return answer


async def refusal(gate: IdentifyGate, shard_id: int = 0) -> Refusal:
    answer = await gate.admit(shard_id)
    assert isinstance(answer, Refusal), answer
    return answer


async def stored(store: MemorySessionStore | SqliteSessionStore) -> Ledger:
    return await store.transact(lambda ledger: (ledger, ledger))


async def settled(*gates: IdentifyGate) -> None:
    """Wait until the loop, and the threads that these gates use, have nothing left to do."""
    for _ in range(2):
        await settle_loop()
        for gate in gates:
            await gate.flush()


async def finished(clock: FakeClock, task: asyncio.Task[T], within: float) -> float:
    """Advance the clock until ``task`` is done. Return the seconds that it took."""
    start = clock.monotonic()
    await settle_loop()
    while not task.done():
        assert clock.monotonic() - start <= within, "took too long"
        await clock.advance(min(clock.next_due() or 0.25, 0.25))
    return clock.monotonic() - start


async def test_the_first_shard_gets_a_ticket_at_once_and_it_is_paid_for(gate: IdentifyGate, store: ShakyStore) -> None:
    got = await ticket(gate)
    assert list((await stored(store)).debits) == [got.id]
    assert repr(got) == "Ticket(shard_id=0, bucket=0, open)"


async def test_it_waits_for_the_limits(clock: FakeClock, store: ShakyStore) -> None:
    gate = IdentifyGate(clock, store)
    asking = asyncio.create_task(gate.admit(0))
    await clock.advance(59)
    assert not asking.done()
    gate.set_limits(limit())
    await settle_loop()
    assert isinstance(asking.result(), Ticket)


async def test_without_limits_it_refuses_after_a_minute(clock: FakeClock, store: ShakyStore) -> None:
    gate = IdentifyGate(clock, store)
    asking = asyncio.create_task(gate.admit(0))
    await clock.advance(60)
    answer = asking.result()
    assert isinstance(answer, Refusal)
    assert answer.cause is RefusalCause.LOOK_UP
    assert answer.until > clock.now()


async def test_the_next_of_a_bucket_waits_from_send_to_send(clock: FakeClock, gate: IdentifyGate) -> None:
    first = await ticket(gate)
    asking = asyncio.create_task(gate.admit(1))
    await clock.advance(3)
    first.sent()
    assert await finished(clock, asking, 10) == pytest.approx(SPACING, abs=0.001)


async def test_buckets_do_not_wait_for_one_another(clock: FakeClock, store: ShakyStore) -> None:
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit(max_concurrency=4))
    tickets = [await ticket(gate, shard) for shard in range(4)]
    assert [one.bucket for one in tickets] == [0, 1, 2, 3]


async def test_those_who_wait_go_in_order_of_their_shards(clock: FakeClock, gate: IdentifyGate) -> None:
    order: list[int] = []

    async def identify(shard: int) -> None:
        (await ticket(gate, shard)).sent()
        order.append(shard)

    held = await ticket(gate, 9)
    tasks = [asyncio.create_task(identify(shard)) for shard in (3, 1, 2)]
    await settle_loop()
    assert gate.waiting == [1, 2, 3]
    held.sent()
    await clock.advance(3 * SPACING + 0.1)
    await asyncio.gather(*tasks)
    assert order == [1, 2, 3]


async def test_at_the_reserve_it_refuses_until_the_reset(clock: FakeClock, store: ShakyStore) -> None:
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit(100))
    answer = await refusal(gate)
    assert answer.cause is RefusalCause.BUDGET
    assert answer.until == clock.now() + timedelta(hours=1)
    assert "100 of 1000 left" in answer.reason
    assert not (await stored(store)).debits


async def test_the_shard_count_raises_the_reserve(clock: FakeClock, store: ShakyStore) -> None:
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit(200), shard_count=200)
    assert (await refusal(gate)).cause is RefusalCause.BUDGET


@pytest.mark.parametrize("resting", [False, True])
async def test_a_withdrawn_request_lets_the_next_one_pass(
    clock: FakeClock, gate: IdentifyGate, *, resting: bool
) -> None:
    """If the bucket only waits for its spacing, the withdrawn request is the only one that can wake the next."""
    first = await ticket(gate, 5)
    if resting:
        first.sent()
    one, two = (asyncio.create_task(gate.admit(shard)) for shard in (0, 1))
    await settle_loop()
    one.cancel()
    await settle_loop()
    assert gate.waiting == [1]
    first.sent()
    await finished(clock, two, SPACING + 0.1)


@pytest.mark.parametrize("turns", range(12))
async def test_a_request_that_is_cancelled_while_it_pays_costs_nothing(
    make_store: MakeStore, clock: FakeClock, turns: int
) -> None:
    """The debit is refunded and the bucket freed at whatever moment the cancellation comes."""
    store = await make_store()
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit())
    await gate.flush()
    asking = asyncio.create_task(gate.admit(0))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    if asking.cancel():
        with pytest.raises(asyncio.CancelledError):
            await asking
        await gate.flush()
        ledger = await stored(store)
        assert not ledger.debits
        assert not any(slot.holder for slot in ledger.slots.values())
    await gate.close()


@pytest.mark.parametrize("turns", range(16))
async def test_a_request_that_is_cancelled_in_any_turn_of_the_loop_costs_nothing(
    gate: IdentifyGate, store: ShakyStore, turns: int
) -> None:
    """This includes the turn in which the ticket is granted: the caller does not have it yet, so only the gate can refund it."""
    await gate.flush()
    asking = asyncio.create_task(gate.admit(0))
    for _ in range(turns):
        await asyncio.sleep(0)
    cancelled = asking.cancel()
    (answer,) = await asyncio.gather(asking, return_exceptions=True)
    await gate.flush()
    assert isinstance(answer, asyncio.CancelledError) == cancelled
    assert len((await stored(store)).debits) == (not cancelled)


async def test_a_refund_counts_once_and_frees_the_bucket(gate: IdentifyGate, store: ShakyStore) -> None:
    first = await ticket(gate, 0)
    first.refund()
    first.refund()
    await gate.flush()
    assert not (await stored(store)).debits
    second = await ticket(gate, 1)
    assert list((await stored(store)).debits) == [second.id]


async def test_a_sent_ticket_cannot_be_refunded_nor_a_refunded_one_sent(gate: IdentifyGate, store: ShakyStore) -> None:
    first = await ticket(gate, 0)
    first.sent()
    first.sent()
    first.refund()
    await gate.flush()
    assert (await stored(store)).debits[first.id].sent_at is not None
    asking = asyncio.create_task(gate.admit(1))
    await settle_loop()
    assert not asking.done()
    asking.cancel()


async def test_sending_on_a_refunded_ticket_is_a_mistake_that_is_told(gate: IdentifyGate) -> None:
    first = await ticket(gate)
    first.refund()
    with pytest.raises(RuntimeError, match="refunded"):
        first.sent()


async def test_a_long_line_is_sent_away_and_comes_back_in_turn(clock: FakeClock, gate: IdentifyGate) -> None:
    """64 shards, one bucket: all identify in order and without a pause, and no shard is deferred more than twice."""
    sends: list[tuple[float, int]] = []
    refusals: list[int] = []

    async def shard(shard_id: int) -> None:
        while True:
            asked = clock.monotonic()
            answer = await gate.admit(shard_id)
            assert clock.monotonic() - asked <= 60
            if isinstance(answer, Ticket):
                answer.sent()
                sends.append((clock.monotonic(), shard_id))
                return
            assert answer.cause is RefusalCause.QUEUE
            refusals.append(shard_id)
            await clock.sleep((answer.until - clock.now()).total_seconds())

    tasks = [asyncio.create_task(shard(shard_id)) for shard_id in range(64)]
    await clock.advance(64 * SPACING + 5)
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks)
    times = [at for at, _ in sends]
    assert [shard_id for _, shard_id in sends] == list(range(64))
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= SPACING - 1e-6
    assert times[-1] <= 63 * SPACING + 5
    assert max(map(refusals.count, refusals)) <= 2


async def test_the_place_of_a_shard_that_was_sent_away_is_kept_in_its_bucket_until_it_is_long_overdue(
    clock: FakeClock, store: ShakyStore
) -> None:
    """Twelve are deferred: a shard behind them is deferred too, but not one of the other bucket, nor one that comes later."""
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit(max_concurrency=2))
    asking = [asyncio.create_task(gate.admit(shard)) for shard in range(0, 48, 2)]
    await settle_loop()
    first, *answers = [one.result() for one in asking if one.done()]
    away = [one for one in answers if isinstance(one, Refusal)]
    assert len(away) == len(answers) == 12
    assert isinstance(first, Ticket)
    first.refund()
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    (await ticket(gate, 47)).refund()
    assert (await refusal(gate, 48)).cause is RefusalCause.QUEUE
    assert away[0].until - clock.now() == timedelta(seconds=33)
    await clock.advance(33 + 59.9)
    assert (await refusal(gate, 48)).cause is RefusalCause.QUEUE
    await clock.advance(0.2)
    await ticket(gate, 48)
    await gate.close()


async def test_a_bucket_that_another_process_keeps_is_refused_within_a_minute(
    clock: FakeClock, gate: IdentifyGate, store: ShakyStore
) -> None:
    asking = asyncio.create_task(gate.admit(0))
    for second in range(61):  # another process sends all the time

        def send(ledger: Ledger, number: int = second) -> tuple[Ledger, None]:
            return ledger.sent(0, f"other-{number}", clock.now().timestamp()), None

        if second == 0:
            asking.cancel()
            await settle_loop()
            await store.transact(send)
            asking = asyncio.create_task(gate.admit(0))
        await store.transact(send)
        await clock.advance(1)
    answer = asking.result()
    assert isinstance(answer, Refusal)
    assert answer.cause is RefusalCause.QUEUE


async def test_closing_refuses_whoever_waits(clock: FakeClock, gate: IdentifyGate) -> None:
    await ticket(gate, 0)
    asking = asyncio.create_task(gate.admit(1))
    await settle_loop()
    await gate.close()
    answer = await asking
    assert isinstance(answer, Refusal)
    assert answer.cause is RefusalCause.CLOSED


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_jump_of_the_wall_clock_neither_shortens_nor_stretches_the_spacing(
    clock: FakeClock, gate: IdentifyGate, jump: float
) -> None:
    (await ticket(gate, 0)).sent()
    await gate.flush()
    clock.jump_wall(jump)
    asking = asyncio.create_task(gate.admit(1))
    took = await finished(clock, asking, 3 * SPACING)
    assert SPACING - 0.001 <= took <= 2 * SPACING + 0.001


# --- the look-up


class Discord:
    """Answers look-ups."""

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining
        self.asked = 0
        self.silent = False
        self.down = False

    async def look_up(self) -> StartLimit:
        self.asked += 1
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if self.down:
            msg = "no route"
            raise ConnectFailed(msg)
        return limit(self.remaining)


async def test_an_old_look_up_is_made_anew_before_paying(clock: FakeClock, store: ShakyStore) -> None:
    discord = Discord(90)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    (await ticket(gate)).sent()
    assert discord.asked == 0
    await clock.advance(301)
    assert (await refusal(gate)).cause is RefusalCause.BUDGET
    assert discord.asked == 1


async def test_a_look_up_is_made_sooner_where_another_process_could_spend_what_is_left(
    clock: FakeClock, store: ShakyStore
) -> None:
    """Ten above the reserve and one bucket: another process that identifies every five seconds spends them in fifty."""
    discord = Discord(100)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(110))
    await clock.advance(49)
    (await ticket(gate)).refund()
    assert discord.asked == 0
    await clock.advance(2)
    assert (await refusal(gate)).cause is RefusalCause.BUDGET
    assert discord.asked == 1


async def test_before_it_refuses_it_asks_whether_that_is_still_true(clock: FakeClock, store: ShakyStore) -> None:
    discord = Discord(1000)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(100))
    await clock.advance(31)
    await ticket(gate)


async def test_it_asks_too_where_only_the_store_shows_that_others_have_spent_what_was_left(
    clock: FakeClock, store: ShakyStore
) -> None:
    """The local ledger gave no reason for a look-up. Discord may have begun another day meanwhile."""
    discord = Discord(1000)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(110))
    await clock.advance(40)
    now = clock.now().timestamp()
    spent = {f"of another process {number}": Debit(now) for number in range(10)}
    await store.transact(lambda ledger: (Ledger(ledger.look_up, spent, ledger.slots), None))
    await ticket(gate)
    assert discord.asked == 1


async def test_a_reset_that_only_the_wall_clock_shows_is_not_believed_before_discord_is_asked(
    clock: FakeClock, store: ShakyStore
) -> None:
    """The clock was set an hour ahead. The reserve must not be spent because of that."""
    discord = Discord(100)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    await gate.flush()
    clock.jump_wall(3700)
    assert (await refusal(gate)).cause is RefusalCause.BUDGET
    assert discord.asked == 1


async def test_the_reset_counts_from_the_answer_of_a_slow_look_up(clock: FakeClock, store: ShakyStore) -> None:
    """Counted from the request, the reset would come eight seconds before Discord's."""

    async def look_up() -> StartLimit:
        await clock.sleep(8)
        return limit(100)

    gate = IdentifyGate(clock, store, look_up=look_up)
    gate.set_limits(limit(1000))
    await clock.advance(301)
    asking = asyncio.create_task(gate.admit(0))
    await finished(clock, asking, 9)
    answer = asking.result()
    assert isinstance(answer, Refusal)
    assert answer.until >= clock.now() + timedelta(milliseconds=HOUR_MS)


async def test_what_is_sent_while_a_look_up_is_under_way_is_not_taken_for_counted(
    clock: FakeClock, store: ShakyStore
) -> None:
    """The answer shows the state at the time of its request, however late it arrives."""

    async def look_up() -> StartLimit:
        await clock.sleep(8)
        return limit(500, max_concurrency=2)

    gate = IdentifyGate(clock, store, look_up=look_up)
    gate.set_limits(limit(max_concurrency=2))
    early = await ticket(gate, 0)
    await clock.advance(301)
    asking = asyncio.create_task(gate.admit(1))
    await settle_loop()
    early.sent()
    await finished(clock, asking, 9)
    assert not (await stored(store)).debits[early.id].settled


async def test_a_faster_fall_of_the_budget_is_noticed(clock: FakeClock, store: ShakyStore) -> None:
    discord = Discord(700)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    (await ticket(gate)).sent()
    await clock.advance(301)
    await ticket(gate)
    look_up = store.ledger.look_up
    assert look_up is not None
    assert look_up.foreign == 299


@pytest.mark.parametrize("how", ["silent", "down"])
async def test_a_look_up_that_fails_leaves_what_is_known(clock: FakeClock, store: ShakyStore, how: str) -> None:
    discord = Discord(1000)
    setattr(discord, how, True)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    await clock.advance(301)
    asking = asyncio.create_task(gate.admit(0))
    assert await finished(clock, asking, 11) <= 10.25
    assert isinstance(asking.result(), Ticket)
    assert discord.asked == 1


async def test_a_silent_look_up_does_not_hold_up_closing(clock: FakeClock, store: ShakyStore) -> None:
    discord = Discord(1000)
    discord.silent = True
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    await clock.advance(301)
    asking = asyncio.create_task(gate.admit(0))
    await settle_loop()
    await gate.close()
    assert isinstance(await asking, Refusal)


# --- without the store


async def test_without_the_store_a_fresh_look_up_above_the_reserve_pays(clock: FakeClock, store: ShakyStore) -> None:
    """The debit is recorded, so that it is written as soon as the store works again."""
    discord = Discord(102)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    await clock.advance(60)
    store.broken = True
    first = await ticket(gate, 0)
    first.sent()
    assert discord.asked == 1
    assert store.recorded == 3, "the look-up, the debit, and that it was sent"
    store.broken = False
    await clock.advance(6)
    second = await ticket(gate, 1)
    ledger = await stored(store)
    assert set(ledger.debits) == {first.id, second.id}
    assert ledger.debits[first.id].sent_at is not None


async def test_without_the_store_its_own_debits_count_and_the_reserve_holds(
    clock: FakeClock, store: ShakyStore
) -> None:
    store.broken = True
    discord = Discord(101)
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(101))
    (await ticket(gate, 0)).sent()
    discord.remaining = 100
    await clock.advance(6)
    assert (await refusal(gate, 1)).cause is RefusalCause.BUDGET


async def test_without_the_store_nothing_is_paid_by_an_old_look_up(clock: FakeClock, store: ShakyStore) -> None:
    discord = Discord(1000)
    discord.down = True
    gate = IdentifyGate(clock, store, look_up=discord.look_up)
    gate.set_limits(limit(1000))
    await clock.advance(31)
    store.broken = True
    answer = await refusal(gate)
    assert answer.cause is RefusalCause.LOOK_UP
    assert answer.until > clock.now()


# --- several planes, and restarts


async def test_two_planes_with_one_store_stand_in_one_line(make_store: MakeStore, clock: FakeClock) -> None:
    """Two gates use two connections to one file: there are never two IDENTIFYs of a bucket within the spacing."""
    gates = [IdentifyGate(clock, await make_store()) for _ in range(2)]
    sends: list[float] = []

    async def identify(gate: IdentifyGate, shard: int) -> None:
        (await ticket(gate, shard)).sent()
        sends.append(clock.monotonic())

    for gate in gates:
        gate.set_limits(limit())
    tasks = [asyncio.create_task(identify(gates[shard % 2], shard)) for shard in range(6)]
    for _ in range(45):
        await clock.advance(1, settle=lambda: settled(*gates))
    await asyncio.gather(*tasks)
    assert min(later - earlier for earlier, later in itertools.pairwise(sends)) >= SPACING - 1e-5
    for gate in gates:
        await gate.close()


@pytest.mark.heavy
async def test_a_crash_loop_cannot_exceed_the_budget(make_store: MakeStore, clock: FakeClock) -> None:
    """Fault case 10: 200 restarts, 5 s apart, each identifies and dies; Discord's own number never falls below the reserve."""
    remaining, identifies, parked = 200, 0, 0
    for _ in range(200):
        store = await make_store()
        gate = IdentifyGate(clock, store)
        gate.set_limits(limit(remaining, total=200))
        asking = asyncio.create_task(gate.admit(0))
        await settled(gate)
        while not asking.done():
            await clock.advance(0.5, settle=functools.partial(settled, gate))
        answer = asking.result()
        if isinstance(answer, Ticket):
            remaining -= 1
            identifies += 1  # the process ends before it can record that it has sent
        else:
            assert answer.cause is RefusalCause.BUDGET
            assert answer.until > clock.now()
            parked += 1
        await store.close()
        await clock.advance(5)
    assert remaining >= 20
    assert identifies <= 180
    assert parked > 0
    assert identifies + parked == 200


async def test_even_if_discord_forgets_to_count_a_day_of_restarts_stays_within_the_total(
    make_store: MakeStore, clock: FakeClock
) -> None:
    store = await make_store()
    given = 0
    for _ in range(60):
        gate = IdentifyGate(clock, store)
        gate.set_limits(limit(50, total=50))
        await gate.flush()
        if isinstance(answer := await gate.admit(0), Ticket):
            answer.sent()
            given += 1
        await gate.close()
        await clock.advance(600)
    assert given == 45


# --- a store that is lost, a store that is slow


async def test_a_store_that_was_lost_gets_back_what_this_process_knows(
    make_store: MakeStore, clock: FakeClock, path: Path
) -> None:
    """The file was removed in use and begun anew. A ledger that forgot the spent IDENTIFYs would pay for them twice."""
    store = await make_store()
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit(200, total=200))
    await settled(gate)
    first = await ticket(gate)
    first.sent()
    await settled(gate)
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            file.unlink()
    await clock.advance(SPACING)
    second = await ticket(gate)
    await gate.close()
    await store.flush()
    ledger = await stored(await make_store())
    assert sorted(ledger.debits) == sorted([first.id, second.id])
    assert ledger.look_up is not None
    assert ledger.look_up.limit == limit(200, total=200)
    assert ledger.slots[0].holder == second.id


async def test_a_round_of_buckets_is_paid_for_in_one_transaction(
    make_store: MakeStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen shards do not wait for the disk one after the other."""
    store = await make_store()
    gate = IdentifyGate(clock, store)
    gate.set_limits(limit(max_concurrency=16))
    await settled(gate)
    commits: list[bool] = []
    all_ask = threading.Event()
    change_ledger = Database.change_ledger

    def counted(database: Database, change: Callable[[Ledger], Ledger], *, durable: bool) -> Ledger:
        commits.append(durable)
        all_ask.wait(5.0)
        return change_ledger(database, change, durable=durable)

    monkeypatch.setattr(Database, "change_ledger", counted)
    asking = [asyncio.create_task(ticket(gate, shard)) for shard in range(16)]
    await settle_loop()
    all_ask.set()
    tickets = await asyncio.gather(*asking)
    assert len(commits) <= 2, "one may be under way when the others ask"
    assert all(commits), "on the disk, before any of them is sent"
    tickets[0].sent()
    await store.flush()
    assert commits[-1] is False, "that it was sent need not wait for the disk"
    assert sorted((await stored(store)).debits) == sorted(one.id for one in tickets)
    await gate.close()


async def test_500_shards_that_start_at_once_cost_no_more_than_their_turns(clock: FakeClock) -> None:
    """A waiting request is checked only when its own bucket changes."""
    gate = IdentifyGate(clock, MemorySessionStore(), shard_count=500)
    gate.set_limits(limit(max_concurrency=16))
    sent: list[int] = []
    steps = 0
    step = gate._step  # noqa: SLF001  # counts what the gate does by itself

    async def counted(request: WaitingShard) -> Ticket | Refusal | Later:
        nonlocal steps
        steps += 1
        return await step(request)

    gate._step = counted  # type: ignore[method-assign]  # noqa: SLF001

    async def identify(shard: int) -> None:
        answer = await gate.admit(shard)
        if isinstance(answer, Ticket):
            answer.sent()
            sent.append(shard)

    tasks = [asyncio.create_task(identify(shard)) for shard in range(500)]
    for _ in range(70):
        await clock.advance(1)
    await asyncio.gather(*tasks)
    assert sent == sorted(sent)
    assert len(sent) >= 16 * 11  # those that fit into a minute; the others were deferred
    assert steps < 500 * 40
    await gate.close()


async def test_how_long_it_takes_is_told_bucket_by_bucket(clock: FakeClock) -> None:
    """The longest queue decides. A bucket that has just sent is free after the spacing."""
    gate = IdentifyGate(clock, MemorySessionStore())
    assert gate.seconds_to_identify([0]) is None
    gate.set_limits(limit(max_concurrency=4))
    assert gate.seconds_to_identify([]) == 0.0
    assert gate.seconds_to_identify(range(4)) == 0.0
    assert gate.seconds_to_identify(range(9)) == 2 * SPACING
    assert gate.seconds_to_identify([0, 4, 8, 12]) == 3 * SPACING
    await settled(gate)
    (await ticket(gate, 1)).sent()
    assert gate.seconds_to_identify([5]) == SPACING
    await gate.close()


async def test_a_gate_that_fails_by_itself_says_so(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """The task that records a sent IDENTIFY is not awaited, but its failure must be logged."""

    class Mistaken(MemorySessionStore):
        async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
            msg = "a mistake in the store"
            raise RuntimeError(msg)

    with configure_logs(Log(), console=True):
        gate = IdentifyGate(clock, Mistaken())
        gate.set_limits(limit())
        await gate.close()
    assert "The identify gate failed" in (log := capsys.readouterr().err)
    assert "a mistake in the store" in log
