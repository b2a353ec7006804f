"""Serve one websocket: encode and send frames in order, receive frames, do the closing handshake.

Received frames go to its `Peer`. A client that does not read is cut off once ``max_backlog`` bytes wait.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from aiohttp import WSMsgType, web

from discorder.clock import Clock, Timer
from discorder.simulator.compression import Encoder, WireFrame

CLOSE_TIMEOUT = 5.0  # seconds a client has to answer a close frame before the socket is cut
NO_STATUS_RECEIVED, ABNORMAL_CLOSURE = 1005, 1006  # never on the wire (RFC 6455 §7.4.1)
MAX_MESSAGE = 1 << 20  # bytes; above every simulated limit, so that the simulator sends the 4002


class ClientError(Exception):
    """A frame after which the server closes with ``code`` (docs/protocol.md#close-codes)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ending:
    """Who ended a connection, and with what code; ``answer``: the client's answer to the server's close."""

    by: Literal["client", "server", "network"]
    code: int | None
    answer: int | None = None


class Peer(Protocol):
    """Handles the frames and the end of a connection."""

    def frame_received(self, connection: SimulatedConnection, frame: bytes) -> None:
        """Handle a client frame. Raises `ClientError` to close the connection."""

    def connection_closing(self, connection: SimulatedConnection, ending: Ending) -> None:
        """Handle the end of a connection; called once, before the closing handshake is complete."""


@dataclass(frozen=True, slots=True)
class _CloseFrame:
    code: int | None  # None: a close frame without a code
    reason: str


class SimulatedConnection:
    """``run`` serves the socket until it is closed; the other methods return at once."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        *,
        peer: Peer,
        encoder: Encoder,
        clock: Clock,
        max_backlog: int,
    ) -> None:
        self.encoder = encoder
        self._websocket = websocket
        self._transport = transport
        self._peer = peer
        self._clock = clock
        self._max_backlog = max_backlog
        self._outbox: deque[bytes | WireFrame | _CloseFrame] = deque()
        self._backlog = 0
        self._wake = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._ending: Ending | None = None
        self._answer: int | None = None
        self._close_timer: Timer | None = None

    @property
    def ending(self) -> Ending | None:
        """How the connection ended, None while it is open."""
        if self._ending is not None and self._answer is not None:
            return Ending(self._ending.by, self._ending.code, self._answer)
        return self._ending

    @property
    def stalled(self) -> bool:
        return not self._running.is_set()

    def send(self, payload: bytes) -> None:
        """Queue one gateway message."""
        self._put(payload, len(payload))

    def send_wire(self, frame: WireFrame) -> None:
        """Queue one websocket frame as it is, without the encoder."""
        self._put(frame, len(frame.data))

    def close(self, code: int, reason: str = "") -> None:
        """Queue a close frame behind what is queued already; nothing is sent after it."""
        if self._end(Ending("server", code)):
            self._outbox.append(_CloseFrame(code, reason))
            self._wake.set()

    def end_as_seen(self, code: int) -> None:
        """End so that the client sees ``code``: 1005 is a close frame without one, 1006 no close frame (RFC 6455 §7.4.1)."""
        if code == ABNORMAL_CLOSURE:
            self.abort()
        elif code != NO_STATUS_RECEIVED:
            self.close(code)
        elif self._end(Ending("server", None)):
            self._outbox.append(_CloseFrame(None, ""))
            self._wake.set()

    def abort(self) -> None:
        """Cut the TCP connection: no close frame."""
        self._end(Ending("server", None))
        self._running.set()
        self._transport.abort()

    def stall(self) -> None:
        """Neither read nor write until `resume`; the socket stays open."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    async def run(self) -> None:
        """Serve the socket until it is closed."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            self._end(Ending("network", None))
            if self._close_timer is not None:
                self._close_timer.cancel()
            writer.cancel()
            (failure,) = await asyncio.gather(writer, return_exceptions=True)
            if self._transport.get_write_buffer_size():
                self._transport.abort()  # the client does not read: a graceful close would never end
            if isinstance(failure, Exception) and not isinstance(failure, ConnectionError):
                raise failure

    def _put(self, item: bytes | WireFrame, size: int) -> None:
        if self._ending is not None:
            return
        self._backlog += size
        if self._backlog > self._max_backlog:
            self.abort()
            return
        self._outbox.append(item)
        self._wake.set()

    def _end(self, ending: Ending) -> bool:
        if self._ending is not None:
            return False
        self._ending = ending
        self._peer.connection_closing(self, ending)
        return True

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            await self._running.wait()
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                self._received(message.data)
            elif message.type is WSMsgType.PING:
                await self._pong(message.data)
            elif message.type is WSMsgType.CLOSE:
                await self._closed_by_client(message.data)
                return
            elif message.type is not WSMsgType.PONG:
                return

    def _received(self, frame: bytes) -> None:
        if self._ending is not None:
            return
        try:
            self._peer.frame_received(self, frame)
        except ClientError as rejected:
            self.close(rejected.code, rejected.reason)

    async def _pong(self, data: bytes) -> None:
        try:
            await self._websocket.pong(data)
        except ConnectionError:
            self._transport.abort()

    async def _closed_by_client(self, code: int) -> None:
        """Answer a close frame (RFC 6455 §5.5.1), or take it as the answer to ours."""
        if self._end(Ending("client", code or None)):  # aiohttp reports a close frame without a code as 0
            await self._websocket.close(code=code or 1000, drain=False)
        else:
            self._answer = code or None
            self._transport.close()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                await self._running.wait()
                await self._send(self._outbox.popleft())

    async def _send(self, item: bytes | WireFrame | _CloseFrame) -> None:
        if isinstance(item, _CloseFrame):
            body = b"" if item.code is None else struct.pack("!H", item.code) + item.reason.encode()[:123]
            await self._websocket.send_frame(body, WSMsgType.CLOSE)
            self._close_timer = self._clock.call_later(CLOSE_TIMEOUT, self._transport.abort)
            return
        frames = [item] if isinstance(item, WireFrame) else self.encoder.encode(item)
        for data, binary in frames:
            await self._websocket.send_frame(data, WSMsgType.BINARY if binary else WSMsgType.TEXT)
        self._backlog -= len(item.data) if isinstance(item, WireFrame) else len(item)
