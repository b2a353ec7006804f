"""Listen on the sockets of the HTTP server and accept connections, within bounds, so that no flood takes the plane's files."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable

from discorder.config.http import ListenAddress
from discorder.errors import AddressInUse, ConfigError
from discorder.http.connection import HttpConnection
from discorder.http.tls import Certificate
from discorder.logs import logger
from discorder.transport import is_loopback

LOCAL_CONNECTIONS = 64  # at a time, from this machine
OTHER_CONNECTIONS = 64  # at a time, from all other hosts; they cannot use up those of this machine
ADDRESS_CONNECTIONS = 32  # of these, from one address
HANDSHAKE_SECONDS = 5.0  # for TLS
PAUSE_SECONDS = 1.0  # after an accept that failed, as without free file descriptors
BACKLOG = 64


async def bind(address: ListenAddress, key: str = "http.bind") -> list[socket.socket]:
    """Return listening sockets on every address of the host. Raises `AddressInUse` or `ConfigError`, naming ``key``."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        found = await loop.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        port = address.port
        for family, place in dict.fromkeys((family, where[0]) for family, _, _, _, where in found):
            sockets.append(_listen(family, str(place), port))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for one in sockets:
            one.close()
        raise _explained(error, address, key) from error
    return sockets


def _listen(family: int, host: str, port: int) -> socket.socket:
    both = host == "::" and socket.has_dualstack_ipv6()  # [::] means IPv4, too
    listener = socket.create_server(
        (host, port), family=socket.AddressFamily(family), backlog=BACKLOG, dualstack_ipv6=both
    )
    listener.setblocking(False)
    return listener


def _explained(error: OSError, address: ListenAddress, key: str) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f'{key}: {address} is in use; stop the process that holds it, choose another port, or set {key} to ""'
        )
    if isinstance(error, socket.gaierror):
        return ConfigError(f"{key}: the host {address.host} is not known here: {error.strerror}; use an address")
    return ConfigError(
        f"{key}: cannot listen on {address}: {error.strerror or error}; use an address of this machine, and a port "
        "from 1024 up unless this process may use lower ones"
    )


class HttpListener:
    """Accepts connections on ``sockets`` until `close`. ``connect`` makes the protocol of one.

    ``most_local``: how many connections from this machine there may be at a time.
    """

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        connect: Callable[[], HttpConnection],
        certificate: Certificate | None,
        most_local: int = LOCAL_CONNECTIONS,
    ) -> None:
        self._most_local = most_local
        self._sockets = list(sockets)
        self._connect = connect
        self._certificate = certificate
        self._accepted: list[_Accepted] = []
        self._tasks = [asyncio.create_task(self._accept(one), name="http-accept") for one in self._sockets]

    async def close(self) -> None:
        """Stop to listen; free the ports. Connections that are set up stay open."""
        tasks = [*self._tasks, *(one.task for one in self._accepted)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._certificate is not None:
            self._certificate.close()
        for one in self._sockets:
            one.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        works = True
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:
                if works:
                    logger.warning("The HTTP server cannot accept connections now", error=str(error))
                works = False
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            works = True
            address = str(peer[0])
            if not self._make_room(address):
                connection.close()
                continue
            self._accepted.append(_Accepted(address, connection, self._connect(), self._certificate))

    def _make_room(self, address: str) -> bool:
        """Return whether one more connection of ``address`` is allowed; for it, end the one that has been quiet for longest."""
        local = is_loopback(address)
        if local and len(self._accepted) < self._most_local:  # no need to look which of them are open
            return True
        self._accepted = [one for one in self._accepted if one.is_open]
        crowd = [one for one in self._accepted if is_loopback(one.address) is local]
        from_there = [one for one in crowd if one.address == address]
        if not local and len(from_there) >= ADDRESS_CONNECTIONS:
            crowd = from_there
        elif len(crowd) < (self._most_local if local else OTHER_CONNECTIONS):
            return True
        quiet = [one for one in crowd if one.is_quiet]
        if quiet:
            min(quiet, key=lambda one: one.protocol.quiet_since).drop()
        return bool(quiet)


class _Accepted:
    """A connection, from its acceptance to its end."""

    def __init__(
        self, address: str, connection: socket.socket, protocol: HttpConnection, certificate: Certificate | None
    ) -> None:
        self.address = address
        self.protocol = protocol
        self._connection = connection
        self.task = asyncio.create_task(self._set_up(certificate), name="http-connection")
        self.task.add_done_callback(self._close_failed)

    @property
    def is_open(self) -> bool:
        """Whether it holds a file descriptor: it is being set up, or has not ended."""
        return not self.task.done() or self.protocol.transport is not None

    @property
    def is_quiet(self) -> bool:
        """Whether no request is under way."""
        return not self.task.done() or self.protocol.is_quiet

    def drop(self) -> None:
        """End it at once."""
        self.task.cancel()
        transport = self.protocol.transport
        if isinstance(transport, asyncio.Transport):  # TLS would wait for the peer to agree to a close
            transport.abort()

    async def _set_up(self, certificate: Certificate | None) -> None:
        context = None if certificate is None else await certificate.context()
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self.protocol,
            self._connection,
            ssl=context,
            ssl_handshake_timeout=None if context is None else HANDSHAKE_SECONDS,
        )

    def _close_failed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._connection.close()
        if error is not None and not isinstance(error, OSError):  # else the peer has gone, or does not speak TLS
            logger.error("The HTTP server could not set up a connection", error=type(error).__name__)
