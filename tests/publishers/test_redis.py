"""The publisher ``redis`` before a real server: what the streams have, through everything that may happen to the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from discorder.errors import ConfigError, PublisherError, PublisherUnreachable
from discorder.publishers.redis.publisher import RedisPublisher
from discorder.records import ReplayCount, resumed_record
from discorder.wire import Event
from tests.publishers.nats_server import in_thread
from tests.publishers.redis_server import RedisServer, client_of, read_shard, read_stream, streams

MakeEvent = Callable[..., Event]
Make = Callable[..., RedisPublisher]

PREFIX = "discord:7"
EVENTS, RECORDS = "discord:7:1:0", "discord:7:record:1:0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def make(server: RedisServer) -> AsyncIterator[Make]:
    """Make publishers before the server; they are closed at the end."""
    made: list[RedisPublisher] = []

    def publisher(**settings: Any) -> RedisPublisher:
        made.append(RedisPublisher(**{"url": server.url, "prefix": PREFIX, "maxlen": 10_000, **settings}))
        return made[-1]

    yield publisher
    for one in made:
        await one.close()


async def ids(server: RedisServer, key: str = EVENTS) -> list[tuple[int, int]]:
    parts = [one.id.split("-") for one in await read_stream(server, key)]
    return [(int(ms), int(seq)) for ms, seq in parts]


async def sessions_and_seqs(server: RedisServer, key: str = EVENTS) -> list[str]:
    documents = [one.document for one in await read_stream(server, key)]
    return [f"{one.session}:{one.seq}" for one in documents]


async def publish_until_accepted(publisher: RedisPublisher, events: list[Event]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await publisher.publish(events)
            except PublisherError:
                await asyncio.sleep(0.01)
            else:
                return


def record(replayed: int, shard: tuple[int, int] = (0, 1)) -> Event:
    return resumed_record(shard, "5e55", datetime(2026, 1, 1, tzinfo=UTC), replayed)


# ---------------------------------------------------------------- entries


async def test_each_shard_has_a_stream_of_events_and_one_of_records(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """Any program can read them: the fields are the type and the document; a record names the event before it."""
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(1, "READY", shard=(3, 16)), record(5, (3, 16)), make_event(2, shard=(3, 16))])
    assert await streams(server) == ["discord:7:16:3", "discord:7:record:16:3"]
    first, second = await read_stream(server, "discord:7:16:3")
    assert list(first.fields) == ["type", "document"]
    assert (first.fields["type"], first.document.type, first.document.seq) == (b"READY", "READY", 1)
    assert second.document.seq == 2
    (told,) = await read_stream(server, "discord:7:record:16:3")
    assert list(told.fields) == ["type", "document", "after"]
    assert (told.fields["type"], told.fields["after"].decode()) == (b"DISCORDER_RESUMED", first.id)
    assert told.document.decode(ReplayCount) == ReplayCount(5)


async def test_the_prefix_has_the_id_of_the_bot(server: RedisServer, make: Make, make_event: MakeEvent) -> None:
    publisher = make(prefix="")
    with pytest.raises(ConfigError, match=r"publishers\.redis\.prefix: the bot token does not contain"):
        await publisher.open()
    publisher.belongs_to(7)
    await publisher.open()
    await publisher.publish([make_event(1)])
    assert await streams(server) == [EVENTS]


async def test_a_long_stream_drops_its_oldest_entries(server: RedisServer, make: Make, make_event: MakeEvent) -> None:
    """The server drops whole blocks, so a few more than maxlen may stay."""
    publisher = make(maxlen=300)
    await publisher.open()
    for first in range(1, 2_001, 200):
        await publisher.publish([make_event(seq) for seq in range(first, first + 200)])
    kept = [seq for _, seq in await ids(server)]
    assert 300 <= len(kept) < 600
    assert kept == list(range(2_001 - len(kept), 2_001))


async def test_a_large_event_is_stored(server: RedisServer, make: Make, make_event: MakeEvent) -> None:
    publisher = make()
    await publisher.open()
    large = make_event(1, "GUILD_CREATE", b'"' + b"x" * 8_000_000 + b'"')
    await publisher.publish([large])
    (entry,) = await read_stream(server, EVENTS)
    assert entry.fields["document"] == large.document


# ---------------------------------------------------------------- each event once


async def test_the_id_is_the_start_of_the_session_and_the_sequence(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """The start stays the same over restarts, and rises with each session, also when the clock was set back."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ms = int(start.timestamp() * 1_000)
    for seq, session, at in (
        (1, "01d", start),
        (2, "01d", start + timedelta(minutes=5)),
        (1, "4e3", start - timedelta(hours=1)),
        (2, "4e3", start + timedelta(hours=1)),
    ):
        publisher = make()
        await publisher.open()
        event = make_event(seq, session=session)
        event.received_at = at
        await publisher.publish([event])
        await publisher.close()
    assert await ids(server) == [(ms, 1), (ms, 2), (ms + 1, 1), (ms + 1, 2)]


@pytest.mark.parametrize("deleted", [False, True])
async def test_what_the_stream_has_is_not_sent_again(
    server: RedisServer, make: Make, make_event: MakeEvent, deleted: bool
) -> None:
    """A process was killed before it knew; the next one offers the same events. A reader may have deleted them meanwhile."""
    first, second = make(), make()
    await first.open()
    await first.publish([make_event(seq, shard=(seq % 2, 2), session=f"5e55{seq % 2}") for seq in range(1, 7)])
    await first.close()
    if deleted:
        async with client_of(server) as client:
            for key in ("discord:7:2:0", "discord:7:2:1"):
                await client.xtrim(key, maxlen=0)
    await second.open()
    await second.publish([make_event(seq, shard=(seq % 2, 2), session=f"5e55{seq % 2}") for seq in range(1, 10)])
    assert [seq for _, seq in await ids(server, "discord:7:2:0")] == ([8] if deleted else [2, 4, 6, 8])
    assert [seq for _, seq in await ids(server, "discord:7:2:1")] == ([7, 9] if deleted else [1, 3, 5, 7, 9])


async def test_a_batch_whose_answer_was_lost_is_stored_once(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """Records have no sequence; the publisher finds them by the id that it gave them."""
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(1)])
    batch = [make_event(2), record(1), record(2), make_event(3)]
    server.freeze()
    sending = asyncio.create_task(publisher.publish(batch))
    await asyncio.sleep(0.05)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    server.thaw()
    async with asyncio.timeout(60):
        while len(await ids(server)) < 3:  # noqa: ASYNC110  # the server carries it out in its own time
            await asyncio.sleep(0.01)
    await publisher.publish(batch)
    assert [seq for _, seq in await ids(server)] == [1, 2, 3]
    assert [one.document.decode(ReplayCount).replayed for one in await read_stream(server, RECORDS)] == [1, 2]
    assert [one.seq for one in await read_shard(server, PREFIX)] == [1, 2, None, None, 3]


async def test_an_event_that_another_process_stored_meanwhile_counts_as_stored(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """Two processes hold the same session for a moment, as at a takeover. The server refuses the repeats."""
    old, new = make(), make()
    for publisher in (old, new):
        await publisher.open()
        await publisher.publish([make_event(1)])
    await new.publish([make_event(2), make_event(3)])
    await old.publish([make_event(2), make_event(3), make_event(4)])
    assert [seq for _, seq in await ids(server)] == [1, 2, 3, 4]


async def test_a_refused_event_that_the_stream_does_not_have_is_an_error_and_sent_again(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """Another process stored 2 and 4 of the same session: 3 is refused and not there, so it gets a later id. Nothing is lost."""
    old, new = make(), make()
    for publisher in (old, new):
        await publisher.open()
        await publisher.publish([make_event(1)])
    await new.publish([make_event(2), make_event(4)])
    with pytest.raises(
        PublisherError, match=r"Redis refused 1 of 4 entries.*equal or smaller.*is there another program"
    ):
        await old.publish([make_event(seq) for seq in (2, 3, 4, 5)])
    await old.publish([make_event(seq) for seq in (2, 3, 4, 5)])
    await old.publish([make_event(6)])
    found = await ids(server)
    assert [seq for _, seq in found] == [1, 2, 4, 5, 3, 6]
    assert found == sorted(found)


async def test_a_foreign_entry_costs_no_event(server: RedisServer, make: Make, make_event: MakeEvent) -> None:
    """A program wrote an id of the server's clock: every id of the session is too late from then on."""
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(1), record(1)])
    async with client_of(server) as client:
        await client.xadd(EVENTS, {"document": make_event(0).document})
        await client.xadd(RECORDS, {"document": make_event(0).document, "after": "0-0"})
    with pytest.raises(PublisherError, match="Redis refused 2 of 2 entries"):
        await publisher.publish([make_event(2), record(2)])
    await publisher.publish([make_event(2), record(2)])
    await publisher.publish([make_event(3), record(3)])
    assert [seq for _, seq in await ids(server)][2:] == [2, 3]
    assert len(await ids(server, RECORDS)) == 4
    restarted = make()
    await restarted.open()
    await restarted.publish([make_event(3), make_event(4)])
    assert [seq for _, seq in await ids(server)][2:] == [2, 3, 4]


async def test_a_key_of_another_program_is_an_error_with_the_remedy(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    async with client_of(server) as client:
        await client.set(EVENTS, "5")
    publisher = make()
    await publisher.open()
    with pytest.raises(PublisherError, match=r"the key discord:7:1:0 cannot be used .*delete it .*another prefix"):
        await publisher.publish([make_event(1)])
    async with client_of(server) as client:
        await client.delete(EVENTS)
    await publisher.publish([make_event(1)])
    assert [seq for _, seq in await ids(server)] == [1]


# ---------------------------------------------------------------- the server


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_killed_server_keeps_what_it_accepted(
    server: RedisServer, make: Make, make_event: MakeEvent, emptied: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With its files, the stream goes on. Without them a gap record tells the loss of each shard, and so does the log."""
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(seq) for seq in (1, 2, 5)])
    await publisher.publish([make_event(1, shard=(1, 2), session="0e7")])
    server.kill()
    if emptied:
        server.empty()
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(6)])
    assert [seq for _, seq in await ids(server)] == ([6] if emptied else [1, 2, 5, 6])
    told = [await read_stream(server, key) for key in (RECORDS, "discord:7:record:2:1")]
    losses = [one.document.json() for entries in told for one in entries]
    if not emptied:
        assert (losses, publisher.dropped, publisher.gaps) == ([], 0, 0)
        return
    assert [(one["from_seq"], one["to_seq"], one["kind"], one["publisher"]) for one in losses] == [
        (1, 5, "publisher", "redis"),
        (1, 1, "publisher", "redis"),
    ]
    assert [entries[0].document.session for entries in told] == [make_event(1).session, "0e7"]
    assert "came back without events that it had accepted" in caplog.text
    assert (publisher.dropped, publisher.gaps) == (4, 2)


async def test_a_session_after_the_loss_of_all_data_has_a_later_start(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """All events of the test have the same time. A reader goes on after the last id that it has seen."""
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(seq) for seq in (1, 2, 3)])
    before = await ids(server)
    async with client_of(server) as client:
        await client.flushall()
    server.kill()
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(1, session="4e3")])
    assert (await ids(server))[0] > max(before)


async def test_a_server_that_lost_only_the_end_tells_only_the_end(
    server: RedisServer, make: Make, make_event: MakeEvent
) -> None:
    """As after a power failure with appendfsync everysec, or a fail-over to a replica that was behind."""
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(seq) for seq in (1, 2)])
    file = next((server.folder / "appendonlydir").glob("*.incr.aof"))
    size = file.stat().st_size
    await publisher.publish([make_event(seq) for seq in (3, 4)])
    server.kill()
    with file.open("ab") as content:
        content.truncate(size)
    await in_thread(server.start)
    await publish_until_accepted(publisher, [make_event(5)])
    assert [seq for _, seq in await ids(server)] == [1, 2, 5]
    (told,) = await read_stream(server, RECORDS)
    assert (told.document.json()["from_seq"], told.document.json()["to_seq"]) == (3, 4)
    assert publisher.dropped == 2


@pytest.mark.parametrize(
    ("stored", "gets_all", "told"),
    [(0, True, [(1, 5)]), (3, True, [(4, 5)]), (5, True, []), (7, True, []), (0, False, [(1, 5)]), (3, False, [])],
)
async def test_what_an_earlier_process_had_stored_and_the_server_has_lost_is_told(
    server: RedisServer, make: Make, make_event: MakeEvent, stored: int, gets_all: bool, told: list[tuple[int, int]]
) -> None:
    """A publisher that does not get all events cannot know that those at the end are missing."""
    earlier, publisher = make(), make(gets_all=gets_all)
    await earlier.open()
    await earlier.publish([make_event(seq) for seq in range(1, stored + 1)])
    publisher.goes_on((0, 1), make_event(1).session or "", 5)
    await publisher.open()
    await publisher.publish([make_event(6)])
    await publisher.publish([make_event(7)])
    losses = [one.document.json() for one in await read_stream(server, RECORDS)]
    assert [(one["from_seq"], one["to_seq"]) for one in losses] == told
    assert [seq for _, seq in await ids(server)][stored:] == [seq for seq in (6, 7) if seq > stored]


async def test_a_full_server_refuses_the_whole_batch(server: RedisServer, make: Make, make_event: MakeEvent) -> None:
    publisher = make()
    await publisher.open()
    await publisher.publish([make_event(1)])
    async with client_of(server) as client:
        await client.config_set("maxmemory", 1)
        with pytest.raises(PublisherError, match="used memory > 'maxmemory'"):
            await publisher.publish([make_event(2), make_event(3)])
        await client.config_set("maxmemory", 0)
    await publisher.publish([make_event(2), make_event(3)])
    assert [seq for _, seq in await ids(server)] == [1, 2, 3]


@pytest.mark.heavy
async def test_a_server_that_stands_still_is_noticed(server: RedisServer, make: Make, make_event: MakeEvent) -> None:
    """The batch is refused, not waited for without end; closing does not wait, either. Afterwards each event is there once."""
    publisher, other = make(), make()
    await publisher.open()
    await other.open()
    await publisher.publish([make_event(1)])
    server.freeze()
    large = [make_event(seq, data=b'"' + b"x" * 700_000 + b'"') for seq in range(2, 12)]  # more than any buffer between
    with pytest.raises(PublisherError, match=r"no answer in time|Timeout"):
        await publisher.publish(large)
    with pytest.raises(PublisherUnreachable, match=r"cannot be reached|does not answer"):
        await publisher.publish(large)
    sending = asyncio.create_task(other.publish(large))
    await asyncio.sleep(0.05)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await asyncio.wait_for(other.close(), 5)
    server.thaw()
    await publish_until_accepted(publisher, large)
    assert [seq for _, seq in await ids(server)] == list(range(1, 12))


async def test_without_a_server_the_error_shows_no_password(make: Make) -> None:
    publisher = make(url="redis://bot:hunter2@127.0.0.1:1/3")
    with pytest.raises(PublisherUnreachable) as caught:
        await publisher.open()
    assert "publishers.redis.url: the Redis server cannot be reached (redis://127.0.0.1:1/3: " in str(caught.value)
    assert "start it, or correct the address" in str(caught.value)
    assert "hunter2" not in str(caught.value)
