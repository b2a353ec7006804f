"""Dialling with aiohttp: what every failure is called, and that giving up leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from discorder.errors import Closed, ConnectFailed
from discorder.transport.live import AiohttpTransport, answer_to

SECRET = "?token=hush"


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@asynccontextmanager
async def answering(answer: bytes | None, *, accepted: asyncio.Event | None = None) -> AsyncIterator[int]:
    """A server that sends ``answer`` after a request and closes; None: it says nothing. Yields its port."""

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


async def failure(url: str) -> ConnectFailed:
    transport = AiohttpTransport()
    with pytest.raises(ConnectFailed) as caught:
        await transport.connect(url)
    assert transport.closed
    with pytest.raises(Closed):
        await transport.receive()
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
            "answered the upgrade wrongly",
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
    """After some turns of the loop, or (None) while the server sits on the upgrade: nothing is left open."""
    accepted = asyncio.Event()
    async with answering(None, accepted=accepted) as port:
        before = open_descriptors()
        tasks = len(asyncio.all_tasks())
        transport = AiohttpTransport()
        dialling = asyncio.create_task(transport.connect(f"ws://127.0.0.1:{port}/"))
        if turns is None:
            await accepted.wait()
        else:
            for _ in range(turns):
                await asyncio.sleep(0)
        await give_up(transport, dialling)
        assert transport.closed
        async with asyncio.timeout(5):
            while open_descriptors() > before or len(asyncio.all_tasks()) > tasks:
                gc.collect()
                await asyncio.sleep(0.005)


async def test_a_transport_that_was_aborted_is_not_dialled() -> None:
    transport = AiohttpTransport()
    transport.abort()
    with pytest.raises(ConnectFailed):
        await transport.connect("ws://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("code", "answer"), [(1000, 4000), (1001, 4000), (1005, 4000), (1011, 4000), (3000, 3000), (4014, 4014)]
)
def test_the_answer_to_a_close_never_ends_the_session(code: int, answer: int) -> None:
    assert answer_to(code) == answer
