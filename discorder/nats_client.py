"""Connect a client of nats-py to one server, for the publisher and for its readers. Never sends unencrypted what must not be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import ParseResult

import msgspec
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error

from discorder.nats_access import NoEncryption, ServerAccess

CONNECT_TIMEOUT = 2.0  # seconds for each server
GREETING_WITHIN = 1.5  # seconds after the connection is made
PING_EVERY = 2  # seconds; the connection ends when two in a row are not answered
FAILURES = (Error, OSError, TimeoutError)  # of the client library

_GREETING = b"INFO "


class _Greeting(msgspec.Struct):
    tls_required: bool = False
    tls_available: bool = False


class CheckedTransport(TcpTransport):
    """The transport of one connection. ``context``: None if it may be unencrypted; otherwise nothing is sent before TLS is on."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._context = context
        self._host = ""
        self._buffer_size = 0
        self._is_encrypted = False
        self.is_greeted = False

    def __bool__(self) -> bool:
        """Return True: the library makes a transport of its own in place of one that is false."""
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """See `Transport`."""
        self._is_encrypted = self.is_greeted = False
        self._host, self._buffer_size = uri.hostname or "", buffer_size
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """See `Transport`."""
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        self._is_encrypted = True

    async def readline(self) -> bytes:
        """See `Transport`. Raises ConnectionError if the first line is not that of a NATS server."""
        if self.is_greeted:
            return bytes(await super().readline())  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(GREETING_WITHIN):
                line = bytes(await super().readline())  # type: ignore[no-untyped-call]
        except TimeoutError:
            msg = (
                f"the connection was accepted, but no greeting of NATS came within {GREETING_WITHIN:g} s: another program, "
                "which does not speak NATS, listens there, or the server hangs"
            )
            raise ConnectionError(msg) from None
        except ValueError:  # longer than the buffer
            line = b"\n"
        if not line.startswith(_GREETING):
            msg = "what answers there does not speak NATS" if line else "the connection was closed without a greeting"
            raise ConnectionError(msg)
        self.is_greeted = True
        await self._secure(line[len(_GREETING) :])
        return line

    def write(self, payload: bytes) -> None:
        """See `Transport`. Raises `NoEncryption`."""
        self._check()
        super().write(payload)  # type: ignore[no-untyped-call]

    def writelines(self, payload: list[bytes]) -> None:
        """See `Transport`. Raises `NoEncryption`."""
        self._check()
        super().writelines(payload)  # type: ignore[no-untyped-call]

    async def _secure(self, greeting: bytes) -> None:
        """Switch TLS on if the server leaves the choice to the client: the library does so only where it is required."""
        if self._context is None:
            return
        try:
            offers = msgspec.json.decode(greeting, type=_Greeting)
        except msgspec.DecodeError:
            return  # the library says so
        if offers.tls_available and not offers.tls_required:
            await self.connect_tls(self._host, self._context, self._buffer_size, int(CONNECT_TIMEOUT))

    def _check(self) -> None:
        if self._context is not None and not self._is_encrypted:
            msg = "the server offers no TLS, so nothing was sent"
            raise NoEncryption(msg)


async def open_client(
    client: Client,
    access: ServerAccess,
    server: str,
    *,
    tls: ssl.SSLContext | None,
    failed: Callable[[Exception], None],
    closed: Callable[[], Awaitable[None]],
    **options: Any,
) -> None:
    """Connect ``client`` to ``server`` with the ``tls`` of ``access``, and log in. It is never repaired.

    ``failed`` is called for each error, also later ones. Raises one of `FAILURES`; close the client then.
    """
    last: list[Exception] = []

    async def note(error: Exception) -> None:
        last[:] = [error]
        failed(error)

    transport = CheckedTransport(tls if access.must_encrypt(server) else None)
    client._transport = transport  # noqa: SLF001  # nats-py 2.16 has no public way to choose one
    try:
        await client.connect(
            servers=[server],
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CONNECT_TIMEOUT),
            ping_interval=PING_EVERY,
            max_outstanding_pings=2,
            error_cb=note,
            closed_cb=closed,
            tls=tls,
            pending_size=-1,  # a full buffer would wait for the server, and the library swallows a cancellation there
            **options,
        )
    except Error as error:
        raise (last[0] if last else error) from error  # the library's own says only that there is no server
    if not transport.is_greeted:
        msg = "the installed nats-py does not use the transport that checks the encryption; install nats-py 2.16"
        raise NoEncryption(msg)
