"""Dialling with aiohttp: the exception for each failure, and that a dial that is given up leaks nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from discorder.errors import Closed, ConnectFailed, ProtocolBreach
from discorder.transport.live import AiohttpTransport

SECRET = "?token=hush"


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@asynccontextmanager
async def answering(answer: bytes | None, *, accepted: asyncio.Event | None = None) -> AsyncIterator[int]:
    """Run a server that sends ``answer`` after a request and closes; with None it sends nothing. Yield its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(65536)
            if accepted is not None:
                accepted.set()
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


def nothing(batch: list[bytes]) -> None:
    pytest.fail(f"delivered: {batch}")


async def failure(url: str) -> ConnectFailed:
    transport = AiohttpTransport()
    with pytest.raises(ConnectFailed) as caught:
        await transport.connect(url, nothing)
    assert transport.closed
    with pytest.raises(Closed):
        await transport.wait_closed()
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_refused_upgrade_carries_its_status(status: int) -> None:
    async with answering(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status) as port:
        failed = await failure(f"ws://127.0.0.1:{port}/{SECRET}")
    assert failed.status == status
    assert f"127.0.0.1:{port}" in str(failed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "answered the upgrade wrongly: a wrong Sec-WebSocket-Accept",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            "answered the upgrade wrongly: no upgrade to a websocket",
        ),
        (b"", "closed the connection during the upgrade"),
        (b"SSH-2.0-OpenSSH\r\n", "answered the upgrade wrongly"),
    ],
)
async def test_a_server_that_is_no_gateway_is_named(answer: bytes, words: str) -> None:
    async with answering(answer) as port:
        failed = await failure(f"ws://127.0.0.1:{port}/{SECRET}")
    assert words in str(failed)
    assert failed.status is None


@pytest.mark.parametrize("size", [64 * 1024 * 1024 + 1, 1 << 40])
async def test_a_message_beyond_64_mib_is_refused_at_its_header(size: int) -> None:
    """The payload is not read, and the connection ends."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        assert request.transport is not None
        request.transport.write(b"\x82\x7f" + size.to_bytes(8, "big") + b"x" * 100)
        await websocket.receive()
        return websocket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    transport = AiohttpTransport()
    await transport.connect(f"ws://127.0.0.1:{runner.addresses[0][1]}/", nothing)
    with pytest.raises(ProtocolBreach, match="a message is larger than 67108864 bytes"):
        await asyncio.wait_for(transport.wait_closed(), 5)
    assert transport.closed
    await runner.cleanup()


async def test_a_refused_connection_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert f"cannot connect to 127.0.0.1:{port}" in str(await failure(f"ws://127.0.0.1:{port}/{SECRET}"))


async def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert (
        str(await failure(f"wss://nowhere.invalid/{SECRET}"))
        == "cannot resolve nowhere.invalid: Name or service not known"
    )


async def test_tls_with_a_server_that_has_none_is_named() -> None:
    async with answering(b"HTTP/1.1 400 Bad\r\n\r\n") as port:
        assert "TLS with" in str(await failure(f"wss://127.0.0.1:{port}/{SECRET}"))


@pytest.mark.parametrize("url", ["", "gateway", "http://[bad", "ws:///", "ftp://127.0.0.1/"])
async def test_a_url_that_cannot_be_dialled_is_a_failed_dial(url: str) -> None:
    await failure(url + SECRET)


async def give_up_by_cancelling(transport: AiohttpTransport, dialling: asyncio.Task[None]) -> None:
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling


async def give_up_by_aborting(transport: AiohttpTransport, dialling: asyncio.Task[None]) -> None:
    transport.abort()
    with pytest.raises(ConnectFailed):
        await dialling


async def give_up_by_closing(transport: AiohttpTransport, dialling: asyncio.Task[None]) -> None:
    await transport.close(4000)
    with pytest.raises(ConnectFailed):
        await dialling


@pytest.mark.parametrize("give_up", [give_up_by_cancelling, give_up_by_aborting, give_up_by_closing])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, None])
async def test_a_dial_can_be_given_up_at_any_stage(
    give_up: Callable[[AiohttpTransport, asyncio.Task[None]], Awaitable[None]], turns: int | None
) -> None:
    """Cancel after some turns of the loop, or (None) while the server delays the upgrade. Nothing is left open."""
    accepted = asyncio.Event()
    async with answering(None, accepted=accepted) as port:
        before = open_descriptors()
        tasks = len(asyncio.all_tasks())
        transport = AiohttpTransport()
        dialling = asyncio.create_task(transport.connect(f"ws://127.0.0.1:{port}/", nothing))
        if turns is None:
            await accepted.wait()
        else:
            for _ in range(turns):
                await asyncio.sleep(0)
        await give_up(transport, dialling)
        assert transport.closed
        async with asyncio.timeout(60):
            while open_descriptors() > before or len(asyncio.all_tasks()) > tasks:
                gc.collect()
                await asyncio.sleep(0.005)


async def test_a_transport_that_was_aborted_is_not_dialled() -> None:
    transport = AiohttpTransport()
    transport.abort()
    with pytest.raises(ConnectFailed):
        await transport.connect("ws://127.0.0.1:9/", nothing)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_the_upgrade_is_not_followed(status: int) -> None:
    """The IDENTIFY after it would send the token there."""
    reached = asyncio.Event()
    async with answering(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", accepted=reached) as elsewhere:
        redirect = b"HTTP/1.1 %d Go\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % (
            status,
            elsewhere,
        )
        async with answering(redirect) as port:
            failed = await failure(f"ws://127.0.0.1:{port}/{SECRET}")
        assert not reached.is_set()
    assert failed.status == status
    assert "a redirect: it is not followed" in str(failed)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"Retry-After: 60", 60.0),
        (b"Retry-After: 0.5", 0.5),
        (b"Retry-After: 1e9", 3600.0),
        (b"Retry-After: 1e999", 3600.0),
        (b"Retry-After: -5", 0.0),
        (b"Retry-After: nan", 0.0),
        (b"Retry-After: soon", 0.0),
        (b"Retry-After:", 0.0),
        (b"Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:30:00 GMT", 120.0),
        (b"Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:30:00", 0.0),
        (b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (b"X: y", 0.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_refused_upgrade_says_for_how_long_not_to_dial(status: int, header: bytes, seconds: float) -> None:
    """The header has a number of seconds or a date. The pause is never longer than an hour."""
    async with answering(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n%s\r\n\r\n" % (status, header)) as port:
        failed = await failure(f"ws://127.0.0.1:{port}/{SECRET}")
    assert (failed.status, failed.retry_after) == (status, seconds)


@pytest.mark.parametrize(
    "url",
    ["ws://xn--/", "ws://[::1", "ws://h:99999/", "ws://\udcff/", "", "ws:", "\x00", "ws://" + "a" * 70 + ".test/"],
)
async def test_a_url_that_is_none_is_a_failed_dial(url: str) -> None:
    """This holds whatever exception the libraries raise."""
    await failure(url)
