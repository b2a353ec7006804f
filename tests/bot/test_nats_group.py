"""`subscribe` over a real NATS server with ``group``: workers share the shards, and take over from each other."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import discorder
from discorder.bot.subscription import Subscription
from discorder.errors import SubscriptionFailed
from discorder.publishers.nats.publisher import NatsPublisher
from discorder.records import LossKind, LostEvents, gap_record
from tests.bot.nats_streams import (
    SESSION,
    WITHIN,
    acknowledged,
    consumers,
    event,
    events,
    publish,
    publisher,
    seqs,
    take,
)
from tests.bot.nats_workers import Worker, until, workers
from tests.publishers.nats_server import NatsServer, in_thread

pytestmark = [pytest.mark.heavy, pytest.mark.system]
SHARDS = 6

__all__ = ["workers"]  # a fixture


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def plane(server: NatsServer) -> AsyncIterator[NatsPublisher]:
    made = publisher(server)
    await made.open()
    yield made
    await made.close()


def worker(server: NatsServer, *types: str, query: str = "", **how: Any) -> Subscription[Any]:
    return discorder.subscribe(server.url + query, types or None, group="workers", **how)


# ---------------------------------------------------------------- one worker after the other


async def test_the_next_worker_goes_on_after_the_last_processed_event(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, events(1, 10))
    async with worker(server, start="oldest") as first:
        assert await seqs(first, 4) == [1, 2, 3, 4]
    async with worker(server) as second:
        assert await seqs(second, 2) == [4, 5]  # the fourth was not processed
        await second.commit()
    async with worker(server) as third:
        assert await seqs(third, 5) == [6, 7, 8, 9, 10]
        await third.commit()
    await acknowledged(server, 10)


async def test_a_new_group_begins_now_and_gets_shards_that_come_later(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, events(1, 3))
    async with worker(server) as reading:
        waiting = asyncio.create_task(take(reading, 5))
        async with asyncio.timeout(WITHIN):
            while not await consumers(server):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await publish(plane, events(4, 5))
        await publish(
            plane, [event(1, "READY", prev=0, shard=(1, 2), session="s1"), *events(2, 3, shard=(1, 2), session="s1")]
        )
        items = await waiting
        assert [item.seq for item in items if item.shard == (0, 2)] == [4, 5]
        assert [item.seq for item in items if item.shard == (1, 2)] == [1, 2, 3]


async def test_what_the_group_missed_is_a_gap(server: NatsServer) -> None:
    """By ``prev`` at a hand-over, and where the stream dropped events before they were read."""
    plane = publisher(server, stream_bytes=4_000)
    await plane.open()
    await publish(plane, events(1, 2))
    async with worker(server, start="oldest") as first:
        assert await seqs(first, 2) == [1, 2]
        await first.commit()
    await acknowledged(server, 2)
    await publish(plane, [event(5)])
    async with worker(server) as second:
        gap, item = await take(second, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.from_seq, gap.to_seq, item.seq) == (3, 4, 5)
        await second.commit()
    await acknowledged(server, 3)
    await publish(plane, [event(6, "TYPING_START", prev=0), *events(7, 60)])
    async with worker(server) as third:
        gap, item = await take(third, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.from_seq, gap.to_seq) == (1, item.seq - 1)  # a worker that begins has no earlier position
        assert await seqs(third, 60 - item.seq) == list(range(item.seq + 1, 61))
    await plane.close()


async def test_a_gap_that_the_control_plane_recorded(server: NatsServer, plane: NatsPublisher) -> None:
    """Also if it is the first that a worker gets."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    await publish(plane, events(1, 3))
    async with worker(server, start="oldest") as first:
        assert await seqs(first, 3) == [1, 2, 3]
        await first.commit()
    await acknowledged(server, 3)
    lost = LostEvents(LossKind.SESSION, None, 4, None, "the session ended", moment, moment)
    await publish(plane, [gap_record((0, 2), SESSION, moment, lost), event(1, "READY", prev=0, session="next")])
    async with worker(server) as second:
        gap, ready = await take(second, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.kind, gap.session, gap.from_seq, gap.to_seq) == ("session", SESSION, 4, None)
        assert (ready.type, ready.seq) == ("READY", 1)
        await second.commit()


async def test_a_worker_that_asks_for_other_types(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, events(1, 2))
    async with worker(server, "MESSAGE_CREATE", start="oldest") as first:
        assert await seqs(first, 1) == [1]
        async with worker(server, "TYPING_START") as second:
            with pytest.raises(
                SubscriptionFailed,
                match=r"filter_subjects is .*MESSAGE_CREATE.*, and must be .*TYPING_START.*same types",
            ):
                await take(second, 1)


@pytest.mark.parametrize("how", [{"cursor": "x"}, {"live_only": True}, {"group": "a.b"}])
def test_arguments_that_a_group_cannot_have(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(how))):
        discorder.subscribe("nats://127.0.0.1:4222", **{"group": "workers", **how})


# ---------------------------------------------------------------- several workers


async def publish_to_all(plane: NatsPublisher, first: int, last: int) -> None:
    for shard in range(SHARDS):
        await publish(plane, events(first, last, shard=(shard, SHARDS), session=f"s{shard}"))


def check(workers: list[Worker], last: int, repeated: int) -> None:
    """Every event was processed; each worker got those of a shard in order; few of them came twice."""
    times: dict[tuple[str, int], int] = defaultdict(int)
    for one in workers:
        of_shard: dict[str, list[int]] = defaultdict(list)
        for kind, shard, _, seq in one.lines:
            assert kind == "event", (shard, seq)
            of_shard[shard].append(int(seq))
            times[shard, int(seq)] += 1
        for shard, got in of_shard.items():
            assert got == sorted(got), shard
            assert len(got) == len(set(got)), shard
    assert set(times) == {(str(shard), seq) for shard in range(SHARDS) for seq in range(1, last + 1)}
    assert sum(times.values()) - len(times) <= repeated


async def test_three_share_the_shards_and_one_is_killed(
    server: NatsServer, plane: NatsPublisher, workers: list[Worker]
) -> None:
    """Nothing is lost, and the order of each shard is kept; what the killed one had in work comes again."""
    await publish_to_all(plane, 1, 50)
    workers += [await Worker.start(server, 0.002) for _ in range(3)]
    sent = 50
    async with asyncio.timeout(2 * WITHIN):
        while not all(one.shards for one in workers):
            await publish_to_all(plane, sent + 1, sent + 10)
            sent += 10
            await asyncio.sleep(0.1)
    await publish_to_all(plane, sent + 1, sent + 200)
    sent += 200
    killed = max(workers, key=lambda one: len(one.shards))
    await killed.kill()
    await publish_to_all(plane, sent + 1, sent + 50)
    sent += 50
    await until(lambda: len({tuple(line) for one in workers for line in one.lines}) >= SHARDS * sent, 2 * WITHIN)
    check(workers, sent, repeated=SHARDS)


async def test_a_worker_that_stands_still_loses_its_shards_and_goes_on_in_order(
    server: NatsServer, plane: NatsPublisher, workers: list[Worker]
) -> None:
    await publish_to_all(plane, 1, 40)
    workers += [await Worker.start(server, 0.01) for _ in range(2)]
    await until(lambda: any(one.lines for one in workers))
    busy = max(workers, key=lambda one: len(one.lines))
    busy.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(14)
    busy.process.send_signal(signal.SIGCONT)
    await publish_to_all(plane, 41, 60)
    await until(lambda: len({tuple(line) for one in workers for line in one.lines}) >= SHARDS * 60, 2 * WITHIN)
    check(workers, 60, repeated=SHARDS)


async def test_slow_work_that_awaits_keeps_its_shard(server: NatsServer, plane: NatsPublisher) -> None:
    """For longer than it takes to get an event again, and to lose the shard."""
    await publish(plane, events(1, 3))
    async with worker(server, start="oldest") as slow, worker(server) as other:
        assert await seqs(slow, 1) == [1]
        waiting = asyncio.create_task(take(other, 1))
        await asyncio.sleep(14)
        assert not waiting.done()
        assert await seqs(slow, 2) == [2, 3]
        waiting.cancel()


async def test_the_server_is_killed_and_frozen_under_a_worker(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, events(1, 3))
    async with worker(server, start="oldest") as reading:
        assert await seqs(reading, 3) == [1, 2, 3]
        server.kill()
        await in_thread(server.start)
        await publish(plane, events(4, 6))
        assert await seqs(reading, 3) == [4, 5, 6]
        server.freeze()
        await asyncio.sleep(12)
        server.thaw()
        await publish(plane, events(7, 9))
        assert await seqs(reading, 3) == [7, 8, 9]
