"""Connect to a real gateway: aiohttp dials and requests the upgrade, then a `WebSocket` takes over the connection."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from collections.abc import Callable

from yarl import URL

from discorder.errors import Closed, ConnectFailed
from discorder.transport.inflate import Inflater
from discorder.transport.protocol import Deliver
from discorder.transport.proxies import DIRECT, Proxies
from discorder.transport.upgrade import Upgraded, connect_failed, request_upgrade
from discorder.transport.websocket import WebSocket


class AiohttpTransport:
    """Connect to a gateway once, through aiohttp.

    ``inflater`` decompresses binary messages; if there is one, ``plain_text`` is called for text messages, which are never
    compressed. ``proxies`` chooses the proxy. ``ssl_context`` replaces the system's certificates (for the CA of a test). The
    caller sets the time limits by cancelling `connect` and `close`.
    """

    def __init__(
        self,
        *,
        inflater: Inflater | None = None,
        plain_text: Callable[[], None] = lambda: None,
        proxies: Proxies = DIRECT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._inflater = inflater
        self._plain_text = plain_text
        self._proxies = proxies
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._dial: asyncio.Task[Upgraded] | None = None
        self._socket: WebSocket | None = None
        self._no_socket: Closed | None = None  # the end of a transport that never had a socket

    def __del__(self) -> None:
        socket = self._socket
        if socket is not None and not socket.closed and not socket.loop.is_closed():
            warnings.warn("a transport was forgotten with its connection open", ResourceWarning, stacklevel=2)
            socket.loop.call_soon_threadsafe(socket.abort)

    @property
    def closed(self) -> bool:
        """Return whether there is no socket. A reset that was not read yet shows only at the next call."""
        return self._socket is None or self._socket.closed

    async def connect(self, url: str, deliver: Deliver) -> None:
        """Dial ``url`` and upgrade. Raises `ConnectFailed`, whose message has host and cause, never path or query."""
        if self._dial is not None:
            msg = "a transport is dialled once; make a new one"
            raise RuntimeError(msg)
        if self._given_up():
            msg = "the transport was closed before it was dialled"
            raise ConnectFailed(msg)
        # A task of its own, so that `abort` can end the dial while this call waits for it.
        dial = self._dial = asyncio.create_task(self._open(url), name="dial")
        try:
            upgraded = await dial
        except asyncio.CancelledError:
            if dial.done() and not dial.cancelled() and dial.exception() is None:
                dial.result().drop()  # the dial succeeded in the same turn of the loop
            current = asyncio.current_task()
            if self._given_up() and not (current is not None and current.cancelling()):
                raise _aborted_dial() from None
            self._give_up(Closed(None, "us", "the dial was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001  # any error of aiohttp is a failed dial
            self._give_up(Closed(None, "network", "the dial failed"))
            # Not chained: aiohttp's texts contain the whole URL, and tracebacks print the cause.
            raise connect_failed(url, error) from None
        if self._given_up():  # in the turn of the loop in which the dial succeeded
            upgraded.drop()
            raise _aborted_dial()
        self._socket = upgraded.take_over(lambda transport: self._websocket(transport, deliver))

    async def wait_closed(self) -> None:
        """Wait for the end and raise it. By then, a close frame of the peer is answered."""
        await self._live().wait_closed()

    async def send(self, data: bytes) -> None:
        """Write one text message. Raises `Closed`; `wait_closed` may still raise the close code."""
        await self._live().send(data)

    async def close(self, code: int) -> None:
        """Send a close frame with ``code``, wait for that of the peer, and drop the socket.

        `wait_closed` raises ``Closed(code, "us")`` at once. During the dial this is `abort`.
        """
        if self._socket is None:
            self.abort()
        else:
            await self._socket.close(code)

    def abort(self) -> None:
        """Drop the socket, or cancel the dial. The peer gets no close frame."""
        if self._socket is not None:
            self._socket.abort()
            return
        self._give_up(Closed(None, "us", "aborted"))
        if self._dial is not None:
            self._dial.cancel()

    async def _open(self, url: str) -> Upgraded:
        return await request_upgrade(URL(url), self._proxies, self._ssl)

    def _websocket(self, transport: asyncio.Transport, deliver: Deliver) -> WebSocket:
        return WebSocket(transport, deliver, self._inflater, self._plain_text)

    def _live(self) -> WebSocket:
        if self._socket is None:
            raise self._no_socket or Closed(None, "us", "not connected")
        return self._socket

    def _given_up(self) -> bool:
        return self._no_socket is not None

    def _give_up(self, end: Closed) -> None:
        self._no_socket = self._no_socket or end


def _aborted_dial() -> ConnectFailed:
    return ConnectFailed("the transport was closed while it was dialled")
