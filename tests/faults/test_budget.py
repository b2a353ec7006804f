"""Cases 10 and 28: a crash loop, and two hosts that do not know of each other, with a budget that is soon used up."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pytest

from discorder import diagnose
from discorder.clock import FakeClock
from discorder.errors import StoreUnavailable
from discorder.sessions import Health, Ledger, SqliteSessionStore, StoredSession, bot_key
from discorder.simulator import Simulator
from discorder.simulator.records import ViolationKind
from tests.faults.fault import loss, told
from tests.faults.table import Case
from tests.harness import Recorder, Stage, StartStage

T = TypeVar("T")
Start = Callable[..., Awaitable[Simulator]]
LIFE = 5.0  # seconds from one start to the next
PARKED_LIVES = 5  # at least so many that have nothing left to spend


class Mortal:
    """The real store of one life. After `die` nothing is written, as after a crash."""

    def __init__(self, inner: SqliteSessionStore) -> None:
        self._inner = inner
        self._lives = True

    def die(self) -> None:
        self._lives = False

    @property
    def health(self) -> Health:
        return self._inner.health

    async def open(self) -> None:
        await self._inner.open()

    async def hold(self, shards: Iterable[tuple[int, int]], *, take_over: bool = False, patience: float = 0.0) -> None:
        await self._inner.hold(shards, take_over=take_over, patience=patience)

    def release(self, shards: Collection[tuple[int, int]]) -> None:
        self._inner.release(shards)

    async def load_all(self) -> list[StoredSession]:
        return await self._inner.load_all()

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        if self._lives:
            self._inner.save(session, now=now)

    def forget(self, shard_id: int, shard_count: int) -> None:
        if self._lives:
            self._inner.forget(shard_id, shard_count)

    def pause(self, shard_id: int, shard_count: int, since: datetime) -> None:
        if self._lives:
            self._inner.pause(shard_id, shard_count, since)

    def unpause(self, shard_id: int, shard_count: int) -> None:
        if self._lives:
            self._inner.unpause(shard_id, shard_count)

    async def load_pauses(self) -> dict[tuple[int, int], datetime]:
        return await self._inner.load_pauses()

    def ordinal(self, session_id: str) -> int:
        return self._inner.ordinal(session_id)

    async def flush(self) -> None:
        if self._lives:
            await self._inner.flush()

    @property
    def ledger(self) -> Ledger:
        return self._inner.ledger

    def record(self, change: Callable[[Ledger], Ledger]) -> None:
        if self._lives:
            self._inner.record(change)

    async def transact(self, change: Callable[[Ledger], tuple[Ledger, T]]) -> T:
        if not self._lives:
            msg = "the process has crashed"
            raise StoreUnavailable(msg)
        return await self._inner.transact(change)

    async def close(self) -> None:
        await self._inner.close()


async def crash(stage: Stage, store: Mortal) -> None:
    store.die()
    stage.task.cancel()
    await stage.until(stage.task.done, while_running=False)


@pytest.mark.parametrize(
    ("seconds", "total"),
    [(300, 20), pytest.param(3600, 200, marks=pytest.mark.slow)],
    ids=["five minutes, 20 a day", "an hour, 200 a day"],
)
async def test_10_a_crash_loop_every_5_s_for_an_hour(
    case: Case,
    start_simulator: Start,
    start_stage: StartStage,
    clock: FakeClock,
    tmp_path: Path,
    seconds: int,
    total: int,
) -> None:
    """Discord forgets the session at each crash. IDENTIFYs stop at the reserve; the shard is parked until a time that it tells.

    A new control plane each time, on one store on the disk: only that remembers what the lives before have spent.
    """
    sim = await start_simulator(session_start_total=total)
    reserve = total // 10
    lives = 0
    parked: list[str] = []
    # A busy machine spends its IDENTIFYs later, as fewer lives get as far as that; so the lives after that are waited for.
    while clock.monotonic() < seconds or (len(parked) < PARKED_LIVES and clock.monotonic() < 4 * seconds):
        ends = clock.monotonic() + LIFE
        lives += 1
        store = Mortal(SqliteSessionStore(tmp_path / "sessions.sqlite3", bot=bot_key(sim.token), clock=clock))
        await store.open()
        stage = start_stage(sim, "log.level=error", store=store, rng=random.Random(lives))
        # less than the quarter of a second by which IDENTIFYs keep their distance: one may arrive a step late
        stage.stride = 0.2
        await stage.started()
        await stage.until(lambda ends=ends: clock.monotonic() >= ends - 0.8)  # type: ignore[misc]  # binds the loop's value
        parked += [reason for reason in diagnose(stage.tracker).reasons if "the identify budget is spent" in reason]
        await sim.forget_sessions()
        await crash(stage, store)
    assert sim.identifies <= total - reserve
    assert sim.identifies >= (total - reserve) // 2  # what was paid for when its life ended is not sent any more
    assert sim.remaining >= reserve
    assert len(parked) >= PARKED_LIVES
    assert parked[-1].startswith("Restarting for ")
    assert f"{reserve} are kept in reserve" in parked[-1]
    assert "next attempt in" in parked[-1]
    assert sim.violations == []
    case.note(identifies=sim.identifies - 1, note=f"{lives} lives, {sim.identifies} of {total} IDENTIFYs, then parked")


async def test_10_a_crash_loop_costs_nothing_while_discord_keeps_the_session(
    case: Case, start_simulator: Start, start_stage: StartStage, clock: FakeClock, tmp_path: Path
) -> None:
    """Each life resumes; what it had not written when it died comes again."""
    sim = await start_simulator()
    recorders: list[Recorder] = []
    for life in range(24):
        ends = clock.monotonic() + LIFE
        store = Mortal(SqliteSessionStore(tmp_path / "sessions.sqlite3", bot=bot_key(sim.token), clock=clock))
        await store.open()
        stage = start_stage(sim, "log.level=error", store=store)
        stage.stride = 0.5
        recorders.append(stage.recorder)
        await stage.ready()
        await sim.dispatch("MESSAGE_CREATE", {"id": str(life)})
        await stage.until(lambda ends=ends: clock.monotonic() >= ends - 0.8)  # type: ignore[misc]  # binds the loop's value
        await crash(stage, store)
    cost = loss(told(sim), [event for recorder in recorders for event in recorder.seen])
    assert cost.lost == 0
    assert (sim.identifies, sim.resumed) == (1, 23)
    case.note(lost=cost.lost, duplicates=cost.duplicates)


@pytest.mark.parametrize(("shards", "total"), [(1, 1000), (8, 100)])
async def test_28_two_hosts_no_common_store_one_token(
    case: Case,
    start_simulator: Start,
    start_stage: StartStage,
    clock: FakeClock,
    tmp_path: Path,
    shards: int,
    total: int,
) -> None:
    """Both stay up and say that another process uses the token; the budget is never overspent.

    With eight shards each, and an allowance that is not enough for both, they stop before it is used up.
    """
    sim = await start_simulator(session_start_total=total, shards=shards, max_concurrency=shards)
    hosts = [
        start_stage(sim, f"session.store={tmp_path / name}.sqlite3", rng=random.Random(number))
        for number, name in enumerate(("one", "other"))
    ]
    for host in hosts:
        host.stride = 1.0
    await hosts[0].spend(20.0)
    for _ in range(8):
        await sim.close(4009)  # each of them must identify anew
        await hosts[0].spend(120.0)
    for host in hosts:
        assert not host.task.done()
        assert any(note.startswith("another process uses this token") for note in diagnose(host.tracker).notes)
    assert ViolationKind.IDENTIFY_BUDGET not in {violation.kind for violation in sim.violations}
    spent, reserve = total - sim.remaining, max(total // 10, shards)
    assert sim.remaining >= reserve // 2  # two that look at the same moment may both take the last one above it
    case.note(note=f"{spent} of {total} spent by both, with {shards} shards each")
    if shards == 1:
        for host in hosts:
            await host.ready(within=700.0)
        assert len(sim.sessions) == 2
