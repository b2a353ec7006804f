"""The transport that reaches a real gateway: one aiohttp client session, one websocket, one generation.

What this file guarantees and aiohttp alone does not: no close frame leaves this process but the one `close` was asked for, and
the answer to the peer's. With its defaults aiohttp answers a server's 4000 with 1000, and closes with 1000 on its own when the
connection ends or a reader fails; either would end the session at Discord (gateway-protocol.md §4.3). It must not know
opcodes, compression or states.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

import aiohttp
from aiohttp import WSMsgType
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorDNSError
from aiohttp.http import WS_CLOSING_MESSAGE, WebSocketError
from aiohttp.streams import EofStream
from yarl import URL

from discorder.errors import Closed, ConnectFailed, ProtocolBreach
from discorder.transport.dns import DaemonResolver

RESUMABLE_CLOSE = 4000  # any code but 1000/1001 keeps the session (gateway-protocol.md §4.3)
NO_STATUS_RECEIVED = 1005  # what a close frame without a code counts as (RFC 6455 §7.1.5)
_APPLICATION_CODES = range(3000, 5000)  # the codes that may be sent back as they came (RFC 6455 §7.4.2)
_GONE = (EofStream, aiohttp.ClientError, WebSocketError, ConnectionError)  # how aiohttp reports the end of a connection


def answer_to(code: int) -> int:
    """The code with which a peer's close frame is answered: its own, or 4000 where its own could end the session.

    1000 and 1001 are never echoed, nor are the codes that RFC 6455 §7.4.1 keeps off the wire.
    """
    return code if code in _APPLICATION_CODES else RESUMABLE_CLOSE


class AiohttpTransport:
    """One connection over aiohttp. Batches hold one message each: that is what aiohttp hands out.

    ``ssl_context`` replaces the system's trust (a test's own CA). Proxies of the environment are not used. No time limit is
    set here: the caller cancels `connect` and `close` on its own clock.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, user_agent: str = "discorder") -> None:
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._user_agent = user_agent
        self._dial: asyncio.Task[_Socket] | None = None
        self._socket: _Socket | None = None
        self._goodbye: Closed | None = None  # our own close, from the moment its frame is written
        self._farewell = asyncio.Lock()  # two calls of `close` wait for one and the same answer
        self._end: Closed | None = None  # how it ended; set once, with the socket gone

    @property
    def closed(self) -> bool:
        """True when there is no socket. A reset that nobody has read yet is noticed by the next call."""
        return self._socket is None

    async def connect(self, url: str) -> None:
        """Dial ``url`` and upgrade. Raises `ConnectFailed`; its message has host and cause, never path or query."""
        if self._dial is not None:
            msg = "a transport is dialled once; make a new one"
            raise RuntimeError(msg)
        if self._ended():
            msg = "the transport was closed before it was dialled"
            raise ConnectFailed(msg)
        # A task of its own, so that `abort` can end the dial while somebody waits for it here.
        dial = self._dial = asyncio.create_task(_open(url, self._ssl, self._user_agent), name="dial")
        try:
            opened = await dial
        except asyncio.CancelledError:
            if dial.done() and not dial.cancelled() and dial.exception() is None:
                dial.result().drop()  # it succeeded in the very turn in which we were cancelled
            current = asyncio.current_task()
            if self._ended() and not (current is not None and current.cancelling()):
                raise _aborted_dial() from None
            self._finish(Closed(None, "us", "the dial was cancelled"))
            raise
        except (aiohttp.ClientError, OSError, ValueError, WebSocketError) as error:
            self._finish(Closed(None, "network", "the dial failed"))
            # Not chained: aiohttp's texts hold the whole URL, and tracebacks print the cause.
            raise _connect_failed(url, error) from None
        if self._ended():  # aborted in the turn in which the dial came through
            opened.drop()
            raise _aborted_dial()
        self._socket = opened

    async def receive(self) -> list[bytes]:
        """The next message, as a batch of one. Raises `Closed`, or `ProtocolBreach` for what is no websocket.

        A close frame of the peer is answered with `answer_to` its code. Cancelling loses no message.
        """
        socket = self._live()
        if self._goodbye is not None:
            raise self._goodbye
        try:
            message = await socket.receive()
        except (aiohttp.ClientError, ConnectionError) as error:  # the pong that answers a ping may find the socket gone
            raise self._finish(Closed(None, "network", str(error))) from None
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) and self._goodbye is None:
            return [message.data]
        if self._end is not None:
            raise self._end
        if self._goodbye is not None:
            raise self._goodbye
        if message.type is WSMsgType.CLOSE:
            code = message.data or NO_STATUS_RECEIVED
            await socket.write_close(answer_to(code))
            raise self._finish(Closed(code, "peer", message.extra or ""))
        if message.type is WSMsgType.ERROR:
            self._finish(Closed(None, "us", "the peer broke the websocket protocol"))
            breach = f"not a websocket: {message.data}"
            raise ProtocolBreach(breach)
        raise self._finish(Closed(None, "network", "the connection ended without a close frame"))

    async def send(self, data: bytes) -> None:
        """Write one text message. Raises `Closed`; the end itself is `receive`'s to tell, which may still read its code."""
        socket = self._live()
        if self._goodbye is not None:
            raise self._goodbye
        try:
            await socket.send_frame(data, WSMsgType.TEXT)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._end or Closed(None, "network", str(error)) from None

    async def close(self, code: int) -> None:
        """Send a close frame with ``code``, wait for the peer's, drop the socket.

        A `receive` that waits meanwhile raises ``Closed(code, "us")`` at once. While the dial runs this is `abort`.
        """
        socket = self._socket
        if socket is None:
            self.abort()
            return
        if self._goodbye is None:
            self._goodbye = Closed(code, "us")
            if not await socket.write_close(code):
                self._finish(Closed(None, "network", "the connection was gone before it could be closed"))
                return
        async with self._farewell:
            if self._socket is not None:
                await socket.peer_has_closed()
                self._finish(self._goodbye)

    def abort(self) -> None:
        """Drop the socket, or the dial. The peer sees the connection end without a close frame."""
        self._finish(self._goodbye or Closed(None, "us", "aborted"))
        if self._dial is not None:
            self._dial.cancel()

    def _live(self) -> _Socket:
        if self._socket is None:
            raise self._end or Closed(None, "us", "not connected")
        return self._socket

    def _ended(self) -> bool:
        return self._end is not None

    def _finish(self, end: Closed) -> Closed:
        """Drop the socket; the first end stays."""
        if self._end is None:
            self._end = end
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.drop()
        return self._end


class _Socket(aiohttp.ClientWebSocketResponse[bool]):
    """aiohttp's websocket, that says nothing on its own.

    A subclass, because only from within can a connection be let go of without aiohttp writing a close frame.
    """

    session: aiohttp.ClientSession

    async def close(self, *, code: int = RESUMABLE_CLOSE, message: bytes = b"") -> bool:
        """What aiohttp calls by itself when the connection ends or breaks, with 1000 as its default: let go in silence."""
        del code, message
        self.drop()
        return True

    async def write_close(self, code: int) -> bool:
        """Write a close frame; false if there is nothing left to write to."""
        try:
            await self.send_frame(code.to_bytes(2, "big"), WSMsgType.CLOSE)
        except (aiohttp.ClientError, ConnectionError):
            return False
        return True

    async def peer_has_closed(self) -> None:
        """Wait for the peer's close frame or the end of the connection; what else comes is thrown away."""
        if self._waiting:  # a task is in `receive`, and aiohttp's queue has room for one reader
            if self._close_wait is None:
                self._close_wait = self._loop.create_future()
                self._reader.feed_data(WS_CLOSING_MESSAGE, 0)
            await asyncio.shield(self._close_wait)
        try:
            while (await self._reader.read()).type is not WSMsgType.CLOSE:
                pass
        except _GONE:
            return

    def drop(self) -> None:
        """Let go of the connection and the session now. Idempotent."""
        if self.session.closed:
            return
        connection = self._response.connection
        transport = None if connection is None else connection.transport
        # What was written must get out (the answer to a close); with nothing left to write there is nothing to wait for,
        # least of all half a minute for a TLS peer that is gone.
        if transport is not None and not transport.get_write_buffer_size():
            transport.abort()
        self._set_closed()
        self._response.close()
        self.session.detach()  # the connector holds nothing any more: its only connection is gone, and none is pooled


async def _open(url: str, trust: ssl.SSLContext | bool, user_agent: str) -> _Socket:
    """A session of its own for one websocket; the socket takes it along."""
    connector = aiohttp.TCPConnector(resolver=DaemonResolver(), use_dns_cache=False, force_close=True)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent},
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        trust_env=False,
        ws_response_class=cast("Any", _Socket),  # typed for decode_text=True only
    )
    try:
        socket: Any = await session.ws_connect(
            url,
            autoclose=False,
            autoping=True,
            max_msg_size=0,
            heartbeat=None,
            decode_text=False,
            compress=0,
            ssl=trust,
        )
    except BaseException:
        await session.close()
        raise
    assert isinstance(socket, _Socket)  # noqa: S101 # ws_response_class above; aiohttp types it as the base class
    socket.session = session
    return socket


def _aborted_dial() -> ConnectFailed:
    return ConnectFailed("the transport was closed while it was dialled")


def _connect_failed(url: str, error: Exception) -> ConnectFailed:
    """One sentence, with the host and what went wrong, and without anything else of the URL."""
    try:
        parsed = URL(url)
        host = parsed.host or "the gateway"
        where = f"{host}:{parsed.port}" if parsed.port else host
    except ValueError:
        host = where = "the gateway"
    status = None
    match error:
        case aiohttp.InvalidURL():
            text = f"cannot dial {where}: not a URL that can be dialled"
        case aiohttp.WSServerHandshakeError() if error.status != 101:
            status = error.status
            text = f"{where} refused the upgrade with HTTP {status}"
        case aiohttp.ClientResponseError():  # what came is no HTTP, or no websocket
            text = f"{where} answered the upgrade wrongly: {error.message.partition(':')[0]}"
        case ClientConnectorDNSError():
            text = f"cannot resolve {host}: {error.os_error.strerror or error.os_error}"
        case ClientConnectorCertificateError():
            text = f"{where} has a TLS certificate that is not trusted: {error.certificate_error}"
        case aiohttp.ClientSSLError():
            text = f"TLS with {where} failed: {error.os_error}"
        case aiohttp.ClientConnectorError():
            text = f"cannot connect to {where}: {error.os_error.strerror or error.os_error}"
        case TimeoutError():
            text = f"cannot connect to {where}: timed out"
        case aiohttp.ServerDisconnectedError():
            text = f"{where} closed the connection during the upgrade"
        case OSError():
            text = f"cannot connect to {where}: {error.strerror or type(error).__name__}"
        case _:
            text = f"cannot connect to {where}: {type(error).__name__}"
    return ConnectFailed(text, status)
