"""Dial a gateway with aiohttp and request the upgrade to a websocket; describe what went wrong without path, query or token."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import math
import os
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorDNSError
from yarl import URL

from discorder.errors import ConnectFailed
from discorder.transport.dns import DaemonResolver
from discorder.transport.proxies import Proxies
from discorder.transport.websocket import WebSocket

MAX_RETRY_AFTER = 3600.0  # seconds; one header must not keep a bot offline for longer
_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2


class Upgraded:
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


async def request_upgrade(url: URL, proxies: Proxies, trust: ssl.SSLContext | bool) -> Upgraded:
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
        headers={"User-Agent": "discorder"},
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
    return Upgraded(session, response)


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


def connect_failed(url: str, error: Exception) -> ConnectFailed:
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
