"""The contract of a transport, tested for each: live (plain, over TLS, compressed), recording, faulty, mock.

The tests also check how the server sees each ending.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import itertools
import json
import signal
import ssl
import sys
import textwrap
import threading
import warnings
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
import trustme
from aiohttp import WSMsgType, web
from backports import zstd

from discorder.clock import FakeClock, SystemClock
from discorder.errors import Closed, ConnectFailed
from discorder.transport import AiohttpTransport, Transport, inflater
from discorder.transport.faulty import FaultInjector
from discorder.transport.mock import MockGateway
from discorder.transport.protocol import MAX_BATCH
from discorder.transport.recorded import Recording
from discorder.transport.recording import RecordingTransport, SessionRecorder

SHARD = (0, 1)
HELLO = b'{"op":10,"d":{"heartbeat_interval":45000}}'
DROP = "drop"  # the server ends the TCP connection without a close frame
STAY = "stay"  # the server waits for the client


@dataclass
class Script:
    """The gateway side: it sends messages, waits for frames, and ends the connection (a close code, DROP or STAY)."""

    says: list[bytes] = field(default_factory=lambda: [HELLO])
    hears: list[bytes] = field(default_factory=list)
    ends: int | str = STAY
    client_closes: int | None = 4000  # the recorded client's close, where the server stays; None = the client aborted


class Inbox:
    """Collects what a transport delivers."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.largest = 0
        self.open = False  # whether `connect` has returned and the test has not closed yet
        self._arrived = asyncio.Event()

    def deliver(self, batch: list[bytes]) -> None:
        assert self.open
        assert batch
        self.largest = max(self.largest, len(batch))
        self.messages += batch
        self._arrived.set()

    async def has(self, count: int) -> None:
        """Return when ``count`` messages were delivered."""
        async with asyncio.timeout(60):
            while len(self.messages) < count:
                self._arrived.clear()
                await self._arrived.wait()


class Rig(Protocol):
    """One implementation with a peer at its other end."""

    transport: Transport
    inbox: Inbox

    async def connected(self) -> Transport: ...

    async def code_seen(self) -> int | None:
        """Return the code of the client's close frame as the peer received it; None if there was no close frame."""
        ...


class _Server:
    """A gateway on a real socket that plays a script once."""

    def __init__(
        self,
        script: Script,
        encode: Callable[[bytes], bytes] = bytes,
        authority: trustme.CA | None = None,
    ) -> None:
        self._script = script
        self._encode = encode
        self._tls: ssl.SSLContext | None = None
        if authority is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.heard: list[bytes] = []
        self.codes: list[int] = []
        self.over = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        scheme = "ws" if self._tls is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}/?v=10"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(autoclose=False, compress=False, max_msg_size=0)
        await websocket.prepare(request)
        try:
            await self._play(request, websocket)
        except ConnectionError:
            pass  # the client aborted while the server was writing
        finally:
            self.over.set()
        return websocket

    async def _play(self, request: web.Request, websocket: web.WebSocketResponse) -> None:
        for message in self._script.says:
            await websocket.send_bytes(self._encode(message))
        while len(self.heard) < len(self._script.hears):
            self.heard.append((await websocket.receive_str()).encode())
        if self._script.ends == DROP and request.transport is not None:
            request.transport.abort()
        elif isinstance(self._script.ends, int):
            await websocket.close(code=self._script.ends, message=b"why")
            if websocket.close_code is not None and websocket.close_code != 1006:
                self.codes.append(websocket.close_code)
            return
        while (last := await websocket.receive()).type is WSMsgType.TEXT:
            self.heard.append(last.data.encode())
        if last.type is WSMsgType.CLOSE:
            self.codes.append(last.data)
            await websocket.close(code=last.data)


class _SocketRig:
    def __init__(self, server: _Server, transport: Transport) -> None:
        self.server = server
        self.transport = transport
        self.inbox = Inbox()

    async def connected(self) -> Transport:
        await self.transport.connect(self.server.url, self.inbox.deliver)
        self.inbox.open = True
        return self.transport

    async def code_seen(self) -> int | None:
        async with asyncio.timeout(60):
            await self.server.over.wait()
        assert len(self.server.codes) <= 1
        return self.server.codes[0] if self.server.codes else None


class _MockRig:
    def __init__(self, script: Script, path: Path) -> None:
        path.write_text(_as_recording(script))
        self._script = script
        self._gateway = MockGateway(Recording.load(path), FakeClock())
        self.transport: Transport = self._gateway.dial(SHARD)
        self.inbox = Inbox()
        self._playing: asyncio.Task[None] | None = None

    async def connected(self) -> Transport:
        self._playing = asyncio.create_task(self._gateway.play())
        await self.transport.connect("wss://gateway.invalid/", self.inbox.deliver)
        self.inbox.open = True
        return self.transport

    async def code_seen(self) -> int | None:
        if self._playing is not None:
            await self._playing
        self._gateway.check()
        return self._script.client_closes if self._script.ends == STAY else 4000

    async def stop(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)


def _as_recording(script: Script) -> str:
    lines: list[dict[str, object]] = [{"format": "discorder-session", "version": 1, "created": "", "shards": 1}]

    def note(kind: str, **facts: object) -> None:
        lines.append({"t": 0, "c": 1, "shard": list(SHARD), "k": kind} | facts)

    note("dial", url="wss://gateway.invalid/")
    note("open")
    for message in script.says:
        note("in", text=message.decode())
    for message in script.hears:
        note("out", text=message.decode())
    if script.ends == STAY:
        note("close", by="us", code=script.client_closes)
    elif script.ends == DROP:
        note("close", by="network", code=None)
    else:
        note("close", by="peer", code=script.ends)
    return "".join(json.dumps(line) + "\n" for line in lines)


def _zlib_stream() -> Callable[[bytes], bytes]:
    context = zlib.compressobj()
    return lambda message: context.compress(message) + context.flush(zlib.Z_SYNC_FLUSH)


def _zstd_stream() -> Callable[[bytes], bytes]:
    context = zstd.ZstdCompressor()
    return lambda message: context.compress(message) + context.flush(context.FLUSH_BLOCK)


ENCODERS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "zlib-stream": _zlib_stream,
    "zstd-stream": _zstd_stream,
    "payload": lambda: zlib.compress,
}


def _trusting(authority: trustme.CA | None) -> ssl.SSLContext | None:
    if authority is None:
        return None
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


Start = Callable[[Script], Awaitable[Rig]]


@pytest.fixture(params=["live", "tls", *ENCODERS, "recording", "faulty", "mock"])
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Start]:
    """Yield ``rig = await start(script)``. Afterwards the transport may leave no task, thread or descriptor."""
    stops: list[Callable[[], Awaitable[None]]] = []
    before: list[tuple[int, int, int]] = []

    async def make(script: Script) -> Rig:
        if request.param == "mock":
            mock = _MockRig(script, tmp_path / "mock.jsonl")
            stops.append(mock.stop)
            return mock
        tls = trustme.CA() if request.param == "tls" else None
        mode = request.param if request.param in ENCODERS else "none"
        server = _Server(script, ENCODERS.get(mode, lambda: bytes)(), tls)
        await server.start()
        stops.append(server.stop)
        transport: Transport = AiohttpTransport(inflater=inflater(mode), ssl_context=_trusting(tls))
        if request.param == "recording":
            recorder = SessionRecorder(tmp_path / "r.jsonl", clock=SystemClock(), api_url=server.url)

            async def close_recorder() -> None:
                recorder.close()

            stops.append(close_recorder)
            transport = RecordingTransport(transport, recorder, SHARD, 1)
        if request.param == "faulty":
            transport = FaultInjector([], SystemClock()).wrap(transport, SHARD)
        before.append(_held())
        return _SocketRig(server, transport)

    untouched = _held()
    yield make
    if before:  # before the server ends: its end would close a leaked socket, too
        await _until_back_at(before[0])
    for stop in stops:
        await stop()
    await _until_back_at(untouched)


def _held() -> tuple[int, int, int]:
    return len(list(Path("/dev/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks())


async def _until_back_at(before: tuple[int, int, int]) -> None:
    """Wait for the server and the kernel to release their resources. A leak would stay."""
    for _ in range(200):
        if all(now <= then for now, then in zip(_held(), before, strict=True)):
            return
        gc.collect()  # a cycle may still hold a socket
        await asyncio.sleep(0.01)
    assert _held() == before


async def end_of(transport: Transport) -> Closed:
    """Return how the connection ended, once it has."""
    async with asyncio.timeout(60):
        with pytest.raises(Closed) as ended:
            await transport.wait_closed()
    return ended.value


class TestEveryTransport:
    async def test_is_closed_before_it_is_connected_and_refuses_to_talk(self, start: Start) -> None:
        rig = await start(Script())
        assert rig.transport.closed
        with pytest.raises(Closed):
            await rig.transport.wait_closed()
        with pytest.raises(Closed):
            await rig.transport.send(b"{}")

    async def test_hands_over_messages_in_order_and_then_how_it_ended(self, start: Start) -> None:
        said = [b'{"op":0,"s":%d}' % number for number in range(300)]
        rig = await start(Script(says=said, ends=4000))
        transport = await rig.connected()
        closed = await end_of(transport)
        assert rig.inbox.messages == said
        assert (closed.code, closed.by) == (4000, "peer")
        assert transport.closed

    async def test_carries_messages_of_eight_megabytes(self, start: Start) -> None:
        big = b'{"op":0,"d":"%b"}' % (b"x" * 8_000_000)
        rig = await start(Script(says=[big, HELLO], ends=4000))
        await end_of(await rig.connected())
        assert rig.inbox.messages == [big, HELLO]

    async def test_delivers_no_more_in_one_turn_of_the_loop_than_a_bus_can_queue(self, start: Start) -> None:
        """One read may bring more. The rest follows in order, and timers run in between."""
        said = [b'{"op":0,"s":%d}' % number for number in range(5000)]
        rig = await start(Script(says=said, ends=4000))
        turns: list[int] = []

        def turn() -> None:
            turns.append(len(rig.inbox.messages))
            asyncio.get_running_loop().call_soon(turn)

        transport = await rig.connected()
        turn()
        closed = await end_of(transport)
        assert (rig.inbox.messages, closed.code) == (said, 4000)
        assert max(after - before for before, after in itertools.pairwise(turns)) <= MAX_BATCH
        turn = lambda: None  # noqa: E731  # ends the chain

    async def test_sends_in_order_while_it_receives(self, start: Start) -> None:
        frames = [b'{"op":2,"d":1}', b'{"op":3,"d":2}', b'{"op":4,"d":3}']
        rig = await start(Script(hears=frames, ends=4000))
        transport = await rig.connected()
        for frame in frames:
            await transport.send(frame)
        closed = await end_of(transport)
        assert (rig.inbox.messages, closed.code) == ([HELLO], 4000)
        if isinstance(rig, _SocketRig):
            assert rig.server.heard == frames

    @pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4000, 4004, 4014])
    async def test_tells_the_peers_code_and_answers_it_without_ending_the_session(
        self, start: Start, code: int
    ) -> None:
        rig = await start(Script(ends=code))
        closed = await end_of(await rig.connected())
        assert (closed.code, closed.by) == (code, "peer")
        answer = await rig.code_seen()
        assert answer not in (1000, 1001, 1005, 1006)
        assert answer is not None

    async def test_tells_a_lost_connection_from_a_close(self, start: Start) -> None:
        rig = await start(Script(ends=DROP))
        transport = await rig.connected()
        closed = await end_of(transport)
        assert (closed.code, closed.by) == (None, "network")
        assert transport.closed
        assert (await end_of(transport)).by == "network"

    @pytest.mark.parametrize("code", [4000, 1000])
    async def test_closes_with_the_code_it_is_given(self, start: Start, code: int) -> None:
        rig = await start(Script(client_closes=code))
        transport = await rig.connected()
        await rig.inbox.has(1)
        await transport.close(code)
        assert transport.closed
        assert await rig.code_seen() == code

    async def test_close_ends_a_wait_elsewhere(self, start: Start) -> None:
        rig = await start(Script())
        transport = await rig.connected()
        await rig.inbox.has(1)
        waiting = asyncio.create_task(end_of(transport))
        await asyncio.sleep(0)
        await transport.close(4000)
        closed = await waiting
        assert (closed.code, closed.by) == (4000, "us")
        assert await rig.code_seen() == 4000

    async def test_close_and_abort_may_be_repeated_and_mixed(self, start: Start) -> None:
        rig = await start(Script())
        transport = await rig.connected()
        await rig.inbox.has(1)
        await asyncio.gather(transport.close(4000), transport.close(4000))
        await transport.close(1000)
        transport.abort()
        transport.abort()
        assert transport.closed
        assert await rig.code_seen() == 4000

    async def test_abort_is_immediate_and_ends_a_wait_elsewhere(self, start: Start) -> None:
        rig = await start(Script(client_closes=None))
        transport = await rig.connected()
        await rig.inbox.has(1)
        waiting = asyncio.create_task(end_of(transport))
        await asyncio.sleep(0)
        transport.abort()
        assert transport.closed
        closed = await waiting
        assert (closed.code, closed.by) == (None, "us")
        assert await rig.code_seen() is None

    async def test_after_the_end_there_is_nothing_to_send_to_or_to_wait_for(self, start: Start) -> None:
        rig = await start(Script())
        transport = await rig.connected()
        await rig.inbox.has(1)
        await transport.close(4000)
        with pytest.raises(Closed):
            await transport.send(b"{}")
        closed = await end_of(transport)
        assert (closed.code, closed.by) == (4000, "us")

    @pytest.mark.parametrize("how", ["close", "abort"])
    async def test_delivers_nothing_after_a_close_or_an_abort(self, start: Start, how: str) -> None:
        """This includes messages that have arrived already."""
        said = [b'{"op":0,"s":%d}' % number for number in range(3 * MAX_BATCH)]
        rig = await start(Script(says=said, client_closes=4000 if how == "close" else None))
        transport = await rig.connected()
        await rig.inbox.has(1)
        rig.inbox.open = False
        if how == "close":
            await transport.close(4000)
        else:
            transport.abort()
        for _ in range(20):
            await asyncio.sleep(0)

    async def test_a_cancelled_wait_says_nothing_to_the_peer_and_loses_nothing(self, start: Start) -> None:
        rig = await start(Script(says=[HELLO], hears=[b'{"op":2,"d":{}}'], ends=4000))
        transport = await rig.connected()
        await rig.inbox.has(1)
        waiting = asyncio.create_task(transport.wait_closed())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not transport.closed
        await transport.send(b'{"op":2,"d":{}}')
        closed = await end_of(transport)
        assert (closed.code, closed.by) == (4000, "peer")
        assert await rig.code_seen() == 4000

    async def test_is_dialled_once(self, start: Start) -> None:
        rig = await start(Script())
        transport = await rig.connected()
        with pytest.raises((RuntimeError, ConnectFailed)):
            await transport.connect("ws://127.0.0.1:9/", rig.inbox.deliver)
        await transport.close(4000)


# ---------------------------------------------------------------- real sockets only

DYING = """
    import asyncio, os, signal, sys
    from discorder.transport import AiohttpTransport

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored, and so would this

    async def main():
        transport = AiohttpTransport()
        arrived = asyncio.Event()
        await transport.connect(sys.argv[1], lambda _: arrived.set())
        await arrived.wait()
        how = sys.argv[2]
        if how == "close":
            await transport.close(4000)
        elif how == "exit":
            sys.exit(0)
        elif how == "cancelled":
            asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)
            await transport.wait_closed()
        elif how == "signal":
            print("here", flush=True)
            await transport.wait_closed()

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "code"), [("close", 4000), ("return", None), ("exit", None), ("cancelled", None), ("signal", None)]
)
async def test_a_process_that_ends_never_says_1000(how: str, code: int | None) -> None:
    """However the interpreter exits, the server gets the code that we set, or no close frame."""
    server = _Server(Script())
    await server.start()
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(DYING), server.url, how]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        if how == "signal" and process.stdout is not None:
            await process.stdout.readline()
            process.send_signal(signal.SIGINT)
        await process.communicate()
        await server.over.wait()
    assert server.codes == ([] if code is None else [code])
    await server.stop()


async def test_a_transport_that_is_forgotten_never_says_1000() -> None:
    """Garbage collection emits warnings, but sends no close frame."""
    server = _Server(Script())
    await server.start()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    transport: AiohttpTransport | None = AiohttpTransport()
    assert transport is not None
    inbox = Inbox()
    inbox.open = True
    await transport.connect(server.url, inbox.deliver)
    await inbox.has(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        transport = None
        gc.collect()
        async with asyncio.timeout(60):
            await server.over.wait()
        await asyncio.sleep(0.01)
        gc.collect()
    assert server.codes == []
    await server.stop()


async def test_a_close_that_is_given_up_has_sent_its_frame() -> None:
    """The peer never answers. After the cancellation the frame is sent and the socket still open; abort ends it."""
    frames: list[bytes] = []
    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        writer.write(_upgrade(key.split(b":")[1].strip()))
        frames.append(await reader.read(100))
        arrived.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    transport = AiohttpTransport()
    await transport.connect(f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", lambda _: None)
    closing = asyncio.create_task(transport.close(4000))
    async with asyncio.timeout(60):
        await arrived.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    was_open = not transport.closed
    transport.abort()
    assert (was_open, transport.closed) == (True, True)
    first, length, *rest = frames[0]
    mask, payload = rest[:4], rest[4:]
    assert (first & 0x0F, length & 0x7F) == (WSMsgType.CLOSE, 2)
    assert bytes(byte ^ key for byte, key in zip(payload, mask, strict=False)) == (4000).to_bytes(2, "big")
    listener.close()
    await listener.wait_closed()
    await asyncio.sleep(0.01)


def _upgrade(key: bytes) -> bytes:
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 # RFC 6455 §4.2.2
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        % accept
    )
