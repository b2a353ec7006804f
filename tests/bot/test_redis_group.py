"""`subscribe` over a real Valkey server with ``group``: workers share the events, and take over from each other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import discorder
from discorder.bot.subscription import Subscription
from discorder.publishers.redis.publisher import RedisPublisher
from discorder.records import LossKind, LostEvents, gap_record
from tests.bot.nats_streams import SESSION, WITHIN, event, events, publish, seqs, take
from tests.publishers.nats_server import in_thread
from tests.publishers.redis_server import RedisServer, client_of

pytestmark = [pytest.mark.heavy, pytest.mark.system]
EVENTS = "discord:7:2:0"

WORKER = """\
import asyncio, sys, discorder

async def main() -> None:
    async with discorder.subscribe(sys.argv[1], group="workers", start="oldest") as events:
        async for item in events:
            print(item.seq, flush=True)
            await asyncio.sleep(float(sys.argv[2]))

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def plane(server: RedisServer) -> AsyncIterator[RedisPublisher]:
    made = RedisPublisher(server.url, prefix="discord:7", maxlen=100_000)
    await made.open()
    yield made
    await made.close()


def worker(server: RedisServer, *types: str, **how: Any) -> Subscription[Any]:
    return discorder.subscribe(server.url, types or None, group="workers", **how)


async def pending(server: RedisServer) -> int:
    async with client_of(server) as client:
        return int((await client.xpending(EVENTS, "workers"))["pending"])


async def consumers(server: RedisServer) -> list[dict[str, Any]]:
    async with client_of(server) as client:
        found: list[dict[str, Any]] = await client.xinfo_consumers(EVENTS, "workers")
        return found


# ---------------------------------------------------------------- one worker after the other


async def test_the_next_worker_goes_on_after_the_last_processed_event(
    server: RedisServer, plane: RedisPublisher
) -> None:
    """What a worker had fetched and not processed goes to the next one at once."""
    await publish(plane, events(1, 10))
    async with worker(server, start="oldest") as first:
        assert await seqs(first, 4) == [1, 2, 3, 4]
    async with worker(server) as second:
        got = await seqs(second, 2)
        assert got == [4, 5]  # the fourth was not processed
        await second.commit()
    async with worker(server) as third:
        assert sorted(seq or 0 for seq in await seqs(third, 5)) == [6, 7, 8, 9, 10]
        await third.commit()
        assert await pending(server) == 0
    assert sum(one["pending"] for one in await consumers(server)) == 0


async def test_a_new_group_begins_now_and_gets_shards_that_come_later(
    server: RedisServer, plane: RedisPublisher
) -> None:
    await publish(plane, events(1, 3))
    async with worker(server) as reading:
        waiting = asyncio.create_task(take(reading, 5))
        async with client_of(server) as client, asyncio.timeout(WITHIN):
            while not await client.xinfo_groups(EVENTS):  # noqa: ASYNC110  # it is about the server
                await asyncio.sleep(0.02)
        await publish(plane, events(4, 5))
        await publish(
            plane, [event(1, "READY", prev=0, shard=(1, 2), session="s1"), *events(2, 3, shard=(1, 2), session="s1")]
        )
        items = await waiting
        assert [item.seq for item in items if item.shard == (0, 2)] == [4, 5]
        assert [item.seq for item in items if item.shard == (1, 2)] == [1, 2, 3]


async def test_only_the_wanted_types_and_the_gaps_that_were_recorded(
    server: RedisServer, plane: RedisPublisher
) -> None:
    """An event that lacks its predecessor is no gap: another worker may have that."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    lost = LostEvents(LossKind.SESSION, None, 4, None, "the session ended", moment, moment)
    await publish(plane, [event(1, "READY", prev=0), event(3, prev=2), gap_record((0, 2), SESSION, moment, lost)])
    async with worker(server, "MESSAGE_CREATE", start="oldest") as reading:
        items = await take(reading, 2)
        (gap,) = (item for item in items if isinstance(item, discorder.Gap))
        assert (gap.kind, gap.session, gap.from_seq, gap.to_seq) == ("session", SESSION, 4, None)
        assert [item.seq for item in items if item is not gap] == [3]
        await reading.commit()
        assert await pending(server) == 0


async def test_what_a_stream_drops_before_the_group_reads_it_is_a_gap(
    server: RedisServer, plane: RedisPublisher
) -> None:
    short = RedisPublisher(server.url, prefix="discord:7", maxlen=10)
    await short.open()
    await publish(short, events(1, 3))
    async with worker(server, start="oldest") as reading:
        assert await seqs(reading, 3) == [1, 2, 3]
        await reading.commit()
    await publish(short, events(4, 500))
    async with worker(server) as reading:
        gap, first = await take(reading, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.kind, gap.session, gap.from_seq, gap.to_seq) == ("subscriber", SESSION, 4, first.seq - 1)
        assert await seqs(reading, 500 - first.seq) == list(range(first.seq + 1, 501))
    await short.close()


async def test_the_server_is_killed_frozen_and_emptied_under_a_worker(
    server: RedisServer, plane: RedisPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(plane, events(1, 3))
    async with worker(server, start="oldest") as reading:
        assert await seqs(reading, 3) == [1, 2, 3]
        server.kill()
        await in_thread(server.start)
        await publish(plane, events(4, 6))
        assert await seqs(reading, 3) == [4, 5, 6]
        server.freeze()
        await asyncio.sleep(7)
        server.thaw()
        await publish(plane, events(7, 9))
        assert await seqs(reading, 3) == [7, 8, 9]
        server.kill()
        server.empty()
        await in_thread(server.start)
        await publish(plane, events(10, 11))
        items = await take(reading, 3)
        assert sorted(item.seq for item in items if not isinstance(item, discorder.Gap)) == [10, 11]
        (gap,) = (item for item in items if isinstance(item, discorder.Gap))
        assert (gap.kind, gap.from_seq, gap.to_seq) == ("publisher", 1, 9)


# ---------------------------------------------------------------- several workers


async def read_lines(process: asyncio.subprocess.Process, into: list[int]) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        into.append(int(line))


@pytest.mark.slow
async def test_three_share_the_events_and_one_is_killed(server: RedisServer, plane: RedisPublisher) -> None:
    """Nothing is lost; what the killed one had fetched goes to the others after 30 s."""
    lines: list[list[int]] = [[], [], []]
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER, server.url, "0.002"), stdout=asyncio.subprocess.PIPE
        )
        for _ in lines
    ]
    reading = [asyncio.create_task(read_lines(*one)) for one in zip(processes, lines, strict=True)]
    try:
        seq = 0
        async with asyncio.timeout(2 * WITHIN):
            while not all(len(one) > 20 for one in lines):
                await publish(plane, events(seq + 1, seq + 20))
                seq += 20
            processes[0].kill()
            await reading[0]
            await publish(plane, events(seq + 1, seq + 500))
            seq += 500
            while {number for one in lines for number in one} != set(range(1, seq + 1)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert sum(map(len, lines)) - seq < 50  # those whose acknowledgement the killed worker had not sent yet
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await asyncio.gather(*reading)


@pytest.mark.slow
async def test_what_a_dead_worker_had_and_the_stream_has_dropped_is_a_gap(
    server: RedisServer, plane: RedisPublisher
) -> None:
    """The group of the test has a worker that never asks again."""
    await publish(plane, events(1, 5))
    async with client_of(server) as client:
        await client.xgroup_create(EVENTS, "workers", id="0")
        await client.xreadgroup("workers", "dead", {EVENTS: ">"}, count=3)
        await client.xtrim(EVENTS, maxlen=3, approximate=False)
    async with worker(server) as reading:
        assert await seqs(reading, 2) == [4, 5]
        items = await take(reading, 3)
        gaps = [item for item in items if isinstance(item, discorder.Gap)]
        assert [(gap.session, gap.from_seq, gap.to_seq) for gap in gaps] == [(SESSION, 1, 1), (SESSION, 2, 2)]
        assert [item.seq for item in items if not isinstance(item, discorder.Gap)] == [3]
        await reading.commit()
        assert await pending(server) == 0
