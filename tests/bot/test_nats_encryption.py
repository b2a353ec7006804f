"""Where encryption is wanted, a NATS server without TLS gets nothing: no login, no event. What else may answer at an address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

import discorder
from discorder.errors import CommandRefused, ConfigError, PublisherUnreachable, SubscriptionFailed
from discorder.publishers.nats.publisher import NatsPublisher
from tests.bot.nats_streams import WITHIN, events, publish, publisher, seqs, take
from tests.publishers.nats_server import NatsServer

INFO = b'INFO {"server_id":"X","version":"2.14.0","headers":true,"max_payload":8388608,"proto":1%s}\r\n'


class Impostor:
    """Answers at a port with a first line, then as a server does that believes every login, and keeps what it gets."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self.received = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        while data := await reader.read(65_536):
            self.received += data
            writer.write(b"PONG\r\n" * data.count(b"PING\r\n"))


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve each connection; yield the port. At the end wait until each is closed."""
    running: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())  # type: ignore[arg-type]
        await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*running)


@asynccontextmanager
async def impostor(greeting: bytes = INFO % b"") -> AsyncIterator[Impostor]:
    one = Impostor(greeting)
    async with listening(one.serve) as one.port:
        yield one


def parts(address: str) -> tuple[str, dict[str, str]]:
    servers, _, query = address.partition("?")
    return servers, dict(pair.split("=") for pair in query.split("&") if pair)


async def as_publisher(address: str) -> None:
    servers, keys = parts(address)
    await opened(NatsPublisher(servers, prefix="discord.7", **keys))  # type: ignore[arg-type]


async def as_core_publisher(address: str) -> None:
    servers, keys = parts(address)
    await opened(NatsPublisher(servers, mode="core", prefix="discord.7", **keys))  # type: ignore[arg-type]


async def opened(one: NatsPublisher) -> None:
    try:
        await one.open()
    finally:
        await one.close()


async def as_reader(address: str) -> None:
    async with discorder.subscribe(address) as reading:
        await take(reading, 1)


async def as_worker(address: str) -> None:
    async with discorder.subscribe(address, group="workers") as reading:
        await take(reading, 1)


async def as_commander(address: str) -> None:
    async with discorder.Commands(address, timeout=10.0) as commands:
        await commands.presence()


PARTS = [as_publisher, as_core_publisher, as_reader, as_worker, as_commander]
Part = Callable[[str], Awaitable[None]]


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "address",
    ["tls://bot:hunter2@127.0.0.1:{port}", "nats://bot:hunter2@127.0.0.1:{port}?tls_ca_file={folder}/ca.pem"],
    ids=["tls", "tls_ca_file"],
)
async def test_a_server_without_tls_gets_not_one_byte(
    part: Part, address: str, tmp_path: Path, authority: trustme.CA
) -> None:
    async with impostor() as server:
        with pytest.raises((ConfigError, SubscriptionFailed, CommandRefused)) as raised:
            await part(address.format(port=server.port, folder=tmp_path))
        assert server.received == b""
    assert "no encrypted connection" in str(raised.value)
    assert "the server offers no TLS, so nothing was sent" in str(raised.value)
    assert "hunter2" not in str(raised.value)


async def test_an_unencrypted_connection_that_is_allowed_is_made() -> None:
    """The impostor of the tests above is believed where encryption is not wanted: they test what they should."""
    async with impostor() as server:
        await as_core_publisher(f"nats://bot:hunter2@127.0.0.1:{server.port}")
        assert server.received.startswith(b"CONNECT ")
        assert b"hunter2" in server.received


async def test_a_real_server_without_tls_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        with pytest.raises(SubscriptionFailed, match=r"^no encrypted connection .*write nats:// .*\?insecure=true"):
            await as_reader(server.url.replace("nats:", "tls:"))
        with pytest.raises(ConfigError, match=r"^publishers\.nats\.servers: no encrypted connection .*insecure = true"):
            await as_publisher(server.url.replace("nats:", "tls:"))
    finally:
        server.kill()


async def test_a_server_that_leaves_tls_to_the_client_is_read_encrypted(tmp_path: Path, authority: trustme.CA) -> None:
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    server = NatsServer(
        tmp_path / "nats",
        f"tls {{ cert_file: {tmp_path}/server.pem, key_file: {tmp_path}/server.pem }}",
        "allow_non_tls: true",
    )
    server.start()
    try:
        async with tapped(server.port) as tap:
            plane = publisher(server, servers=f"nats://127.0.0.1:{tap.port}", tls_ca_file=str(tmp_path / "ca.pem"))
            await plane.open()
            await publish(plane, events(1, 2))
            address = f"nats://127.0.0.1:{tap.port}?tls_ca_file={tmp_path}/ca.pem"
            async with discorder.subscribe(address, start="oldest") as reading:
                assert await seqs(reading, 2) == [1, 2]
            await plane.close()
            assert len(tap.sent) == 2
            assert all(sent.startswith(b"\x16\x03") for sent in tap.sent)  # a handshake of TLS
            assert not any(b"CONNECT" in sent for sent in tap.sent)
        with pytest.raises(SubscriptionFailed, match="no TLS connection"):
            await as_reader(server.url.replace("nats:", "tls:"))  # an authority that the system does not know
    finally:
        server.kill()


class Tap:
    """Passes connections on to a port, and keeps what each client sent."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.sent: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        number = len(self.sent)
        self.sent.append(b"")

        async def back() -> None:
            while data := await from_server.read(65_536):
                writer.write(data)
            writer.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(back())
            while data := await reader.read(65_536):
                self.sent[number] += data
                to_server.write(data)
            to_server.close()


@asynccontextmanager
async def tapped(target: int) -> AsyncIterator[Tap]:
    tap = Tap(target)
    async with listening(tap.serve) as tap.port:
        yield tap


# ---------------------------------------------------------------- what else answers


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        (b"", "no greeting of NATS came within 1.5 s: another program, which does not speak NATS, listens there"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what answers there does not speak NATS"),
        (b"\n" * 3, "what answers there does not speak NATS"),
        (b"x" * 200_000, "what answers there does not speak NATS"),
    ],
    ids=["silent", "another line", "empty lines", "no line"],
)
async def test_what_does_not_speak_nats_is_named_as_such(greeting: bytes, says: str) -> None:
    async with impostor(greeting) as server:
        with pytest.raises(PublisherUnreachable, match=rf"127\.0\.0\.1:{server.port}: .*{says}"):
            await as_publisher(f"nats://127.0.0.1:{server.port}")
        assert server.received == b""


async def test_a_connection_that_is_closed_at_once() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(close) as port:
        with pytest.raises(PublisherUnreachable, match="the connection was closed without a greeting"):
            await as_publisher(f"nats://127.0.0.1:{port}")
