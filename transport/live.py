"""Connect to a real gateway: aiohttp dials and requests the upgrade, then a `WebSocket` takes over the connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import math
import os
import ssl
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorDNSError
from yarl import URL

from discorder.errors import Closed, ConnectFailed
from discorder.transport.dns import DaemonResolver
from discorder.transport.inflate import Inflater
from discorder.transport.protocol import Deliver
from discorder.transport.proxies import DIRECT, Proxies
from discorder.transport.websocket import WebSocket

MAX_RETRY_AFTER = 3600.0  # seconds; one header must not keep a bot offline for longer
_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2


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
        user_agent: str = "discorder",
    ) -> None:
        self._inflater = inflater
        self._plain_text = plain_text
        self._proxies = proxies
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._user_agent = user_agent
        self._dial: asyncio.Task[_Upgraded] | None = None
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
            raise _connect_failed(url, error) from None
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

    async def _open(self, url: str) -> _Upgraded:
        return await _open(URL(url), self._proxies, self._ssl, self._user_agent)

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


class _Upgraded:
    """Hold aiohttp's part of a connection that the gateway has upgraded."""

    def __init__(self, session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        self._session = session
        self._response = response

    def take_over(self, make: Callable[[asyncio.Transport], WebSocket]) -> WebSocket:
        """Move the connection from aiohttp to a new websocket. Data that has arrived is read in the next turn of the loop."""
        connection = self._response.connection
        transport, protocol = (None, None) if connection is None else (connection.transport, connection.protocol)
        if transport is None or protocol is None:
            self.drop()
            raise aiohttp.ServerDisconnectedError
        socket = make(transport)
        rest = _Rest()
        protocol.set_parser(rest, rest)
        socket.begin(rest.data)
        transport.set_protocol(socket)
        protocol.connection_lost(None)  # aiohttp drops its reference to the transport
        self._response.close()
        self._session.detach()  # the connector of the session has no connection left
        return socket

    def drop(self) -> None:
        """Drop the connection without a close frame."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()
        self._session.detach()


class _Rest:
    """Collect the data after the answer to the upgrade in the same read. aiohttp passes it to its websocket parser."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None: ...

    def set_exception(self, *_: object) -> None: ...


async def _open(url: URL, proxies: Proxies, trust: ssl.SSLContext | bool, user_agent: str) -> _Upgraded:
    """Dial ``url`` and request the upgrade, in a new HTTP session.

    A proxy opens a tunnel for wss (CONNECT), and forwards the upgrade for ws.
    """
    proxy = proxies.of(url)
    if proxy is not None and url.scheme == "ws":
        url = url.with_scheme("http")  # proxies do not know ws
    key = base64.b64encode(os.urandom(16))
    connector = aiohttp.TCPConnector(resolver=DaemonResolver(), use_dns_cache=False, force_close=True)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent},
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        trust_env=False,
    )
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode(),
    }
    try:
        # A redirect would send the token, which IDENTIFY holds, to another host.
        response = await session.get(url, headers=headers, ssl=trust, proxy=proxy, allow_redirects=False)
        try:
            _check_upgrade(response, key)
        except BaseException:
            response.close()
            raise
    except BaseException:
        await session.close()
        raise
    return _Upgraded(session, response)


class _Refused(Exception):
    """Report an answer to the upgrade with a status other than 101."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__(response.status)
        self.status = response.status
        self.headers = response.headers


class _WrongAnswer(Exception):
    """Report an answer with status 101 that is not an upgrade to a websocket (RFC 6455 §4.1)."""


def _check_upgrade(response: aiohttp.ClientResponse, key: bytes) -> None:
    if response.status != 101:
        raise _Refused(response)
    headers = response.headers
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT_SALT).digest()).decode()  # noqa: S324 # RFC 6455 §4.2.2
    tokens = [token.strip().lower() for token in headers.get("Connection", "").split(",")]
    if headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in tokens:
        what = "no upgrade to a websocket"
    elif headers.get("Sec-WebSocket-Accept", "").strip() != accept:
        what = "a wrong Sec-WebSocket-Accept"
    elif "Sec-WebSocket-Extensions" in headers or "Sec-WebSocket-Protocol" in headers:
        what = "an extension or a subprotocol that was not asked for"
    else:
        return
    raise _WrongAnswer(what)


def _aborted_dial() -> ConnectFailed:
    return ConnectFailed("the transport was closed while it was dialled")


def _connect_failed(url: str, error: Exception) -> ConnectFailed:
    """Describe a failed dial in one sentence. Of the URL, it contains only the host."""
    try:
        parsed = URL(url)
        host = parsed.host or "the gateway"
        where = f"{host}:{parsed.port}" if parsed.port else host
    except ValueError:
        host = where = "the gateway"
    status, retry_after = None, 0.0
    match error:
        case aiohttp.InvalidURL():
            text = f"cannot dial {where}: not a URL that can be dialled"
        case _Refused():
            status = error.status
            text = f"{where} refused the upgrade with HTTP {status}"
            if 300 <= status < 400:
                text += ", a redirect: it is not followed, since the token would go elsewhere"
            elif retry_after := read_retry_after(error.headers):
                text += f" and asks not to be dialled for {retry_after:.0f} s"
        case _WrongAnswer():
            text = f"{where} answered the upgrade wrongly: {error}"
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy refused the tunnel to {where} with HTTP {error.status}"
        case aiohttp.ClientResponseError():  # the answer is not HTTP
            text = f"{where} answered the upgrade wrongly: {error.message.partition(':')[0]}"
        case aiohttp.ClientProxyConnectionError():
            text = f"cannot connect to the proxy {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
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
    return ConnectFailed(text, status, retry_after)


def read_retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds in ``Retry-After``, a number or a date (RFC 9110 §10.2.3); 0 without a valid one.

    At most `MAX_RETRY_AFTER`.
    """
    text = headers.get("Retry-After", "").strip()
    seconds = 0.0
    with contextlib.suppress(ValueError, OverflowError):
        seconds = float(text)
    if not seconds:
        with contextlib.suppress(ValueError, OverflowError, TypeError):
            now = headers.get("Date")  # the peer's clock, because the date is the peer's
            start = datetime.now(UTC) if now is None else parsedate_to_datetime(now)
            seconds = (parsedate_to_datetime(text) - start).total_seconds()
    return 0.0 if math.isnan(seconds) else min(max(0.0, seconds), MAX_RETRY_AFTER)
