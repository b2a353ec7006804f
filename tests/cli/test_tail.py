"""`discorder tail` where nothing comes: it says why, and goes on waiting; and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discorder.curve import generate, load_pair
from discorder.publishers.redis.publisher import RedisPublisher
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event
from tests.bot.nats_streams import publish, publisher
from tests.commandline import Command
from tests.publishers.nats_server import NatsServer
from tests.publishers.redis_server import RedisServer

pytestmark = pytest.mark.system


def event(seq: int) -> Event:
    return Event("MESSAGE_CREATE", (0, 1), seq, seq - 1, "0123456789abcdef", datetime(2026, 1, 1, tzinfo=UTC), b"{}")


class Tail:
    """A `discorder tail` in a separate process, and what it has written to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.err = ""

    async def says(self, *words: str) -> None:
        """Wait until one line of stderr has all of ``words``."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while not any(all(word in line for word in words) for line in self.err.splitlines()):
                line = await self.process.stderr.readline()
                assert line, self.err
                self.err += line.decode()

    async def ends(self) -> int:
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            self.err += (await self.process.stderr.read()).decode()
            return await self.process.wait()


StartTail = Callable[..., Awaitable[Tail]]


@pytest.fixture
async def tail(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[StartTail]:
    started: list[Tail] = []

    async def start(*arguments: str, stdout: int = asyncio.subprocess.PIPE) -> Tail:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "tail", *arguments),
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd=tmp_path,
        )
        started.append(Tail(process))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        await one.process.communicate()


@pytest.fixture
async def keys(tmp_path: Path) -> Path:
    """A folder with the key pairs ``bus``, ``bot`` and ``stranger``."""
    for name in ("bus", "bot", "stranger"):
        generate(tmp_path / name)
    return tmp_path


def public(keys: Path, name: str) -> str:
    return load_pair(keys / f"{name}.key_secret", "key").public.decode()


@pytest.fixture
async def encrypted(keys: Path) -> AsyncIterator[ZmqPublisher]:
    """A bus with CURVE that knows the key of ``bot`` alone."""
    bus = ZmqPublisher(
        "tcp://127.0.0.1:0", curve_secret_file=str(keys / "bus.key_secret"), curve_clients=[public(keys, "bot")]
    )
    await bus.open()
    yield bus
    await bus.close()


async def test_a_control_plane_that_is_not_there_is_named_and_waited_for(tail: StartTail) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    waiting = await tail("--replay", address)
    await waiting.says("no control plane answers at", address, "waiting for it")
    bus = ZmqPublisher(address, replay="")
    await bus.open()
    await waiting.says(f"the bus at {address} answers")
    waiting.process.send_signal(signal.SIGTERM)
    assert await waiting.ends() == 0
    assert waiting.err.count("\n") == 2
    await bus.close()


@pytest.mark.heavy
async def test_a_bus_that_is_there_and_quiet_is_not_complained_about(tail: StartTail, tmp_path: Path) -> None:
    bus = ZmqPublisher(f"ipc://{tmp_path}/bus")
    await bus.open()
    waiting = await tail(f"ipc://{tmp_path}/bus")
    await asyncio.sleep(3.5)
    waiting.process.send_signal(signal.SIGTERM)
    assert await waiting.ends() == 0
    assert waiting.err == ""
    await bus.close()


async def test_a_key_that_is_refused_is_told_to_both_sides(
    tail: StartTail, encrypted: ZmqPublisher, keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line at the bus comes once a minute, however often the client tries again."""
    (address,) = encrypted.endpoints
    caplog.set_level(logging.WARNING, "discorder")
    options = ("--server-key", public(keys, "bus"), "--secret-file", str(keys / "stranger.key_secret"))
    refused = await tail(*options, address)
    stranger = public(keys, "stranger")
    await refused.says(address, "refuses the key of", "stranger.key_secret", "curve_clients", stranger)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"publishers.zmq.curve_clients does not list the key {stranger}, so this client is refused"]


@pytest.mark.heavy
async def test_keys_that_do_not_fit_are_named(tail: StartTail, encrypted: ZmqPublisher, keys: Path) -> None:
    (address,) = encrypted.endpoints
    without = await tail(address)
    wrong = await tail("--server-key", public(keys, "bot"), "--secret-file", str(keys / "bot.key_secret"), address)
    await without.says(address, "--server-key", "--secret-file")
    await wrong.says(address, "does not understand our keys", "--server-key")
    right = await tail("--server-key", public(keys, "bus"), "--secret-file", str(keys / "bot.key_secret"), address)
    await asyncio.sleep(3.5)
    right.process.send_signal(signal.SIGTERM)
    assert await right.ends() == 0
    assert right.err == ""


async def test_a_reader_that_leaves_ends_it_at_once_and_quietly(tail: StartTail, tmp_path: Path) -> None:
    """`discorder tail | head` without a further event."""
    reader, writer = os.pipe()
    waiting = await tail("--replay", f"ipc://{tmp_path}/bus", stdout=writer)
    os.close(writer)
    await waiting.says("no control plane answers at")
    os.close(reader)
    assert await waiting.ends() == 0
    assert waiting.err.count("\n") == 1


@pytest.mark.heavy
async def test_a_reader_that_leaves_while_events_come(tail: StartTail, tmp_path: Path) -> None:
    bus = ZmqPublisher(f"ipc://{tmp_path}/bus")
    await bus.open()
    reader, writer = os.pipe()
    busy = await tail("--json", "--replay", f"ipc://{tmp_path}/bus", stdout=writer)
    os.close(writer)
    await bus.publish([event(seq) for seq in range(1, 2000)])
    assert await asyncio.to_thread(os.read, reader, 10)
    os.close(reader)
    assert await busy.ends() == 0
    assert busy.err == ""
    await bus.close()


async def test_names_of_events_in_any_case(tail: StartTail, tmp_path: Path) -> None:
    bus = ZmqPublisher(f"ipc://{tmp_path}/bus")
    await bus.open()
    await bus.publish([event(1)])
    named = await tail("--replay", "--type", "message_create", "--type", "mesage-create", f"ipc://{tmp_path}/bus")
    assert named.process.stdout is not None
    async with asyncio.timeout(60):
        assert b"MESSAGE_CREATE" in await named.process.stdout.readline()
    await named.says("--type MESAGE_CREATE: no event has this name", "did you mean MESSAGE_CREATE")
    assert named.err.count("\n") == 1
    await bus.close()


async def test_what_an_event_carries_controls_no_terminal(tail: StartTail, tmp_path: Path) -> None:
    """JSON has control characters as escapes, so the document is the same; the text shows them."""
    bus = ZmqPublisher(f"ipc://{tmp_path}/bus")
    await bus.open()
    kind, data = "TYPE\x1b[2J\u202e", '{"content":"\u202egnp\x9b\x7f"}'
    await bus.publish([Event(kind, (0, 1), 1, 0, "0123456789abcdef", datetime.now(UTC), data.encode())])
    for options in (["--json"], []):
        reading = await tail("--replay", *options, f"ipc://{tmp_path}/bus")
        assert reading.process.stdout is not None
        async with asyncio.timeout(60):
            line = (await reading.process.stdout.readline()).decode().rstrip("\n")
        assert line.isprintable(), line
        if options:
            document = json.loads(line)
            assert (document["type"], document["data"]) == (kind, json.loads(data))
        else:
            assert r"TYPE\x1b[2J\u202e" in line
            assert r"\u202egnp\x9b" in line  # the rest is beyond the width
    await bus.close()


@pytest.mark.heavy
async def test_a_command_that_waits_says_for_whom(discorder: Command, tmp_path: Path) -> None:
    outcome = await discorder("send", "--address", f"ipc://{tmp_path}/bus", "presence", "idle")
    assert outcome.code == 1
    first, last = outcome.err.splitlines()
    assert f"no control plane answers at ipc://{tmp_path}/bus.replay yet" in first
    assert "no answer from" in last


async def test_a_stream_of_nats_that_comes_later(tail: StartTail, tmp_path: Path) -> None:
    """What is missing is named after two seconds, once; then the events of the stream are printed, and a gap in them."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        waiting = await tail("--replay", "--json", "--type", "message_create", server.url)
        await waiting.says(f"discorder: NATS: {server.url} has no stream of a control plane yet; waiting for it")
        plane = publisher(server)
        await plane.open()
        await publish(plane, [event(1), event(4)])
        assert waiting.process.stdout is not None
        async with asyncio.timeout(60):
            lines = [json.loads(await waiting.process.stdout.readline()) for _ in range(3)]
        assert [line["type"] for line in lines] == ["MESSAGE_CREATE", "DISCORDER_GAP", "MESSAGE_CREATE"]
        assert (lines[1]["data"]["from_seq"], lines[1]["data"]["to_seq"]) == (2, 3)
        waiting.process.send_signal(signal.SIGTERM)
        assert await waiting.ends() == 0
        await plane.close()
    finally:
        server.kill()


async def test_several_streams_of_nats(tail: StartTail, tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        for prefix in ("discord.7", "discord.8"):
            plane = publisher(server, prefix=prefix)
            await plane.open()
            await plane.close()
        ended = await tail(server.url)
        assert await ended.ends() == 78
        assert "Choose one: add ?prefix=PREFIX to the address" in ended.err
    finally:
        server.kill()


async def test_streams_of_redis_that_come_later(tail: StartTail, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    try:
        waiting = await tail("--replay", "--json", "--type", "message_create", server.url)
        await waiting.says(f"discorder: Redis: {server.url} has no streams of a control plane yet; waiting for them")
        plane = RedisPublisher(server.url, prefix="discord:7", maxlen=100)
        await plane.open()
        await publish(plane, [event(1), event(4)])
        assert waiting.process.stdout is not None
        async with asyncio.timeout(60):
            lines = [json.loads(await waiting.process.stdout.readline()) for _ in range(3)]
        assert [line["type"] for line in lines] == ["MESSAGE_CREATE", "DISCORDER_GAP", "MESSAGE_CREATE"]
        waiting.process.send_signal(signal.SIGTERM)
        assert await waiting.ends() == 0
        await plane.close()
    finally:
        server.kill()
