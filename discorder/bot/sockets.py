"""A bot's sockets: connecting them, with CURVE where the bus asks for it, and waiting for news on a loop.

What passes through them is not known here.
"""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from discorder.curve import is_key, load_pair
from discorder.errors import ConfigError
from discorder.wire import MAX_PORT

DEFAULT_ADDRESS = "tcp://127.0.0.1:6000"

Socket = zmq.Socket[bytes]

_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:/\[\]\s*]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What an encrypted bus asks for: its public key, and the bot's own key file, both made by ``discorder keygen``.

    The bot's public key must stand in the bus's ``curve_clients``.
    """

    server_key: str
    secret_file: str | os.PathLike[str]

    def apply(self, sock: Socket) -> None:
        """Before it connects. Raises ValueError for keys that cannot be used."""
        if not is_key(self.server_key):
            msg = (
                f"server_key is the bus's public key, 40 characters of Z85; this has {len(self.server_key)} characters"
            )
            raise ValueError(msg)
        try:
            pair = load_pair(Path(self.secret_file), "secret_file")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        sock.set(zmq.CURVE_SERVERKEY, self.server_key.encode())
        sock.set(zmq.CURVE_PUBLICKEY, pair.public)
        sock.set(zmq.CURVE_SECRETKEY, pair.secret)


def check_address(address: str) -> None:
    """Raises ValueError for what cannot be connected to."""
    match = _TCP.fullmatch(address)
    if (match is None or not 0 < int(match[2]) <= MAX_PORT) and not re.fullmatch(r"ipc://.+", address):
        msg = f"{address!r} is not an endpoint; allowed: tcp://HOST:PORT and ipc://PATH, such as {DEFAULT_ADDRESS!r}"
        raise ValueError(msg)


def connect(sock: Socket, address: str, keys: CurveKeys | None) -> None:
    """Connect in the background, again and again. Raises ValueError for an address or keys that cannot be used."""
    check_address(address)
    sock.set(zmq.LINGER, 0)
    sock.set(zmq.IPV6, int("[" in address))
    if keys is not None:
        keys.apply(sock)
    try:
        sock.connect(address)
    except zmq.ZMQError as error:
        msg = f"cannot connect to {address}: {error}"
        raise ValueError(msg) from error


class Waiter:
    """Waits for the sockets' file descriptors, which tell of news only once: so only after a read found nothing.

    One task at a time. The loop keeps no hold of it, so that what a bot dropped can go.
    """

    def __init__(self, sockets: Sequence[Socket]) -> None:
        self._descriptors = [int(sock.get(zmq.FD)) for sock in sockets]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None

    async def wait(self, seconds: float | None) -> None:
        """Return when there may be news, when woken, or after ``seconds``."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            reference: weakref.ref[Waiter] = weakref.ref(self)
            for descriptor in self._descriptors:
                loop.add_reader(descriptor, _wake, reference)
        self._future = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        try:
            await self._future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """End a wait."""
        if self._future is None:
            self.close()  # the bot is busy: it will look for itself
        elif not self._future.done():
            self._future.set_result(None)

    def close(self) -> None:
        """Watch no more, until the next wait."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            for descriptor in self._descriptors:
                loop.remove_reader(descriptor)


def _wake(reference: weakref.ref[Waiter]) -> None:
    if (waiter := reference()) is not None:
        waiter.wake()
