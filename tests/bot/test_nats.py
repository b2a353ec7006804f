"""`subscribe` over a real NATS server, as one bot: order, gaps, cursors, and what happens when the server goes away."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import discorder
from discorder.bot.subscription import Subscription
from discorder.errors import CursorInUse, SubscriptionFailed
from discorder.publishers.nats.publisher import NatsPublisher
from tests.bot.nats_streams import WITHIN, consumers, event, events, publish, publisher, seqs, take
from tests.publishers.nats_server import NatsServer, in_thread


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


def subscribe(server: NatsServer, *types: str, query: str = "", **how: Any) -> Subscription[Any]:
    return discorder.subscribe(server.url + query, types or None, **how)


async def logged(caplog: pytest.LogCaptureFixture, text: str, times: int = 1) -> None:
    while caplog.text.count(text) < times:  # noqa: ASYNC110  # the log wakes nobody
        await asyncio.sleep(0.01)


async def attached(reading: Subscription[Any], plane: NatsPublisher, seq: int, **how: Any) -> asyncio.Task[Any]:
    """Wait for the first item of a reader that begins now: events of a session of their own, until one arrives."""
    first = asyncio.create_task(take(reading, 1))
    while not first.done():
        await publish(plane, [event(seq, session="first", shard=(1, 2), **how)])
        seq += 1
        await asyncio.wait([first], timeout=0.05)
    return first


async def test_all_events_in_order_from_the_oldest(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, [*events(1, 300), *events(1, 300, shard=(1, 2), session="other")])
    async with subscribe(server, start="oldest") as reading:
        items = await take(reading, 600)
        assert [item.seq for item in items] == [*range(1, 301), *range(1, 301)]
        assert {item.session for item in items[300:]} == {"other"}
        await publish(plane, [event(301)])
        assert await seqs(reading, 1) == [301]


async def test_a_reader_is_a_consumer_that_the_server_removes(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, [event(1)])
    async with subscribe(server, start="oldest") as reading:
        assert await seqs(reading, 1) == [1]
        (found,) = await consumers(server)
    assert re.fullmatch("discorder_[0-9a-f]{16}", found["name"])
    config = found["config"]
    assert (config["inactive_threshold"], config["mem_storage"], config["ack_policy"]) == (60_000_000_000, True, "none")
    assert "durable_name" not in config


async def test_a_scheme_in_upper_case(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, [event(1)])
    async with discorder.subscribe(server.url.replace("nats", "NATS"), start="oldest") as reading:
        assert await seqs(reading, 1) == [1]


async def test_from_now_without_what_is_stored(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, events(1, 5))
    async with subscribe(server) as reading:
        (first,) = await (await attached(reading, plane, 1))
        assert first.shard == (1, 2)
        await publish(plane, events(6, 8))
        while (item := (await take(reading, 1))[0]).shard != (0, 2):
            pass
        assert [item.seq, *await seqs(reading, 2)] == [6, 7, 8]


async def test_only_the_wanted_types_and_each_missing_one_is_a_gap(server: NatsServer, plane: NatsPublisher) -> None:
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


async def test_decoded(server: NatsServer, plane: NatsPublisher) -> None:
    await publish(plane, [event(1, data=b'{"content":"hi"}')])
    async with discorder.subscribe(server.url, decode={"MESSAGE_CREATE": Message}, start="oldest") as reading:
        (item,) = await take(reading, 1)
        assert item.value == Message("hi")


# ---------------------------------------------------------------- the cursor


async def test_a_cursor_continues_after_the_last_processed_item(
    server: NatsServer, plane: NatsPublisher, tmp_path: Path
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


CURSOR_BOT = """\
import asyncio, sys, discorder

async def main() -> None:
    async with discorder.subscribe(sys.argv[1], start="oldest", cursor="bot.cursor") as events:
        async for item in events:
            print("gap" if isinstance(item, discorder.Gap) else item.seq, flush=True)

asyncio.run(main())
"""


@pytest.mark.heavy
@pytest.mark.system
async def test_a_bot_with_a_cursor_that_is_killed_misses_nothing(
    server: NatsServer, plane: NatsPublisher, tmp_path: Path
) -> None:
    read = list[str]()
    for last in (40, 80, 120):
        bot = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CURSOR_BOT, server.url), stdout=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        assert bot.stdout is not None
        await publish(plane, events(last - 39, last))
        async with asyncio.timeout(WITHIN):
            while str(last) not in read:
                read.append((await bot.stdout.readline()).decode().strip())
        bot.kill()
        await bot.wait()
    assert "gap" not in read
    assert set(read) == {str(seq) for seq in range(1, 121)}


async def test_an_event_that_was_stored_late_is_a_gap(server: NatsServer, plane: NatsPublisher) -> None:
    for seq in (1, 3, 2, 4):
        await publish(plane, [event(seq)])
    async with subscribe(server, start="oldest") as reading:
        first, gap, third, fourth = await take(reading, 4)
        assert isinstance(gap, discorder.Gap)
        assert (gap.from_seq, gap.to_seq) == (2, 2)
        assert [first.seq, third.seq, fourth.seq] == [1, 3, 4]


async def test_what_a_stream_drops_while_the_bot_is_away_is_a_gap(server: NatsServer, tmp_path: Path) -> None:
    plane = publisher(server, stream_bytes=4_000)
    await plane.open()
    cursor = tmp_path / "bot.cursor"
    await publish(plane, [event(1, "READY", prev=0), event(2, prev=0)])
    async with subscribe(server, start="oldest", cursor=cursor) as reading:
        assert await seqs(reading, 2) == [1, 2]
        await reading.commit()
    await publish(plane, [event(3, "TYPING_START", prev=0), *events(4, 60)])
    async with subscribe(server, cursor=cursor) as reading:
        gap, first = await take(reading, 2)
        assert isinstance(gap, discorder.Gap)
        assert (gap.from_seq, gap.to_seq, gap.types) == (3, first.seq - 1, None)
        rest = await seqs(reading, 60 - first.seq)
        assert rest == list(range(first.seq + 1, 61))
    await plane.close()


async def test_live_only_skips_what_came_meanwhile_and_says_so(
    server: NatsServer, plane: NatsPublisher, tmp_path: Path
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
    server: NatsServer, plane: NatsPublisher
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


@pytest.mark.heavy
async def test_a_server_and_a_stream_that_come_later(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    async with subscribe(server, start="oldest") as reading:
        waiting = asyncio.create_task(take(reading, 1))
        async with asyncio.timeout(WITHIN):
            await logged(caplog, "NATS: no NATS server can be reached")
            await in_thread(server.start)
            await logged(caplog, "has no stream of a control plane yet; waiting for it")
        plane = publisher(server)
        await plane.open()
        await publish(plane, [event(1)])
        assert [item.seq for item in await waiting] == [1]
        await plane.close()


@pytest.mark.heavy
async def test_each_outage_is_logged_and_its_end(
    server: NatsServer, plane: NatsPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "discorder.bot")
    await publish(plane, [event(1)])
    async with subscribe(server, start="oldest") as reading:
        assert await seqs(reading, 1) == [1]
        waiting = asyncio.create_task(take(reading, 1))
        for outage in (1, 2):
            server.kill()
            async with asyncio.timeout(WITHIN):
                await logged(caplog, "no NATS server can be reached", outage)
                await in_thread(server.start)
                await logged(caplog, "can be read", outage)
        assert caplog.text.count("no NATS server can be reached") == 2
        await publish(plane, [event(2)])
        assert [item.seq for item in await waiting] == [2]


@pytest.mark.heavy
async def test_a_right_that_is_missing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    denied = 'permissions: { publish: { deny: "$JS.API.CONSUMER.>" } }'
    users = f"{{user: plane, password: p}}, {{user: bot, password: secret, {denied}}}"
    server = NatsServer(tmp_path / "rights", f"authorization {{ users: [{users}] }}")
    server.start()
    try:
        plane = publisher(server, servers=server.url.replace("//", "//plane:p@"))
        await plane.open()
        await publish(plane, [event(1)])
        async with discorder.subscribe(server.url.replace("//", "//bot:secret@")) as reading, asyncio.timeout(WITHIN):
            waiting = asyncio.create_task(take(reading, 1))
            await logged(caplog, 'permissions violation for publish to "$js.api.consumer.create.discord_7.discorder_*"')
            waiting.cancel()
        await plane.close()
    finally:
        server.kill()


# ---------------------------------------------------------------- errors


async def test_several_streams(server: NatsServer, plane: NatsPublisher) -> None:
    other = publisher(server, prefix="discord.8")
    await other.open()
    await publish(other, [event(8)])
    async with subscribe(server) as reading:
        with pytest.raises(SubscriptionFailed, match=r"discord_7 \(prefix discord.7\), discord_8 \(prefix discord.8\)"):
            await take(reading, 1)
    async with subscribe(server, query="?prefix=discord.8", start="oldest") as reading:
        assert await seqs(reading, 1) == [8]
    async with subscribe(server, query="?stream=discord_8", start="oldest") as reading:
        assert await seqs(reading, 1) == [8]
    async with subscribe(server, query="?stream=discord_8&prefix=discord.7", start="oldest") as reading:
        with pytest.raises(SubscriptionFailed, match=r"its subjects are discord\.8"):
            await take(reading, 1)
    await other.close()


async def test_a_refused_login(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "locked", "authorization { user: bot, password: secret }")
    server.start()
    try:
        plane = publisher(server, servers=server.url.replace("//", "//bot:secret@"))
        await plane.open()
        await publish(plane, [event(1)])
        async with subscribe(server) as reading:
            with pytest.raises(SubscriptionFailed, match="NATS refused the login") as raised:
                await take(reading, 1)
        async with discorder.subscribe(server.url.replace("//", "//bot:secret@"), start="oldest") as reading:
            assert await seqs(reading, 1) == [1]
            assert "secret" not in reading.address + str(raised.value)
        await plane.close()
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("address", "how", "says"),
    [
        ("nats://127.0.0.1:4222?pre=x", {}, "pre is no key of a NATS address; allowed behind the ?: prefix, stream"),
        ("nats://127.0.0.1:99999", {}, "^'nats://127.0.0.1:99999' is no URL of a NATS server"),
        (
            "nats://10.0.0.1:4222",
            {},
            "^the connection to nats://10.0.0.1:4222 would carry .*, or add ?insecure=true to the",
        ),
        ("nats://127.0.0.1:4222?stream=a.b", {}, "^stream: 'a.b' is not allowed"),
        ("nats://127.0.0.1:4222?tls_cert_file=a", {}, "^tls_cert_file and tls_key_file belong together"),
        ("nats://10.0.0.1:4222?insecure=yes", {}, "must be true or false"),
        ("nats://127.0.0.1:4222?prefix=a..b", {}, "prefix"),
        (["nats://127.0.0.1:4222", "tcp://127.0.0.1:6000"], {}, "a list of addresses is for buses of ZeroMQ"),
        (
            ["nats://127.0.0.1", "nats://127.0.0.1:4223"],
            {},
            "a list of addresses is for buses of ZeroMQ; name one broker, and the servers of a NATS cluster",
        ),
        ("nats://127.0.0.1", {"start": "newest"}, 'start is \'newest\', and must be "now" or "oldest"'),
        ("nats://127.0.0.1:4222", {"state": True}, "only the control plane itself knows its guilds"),
        ("nats://127.0.0.1:4222", {"replay": "tcp://127.0.0.1:6001"}, "replay is for a bus of ZeroMQ"),
        ("tcp://127.0.0.1:6000", {"group": "workers"}, "group: only a broker divides events"),
    ],
)
def test_arguments_that_do_not_fit(address: Any, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")) as raised:
        discorder.subscribe(address, **how)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None  # one traceback, not several


@pytest.mark.system
def test_without_the_extra() -> None:
    """`import discorder` and a bus of ZeroMQ need no NATS; an address that does says how to get it."""
    program = (
        "import sys; sys.modules['nats'] = None; import discorder; discorder.subscribe('ipc:///tmp/none')\n"
        "try: discorder.subscribe('nats://127.0.0.1')\n"
        "except discorder.DiscorderError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == (
        "nats:// needs the package nats: pip install 'discorder[nats]', or in a checkout: pip install '.[nats]'\n"
    )
