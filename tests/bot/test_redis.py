"""`subscribe` over a real Valkey server, as one bot: order, gaps, cursors, and what happens when the server goes away."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import discorder
from discorder.bot.subscription import Subscription
from discorder.errors import CursorInUse, SubscriptionFailed
from discorder.publishers.redis.publisher import RedisPublisher
from discorder.records import LossKind, LostEvents, gap_record, resumed_record
from tests.bot.nats_streams import SESSION, WITHIN, event, events, publish, seqs, take
from tests.publishers.nats_server import in_thread
from tests.publishers.redis_server import RedisServer, client_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def plane(server: RedisServer) -> AsyncIterator[RedisPublisher]:
    made = publisher(server)
    await made.open()
    yield made
    await made.close()


def publisher(server: RedisServer, **settings: Any) -> RedisPublisher:
    return RedisPublisher(**{"url": server.url, "prefix": "discord:7", "maxlen": 10_000, **settings})


def subscribe(server: RedisServer, *types: str, query: str = "", **how: Any) -> Subscription[Any]:
    return discorder.subscribe(server.url + query, types or None, **how)


async def logged(caplog: pytest.LogCaptureFixture, text: str, times: int = 1) -> None:
    while caplog.text.count(text) < times:  # noqa: ASYNC110  # the log wakes nobody
        await asyncio.sleep(0.01)


async def attached(reading: Subscription[Any], plane: RedisPublisher, seq: int, **how: Any) -> asyncio.Task[Any]:
    """Wait for the first item of a reader that begins now: events of a session of their own, until one arrives."""
    first = asyncio.create_task(take(reading, 1))
    while not first.done():
        await publish(plane, [event(seq, session="first", shard=(1, 2), **how)])
        seq += 1
        await asyncio.wait([first], timeout=0.05)
    return first


async def test_all_events_in_order_from_the_oldest(server: RedisServer, plane: RedisPublisher) -> None:
    await publish(plane, [*events(1, 300), *events(1, 300, shard=(1, 2), session="other")])
    async with subscribe(server, start="oldest") as reading:
        items = await take(reading, 600)
        for shard in (0, 1):
            assert [item.seq for item in items if item.shard[0] == shard] == list(range(1, 301))
        await publish(plane, [event(301)])
        assert await seqs(reading, 1) == [301]


async def test_a_scheme_in_upper_case(server: RedisServer, plane: RedisPublisher) -> None:
    await publish(plane, [event(1)])
    async with discorder.subscribe(server.url.replace("redis", "REDIS"), start="oldest") as reading:
        assert await seqs(reading, 1) == [1]


async def test_from_now_without_what_is_stored(server: RedisServer, plane: RedisPublisher) -> None:
    await publish(plane, events(1, 5))
    async with subscribe(server) as reading:
        (first,) = await (await attached(reading, plane, 1))
        assert first.shard == (1, 2)
        await publish(plane, events(6, 8))
        while (item := (await take(reading, 1))[0]).shard != (0, 2):
            pass
        assert [item.seq, *await seqs(reading, 2)] == [6, 7, 8]


async def test_only_the_wanted_types_and_each_missing_one_is_a_gap(server: RedisServer, plane: RedisPublisher) -> None:
    """The server filters; ``prev`` tells what the stream does not have."""
    await publish(
        plane,
        [
            event(1, "READY", prev=0),
            event(2, prev=0),
            event(3, "TYPING_START", prev=0),
            event(5, prev=4),
            event(7, "MESSAGE_UPDATE", prev=0),
        ],
    )
    async with subscribe(server, "MESSAGE_CREATE", "MESSAGE_UPDATE", start="oldest") as reading:
        first, gap, second, third = await take(reading, 4)
    assert [first.seq, second.seq, third.seq] == [2, 5, 7]
    assert isinstance(gap, discorder.Gap)
    assert (gap.kind, gap.from_seq, gap.to_seq, gap.types) == ("subscriber", 3, 4, frozenset({"MESSAGE_CREATE"}))
    assert "the stream does not have it" in gap.cause


class Message(msgspec.Struct):
    content: str


async def test_decoded(server: RedisServer, plane: RedisPublisher) -> None:
    await publish(plane, [event(1, data=b'{"content":"hi"}')])
    async with discorder.subscribe(server.url, decode={"MESSAGE_CREATE": Message}, start="oldest") as reading:
        (item,) = await take(reading, 1)
        assert item.value == Message("hi")


# ---------------------------------------------------------------- the cursor


async def test_a_cursor_continues_after_the_last_processed_item(
    server: RedisServer, plane: RedisPublisher, tmp_path: Path
) -> None:
    cursor = tmp_path / "bot.cursor"
    await publish(plane, events(1, 10))
    async with subscribe(server, start="oldest", cursor=cursor) as reading:
        assert await seqs(reading, 5) == [1, 2, 3, 4, 5]
        with pytest.raises(CursorInUse):
            subscribe(server, cursor=cursor)
    async with subscribe(server, cursor=cursor) as reading:
        assert await seqs(reading, 2) == [5, 6]  # the fifth was not processed
        await reading.commit()
    async with subscribe(server, cursor=cursor) as reading:
        assert await seqs(reading, 4) == [7, 8, 9, 10]


async def test_what_a_stream_drops_while_the_bot_is_away_is_a_gap(server: RedisServer, tmp_path: Path) -> None:
    plane = publisher(server, maxlen=10)
    await plane.open()
    cursor = tmp_path / "bot.cursor"
    await publish(plane, [event(1, "READY", prev=0), event(2, prev=0)])
    async with subscribe(server, start="oldest", cursor=cursor) as reading:
        assert await seqs(reading, 2) == [1, 2]
        await reading.commit()
    await publish(plane, [event(3, "TYPING_START", prev=0), *events(4, 500)])
    async with subscribe(server, cursor=cursor) as reading:
        gap, first = await take(reading, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.from_seq, gap.to_seq, gap.types) == (3, first.seq - 1, None)
        rest = await seqs(reading, 500 - first.seq)
        assert rest == list(range(first.seq + 1, 501))
    await plane.close()


async def test_live_only_skips_what_came_meanwhile_and_says_so(
    server: RedisServer, plane: RedisPublisher, tmp_path: Path
) -> None:
    cursor = tmp_path / "bot.cursor"
    await publish(plane, events(1, 2))
    async with subscribe(server, start="oldest", cursor=cursor) as reading:
        assert await seqs(reading, 2) == [1, 2]
        await reading.commit()
    await publish(plane, events(3, 5))
    async with subscribe(server, cursor=cursor, live_only=True) as reading:
        first = asyncio.create_task(take(reading, 1))
        seq = 5
        while not first.done():
            seq += 1
            await publish(plane, [event(seq)])
            await asyncio.wait([first], timeout=0.05)
        (gap,) = await first
        assert isinstance(gap, discorder.Gap)
        assert gap.from_seq == 3
        assert gap.to_seq is not None
        assert gap.to_seq >= 5
        assert await seqs(reading, 1) == [gap.to_seq + 1]


# ---------------------------------------------------------------- the server goes away


@pytest.mark.heavy
async def test_nothing_is_lost_when_the_server_is_killed_frozen_or_emptied(
    server: RedisServer, plane: RedisPublisher
) -> None:
    await publish(plane, [event(1, "READY", prev=0), event(2, prev=0)])
    async with subscribe(server, start="oldest") as reading:
        assert await seqs(reading, 2) == [1, 2]
        server.kill()
        await in_thread(server.start)
        await publish(plane, events(3, 4))
        assert await seqs(reading, 2) == [3, 4]
        server.freeze()
        await asyncio.sleep(7)
        server.thaw()
        await publish(plane, events(5, 6))
        assert await seqs(reading, 2) == [5, 6]
        server.kill()
        server.empty()
        await in_thread(server.start)
        await publish(plane, [event(9, prev=8)])
        gap, item = await take(reading, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.from_seq, gap.to_seq, item.seq) == (7, 8, 9)


async def test_records_are_in_their_places(server: RedisServer, plane: RedisPublisher) -> None:
    """They are in another stream. A session that ended is a gap before the next one; what comes after it is not."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    many = [resumed_record((0, 2), SESSION, moment + timedelta(seconds=n), n) for n in range(600)]
    await publish(plane, events(1, 3))
    for first in range(0, 600, 200):
        await publish(plane, many[first : first + 200])
    await publish(plane, events(4, 400))
    lost = LostEvents(LossKind.SESSION, None, 401, None, "the session ended", moment, moment)
    await publish(plane, [gap_record((0, 2), SESSION, moment, lost), event(1, "READY", prev=0, session="next")])
    async with subscribe(server, start="oldest") as reading:
        items = await take(reading, 1_002)
    assert [item.seq for item in items[:4]] == [1, 2, 3, None]
    assert [item.seq for item in items[603:1_000]] == list(range(4, 401))
    gap, ready = items[1_000:]
    assert isinstance(gap, discorder.Gap)
    assert (gap.kind, gap.session, gap.from_seq, ready.type) == ("session", SESSION, 401, "READY")


@pytest.mark.heavy
async def test_a_server_and_a_stream_that_come_later(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    async with subscribe(server) as reading:
        waiting = asyncio.create_task(take(reading, 1))
        async with asyncio.timeout(WITHIN):
            await logged(caplog, "the Redis server cannot be reached")
            await in_thread(server.start)
            await logged(caplog, "has no streams of a control plane yet; waiting for them")
        plane = publisher(server)
        await plane.open()
        await publish(plane, [event(1)])
        assert [item.seq for item in await waiting] == [1]  # although it begins now: that was before the event
        await plane.close()


@pytest.mark.heavy
async def test_each_outage_is_logged_and_its_end(
    server: RedisServer, plane: RedisPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "discorder.bot")
    await publish(plane, [event(1)])
    async with subscribe(server, start="oldest") as reading:
        assert await seqs(reading, 1) == [1]
        waiting = asyncio.create_task(take(reading, 1))
        for outage in (1, 2):
            server.kill()
            async with asyncio.timeout(WITHIN):
                await logged(caplog, "the Redis server cannot be reached", outage)
                await in_thread(server.start)
                await logged(caplog, "can be read", outage)
        assert caplog.text.count("the Redis server cannot be reached") == 2
        await publish(plane, [event(2)])
        assert [item.seq for item in await waiting] == [2]


@pytest.mark.heavy
@pytest.mark.parametrize("how", [{}, {"group": "workers"}])
async def test_a_prefix_without_streams(
    server: RedisServer, plane: RedisPublisher, how: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await publish(plane, [event(1)])  # of another control plane
    async with subscribe(server, query="?prefix=discord:9", **how) as reading:
        waiting = asyncio.create_task(take(reading, 1))
        async with asyncio.timeout(WITHIN):
            await logged(caplog, "has no streams of a control plane with the prefix discord:9 yet; waiting for them")
        other = publisher(server, prefix="discord:9")
        await other.open()
        await publish(other, [event(2)])
        assert [item.seq for item in await waiting] == [2]
        await other.close()


@pytest.mark.heavy
async def test_a_right_that_is_missing_is_logged(
    server: RedisServer, plane: RedisPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(plane, [event(1)])
    async with client_of(server) as client:
        await client.execute_command("ACL", "SETUSER", "bot", "on", ">secret", *READER.replace(" +xread", "").split())
        address = server.url.replace("//", "//bot:secret@") + "?prefix=discord:7"
        async with discorder.subscribe(address, start="oldest") as reading, asyncio.timeout(WITHIN):
            waiting = asyncio.create_task(take(reading, 1))
            await logged(caplog, "no permissions to run the 'xread' command; trying again")
            await client.execute_command("ACL", "SETUSER", "bot", "+xread")
            assert [item.seq for item in await waiting] == [1]


# ---------------------------------------------------------------- errors


async def test_several_control_planes(server: RedisServer, plane: RedisPublisher) -> None:
    await publish(plane, [event(7)])
    other = publisher(server, prefix="discord:8")
    await other.open()
    await publish(other, [event(8)])
    async with subscribe(server) as reading:
        with pytest.raises(SubscriptionFailed, match=r"several control planes: discord:7, discord:8\. Choose one"):
            await take(reading, 1)
    async with subscribe(server, query="?prefix=discord:8", start="oldest") as reading:
        assert await seqs(reading, 1) == [8]
    await other.close()


async def test_a_refused_login(server: RedisServer, plane: RedisPublisher) -> None:
    await publish(plane, [event(1)])
    async with client_of(server) as client:
        await client.config_set("requirepass", "secret")
        async with subscribe(server) as reading:
            with pytest.raises(SubscriptionFailed, match="Redis refused the login") as raised:
                await take(reading, 1)
        async with discorder.subscribe(server.url.replace("//", "//:secret@"), start="oldest") as reading:
            assert await seqs(reading, 1) == [1]
            assert "secret" not in reading.address + str(raised.value)
        await client.config_set("requirepass", "")


READER = "~discord:7:* +ping +smembers +xread +xrange +xinfo|stream +client|setname"
WORKER = (
    f"{READER} +xgroup|create +xgroup|delconsumer +xreadgroup +xack +xclaim +xautoclaim +xinfo|consumers +xinfo|groups "
    "+hmget"
)


@pytest.mark.parametrize(
    ("rights", "query", "how"),
    [
        (READER, "?prefix=discord:7", {}),
        (f"{READER} +scan", "", {}),
        (WORKER, "?prefix=discord:7", {"group": "workers"}),
    ],
    ids=["reader", "reader without a prefix", "worker"],
)
async def test_the_rights_in_the_documentation_suffice(
    server: RedisServer, plane: RedisPublisher, rights: str, query: str, how: dict[str, Any]
) -> None:
    await publish(plane, events(1, 3))
    async with client_of(server) as client:
        await client.execute_command("ACL", "SETUSER", "reader", "on", ">hunter2", *rights.split())
    address = server.url.replace("//", "//reader:hunter2@") + query
    async with discorder.subscribe(address, start="oldest", **how) as reading:
        assert await seqs(reading, 2) == [1, 2]
        await reading.commit()
    async with discorder.subscribe(address, start="oldest", **how) as reading:
        assert await seqs(reading, 1) == [3 if how else 1]


@pytest.mark.parametrize("how", [{}, {"group": "workers"}])
async def test_a_database_that_the_server_does_not_have(server: RedisServer, how: dict[str, Any]) -> None:
    async with subscribe(server, query="/99", **how) as reading, asyncio.timeout(WITHIN):
        with pytest.raises(SubscriptionFailed, match="the server has no database 99"):
            await take(reading, 1)


@pytest.mark.parametrize(
    ("address", "how", "says"),
    [
        ("redis://127.0.0.1?pre=x", {}, "pre is no key of a Redis address; allowed behind the ?: prefix, tls_ca_file"),
        ("redis://127.0.0.1:99999", {}, "^the address: 'redis://127.0.0.1:99999' is no URL of a Redis server"),
        ("redis://10.0.0.1", {}, "unencrypted over the network; use rediss://, or add insecure=true behind a ?"),
        ("redis://10.0.0.1?insecure=yes", {}, "must be true or false"),
        ("redis://127.0.0.1?prefix=a::b", {}, "prefix"),
        (["redis://127.0.0.1", "tcp://127.0.0.1:6000"], {}, "a list of addresses is for buses of ZeroMQ"),
        (
            ["redis://127.0.0.1", "redis://127.0.0.1:6380"],
            {},
            "a list of addresses is for buses of ZeroMQ; name one broker$",
        ),
        ("redis://127.0.0.1", {"start": "newest"}, 'start is \'newest\', and must be "now" or "oldest"'),
        ("rediss://127.0.0.1", {"state": True}, "only the control plane itself knows its guilds"),
        ("redis://127.0.0.1", {"replay": "tcp://127.0.0.1:6001"}, "replay is for a bus of ZeroMQ"),
        ("redis://127.0.0.1", {"group": "a.b"}, "group is 'a.b'"),
        ("redis://127.0.0.1", {"group": "workers", "cursor": "x"}, "the server keeps the position of a group"),
        ("redis://127.0.0.1", {"group": "workers", "live_only": True}, "a group gets every event"),
    ],
)
def test_arguments_that_do_not_fit(address: Any, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        discorder.subscribe(address, **how)


@pytest.mark.system
def test_without_the_extra() -> None:
    """`import discorder` and a bus of ZeroMQ need no redis-py; an address that does says how to get it."""
    program = (
        "import sys; sys.modules['redis'] = None; import discorder; discorder.subscribe('ipc:///tmp/none')\n"
        "try: discorder.subscribe('redis://127.0.0.1')\n"
        "except discorder.DiscorderError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == (
        "redis:// needs the package redis: pip install 'discorder[redis]', or in a checkout: pip install '.[redis]'\n"
    )
