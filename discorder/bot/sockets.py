"""Connects the sockets of a bot, with CURVE where the bus needs it, and waits for messages on an event loop."""

from __future__ import annotations

import asyncio
import math
import os
import re
import weakref
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Self

import zmq

from discorder.curve import is_key, load_pair
from discorder.errors import ConfigError
from discorder.paths import DEFAULT_ADDRESS, resolve_endpoint
from discorder.wire import MAX_PORT

# A connection that dies without a FIN is noticed within HEARTBEAT_EVERY_MS + HEARTBEAT_TIMEOUT_MS, 12 s; then ZeroMQ connects
# again. The next position, at most 10 s later, shows what was missed: together less than 30 s.
HEARTBEAT_EVERY_MS = 4_000
HEARTBEAT_TIMEOUT_MS = 8_000
CONNECT_TIMEOUT_MS = 5_000  # the kernel's own takes two minutes where SYNs are dropped
HANDSHAKE_MS = 5_000  # ZeroMQ's own is 30 s

Socket = zmq.Socket[bytes]

REST = 0.002  # seconds between two reads while events come faster than that; timers of the loop add up to 1 ms

_EVENTS, _POLLIN = zmq.EVENTS, int(zmq.POLLIN)

ENDPOINTS = f"allowed: tcp://HOST:PORT and ipc://PATH, such as {DEFAULT_ADDRESS!r}"
_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:/\[\]\s*]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """Keys for an encrypted bus: its public key, and the bot's own key file, both made by ``discorder keygen``.

    The ``curve_clients`` of the bus must list the bot's public key.
    """

    server_key: str
    secret_file: str | os.PathLike[str]

    def load(self) -> LoadedKeys:
        """Read the key file. Raises ValueError for keys that cannot be used."""
        if not is_key(self.server_key):
            msg = (
                f"server_key is the bus's public key, 40 characters of Z85; this has {len(self.server_key)} characters"
            )
            raise ValueError(msg)
        try:
            pair = load_pair(self.secret_file, "secret_file")
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return LoadedKeys(self.server_key.encode(), pair.public, pair.secret)


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """The contents of `CurveKeys`, read at the start: later connections do not depend on the file."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)


def check_address(address: str, allowed: str = ENDPOINTS) -> None:
    """Raise ValueError for an address that is no endpoint of ZeroMQ. ``allowed``: what to say of other addresses."""
    match = _TCP.fullmatch(address)
    if (match is None or not 0 < int(match[2]) <= MAX_PORT) and not re.fullmatch(r"ipc://.+", address):
        msg = f"{address!r} is not an endpoint; {allowed}"
        raise ValueError(msg)


def connect(sock: Socket, address: str, keys: LoadedKeys | None) -> None:
    """Connect in the background, and again after each loss. Raises ValueError for an address or keys that cannot be used."""
    check_address(address)
    sock.set(zmq.LINGER, 0)
    sock.set(zmq.IPV6, int("[" in address))
    sock.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    sock.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.set(zmq.HEARTBEAT_IVL, HEARTBEAT_EVERY_MS)
    sock.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    if keys is not None:
        sock.set(zmq.CURVE_SERVERKEY, keys.server)
        sock.set(zmq.CURVE_PUBLICKEY, keys.public)
        sock.set(zmq.CURVE_SECRETKEY, keys.secret)
    try:
        sock.connect(resolve_endpoint(address))
    except zmq.ZMQError as error:
        msg = f"cannot connect to {address}: {error}"
        raise ValueError(msg) from error


class Waiter:
    """Waits for messages on sockets. One task at a time.

    ZeroMQ signals a socket's descriptor only once for several messages: read each socket until it is empty before each wait.
    The loop holds no reference to the waiter, so that a dropped bot can be collected.
    """

    def __init__(self) -> None:
        self._reference: weakref.ref[Waiter] = weakref.ref(self)
        self._sockets: dict[int, Socket] = {}  # by descriptor
        self._unread: set[int] = set()  # descriptors of sockets that are not read after every wait
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watches = False
        self._may_rest = False
        self._rests = False
        self._found_at = -math.inf  # when the last wait began that followed a read
        self._waiting: _Wait | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, sock: Socket, *, always_read: bool = False) -> None:
        """Watch a socket. ``always_read``: it is read until it is empty after every wait."""
        descriptor = int(sock.get(zmq.FD))
        self._sockets[descriptor] = sock
        if not always_read:
            self._unread.add(descriptor)
        if self._watches and self._loop is not None and not self._loop.is_closed():
            self._loop.add_reader(descriptor, _on_readable, self._reference, descriptor)

    def remove(self, sock: Socket) -> None:
        """Stop watching a socket; call it before the socket is closed."""
        descriptor = next((number for number, one in self._sockets.items() if one is sock), None)
        if descriptor is None:
            return
        del self._sockets[descriptor]
        self._unread.discard(descriptor)
        if self._watches and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)

    async def wait(self, seconds: float | None, *, found: bool = False) -> None:
        """Return when there may be a message, when woken, or after ``seconds``.

        ``found``: whether something was read since the previous wait. While that is so, and waits follow each other within
        `REST`, the sockets are not watched: a wait lasts that long, and then everything that came is read at once.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.close()
            self._loop = loop
            self._may_rest = not hasattr(loop, "moderate")  # a moderated loop rests by itself
        now = loop.time()
        if found and self._may_rest:
            self._rests = self._rests or now - self._found_at < REST
            self._found_at = now
        else:
            self._rests = False
        if self._rests:
            seconds = REST if seconds is None else min(REST, seconds)
        if self._watches is self._rests:
            self._watch(loop, not self._rests)
        if seconds is not None:
            self._set_timer(loop, now + seconds)
        self._waiting = _Wait(loop=loop)
        try:
            await self._waiting
        finally:
            self._waiting = None

    def wake(self) -> None:
        """End a wait, in the loop's next turn."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.end()

    def close(self) -> None:
        """Stop watching until the next wait."""
        loop, self._loop = self._loop, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._watches and loop is not None and not loop.is_closed():
            self._watch(loop, False)
        self._watches = False

    def _watch(self, loop: asyncio.AbstractEventLoop, wanted: bool) -> None:
        self._watches = wanted
        for descriptor in self._sockets:
            if wanted:
                loop.add_reader(descriptor, _on_readable, self._reference, descriptor)
            else:
                loop.remove_reader(descriptor)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        """Set a timer, unless an earlier one is set: a wake-up in vain now and then costs less than a new timer for each wait."""
        timer = self._timer
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        self._timer = loop.call_at(at, _on_timer, self._reference)

    def _readable(self, descriptor: int) -> None:
        """End a wait if there may be a message. The descriptor is readable until somebody has looked for one.

        While nobody waits, as during the work of a bot that awaits something else, that would wake the loop again and again.
        """
        waiting = self._waiting
        if waiting is None:
            if self._loop is not None:
                self._watch(self._loop, False)  # until the next wait
            return
        if descriptor in self._unread and not has_message(self._sockets[descriptor]):
            return
        if not waiting.done():
            waiting.end_now()

    def _expire(self) -> None:
        self._timer = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.end_now()


class _Wait(asyncio.Future[None]):
    """A future that one task awaits. A callback of the loop can resume the task at once, without another turn of the loop.

    On a quiet bus that turn is a quarter of what an event costs.
    """

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._resume: Callable[[], object] | None = None

    def add_done_callback(self, fn: Callable[[Self], object], *, context: Context | None = None) -> None:
        """Keep the callback of the task; there is no other."""
        self._resume = lambda: fn(self) if context is None else context.run(fn, self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel like any future."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._resume_soon()
        return cancelled

    def end(self) -> None:
        """Resume the task in the loop's next turn."""
        self.set_result(None)
        self._resume_soon()

    def end_now(self) -> None:
        """Resume the task now. Only from a callback of the loop, where no task runs."""
        self.set_result(None)
        if self._resume is not None:
            self._resume()

    def _resume_soon(self) -> None:
        if self._resume is not None:
            self.get_loop().call_soon(self._resume)


def has_message(sock: Socket) -> bool:
    """Return whether a message can be read."""
    return bool(int(sock.get(_EVENTS)) & _POLLIN)


def _on_readable(reference: weakref.ref[Waiter], descriptor: int) -> None:
    if (waiter := reference()) is not None:
        waiter._readable(descriptor)  # noqa: SLF001  # its own callback, which must not keep it alive


def _on_timer(reference: weakref.ref[Waiter]) -> None:
    if (waiter := reference()) is not None:
        waiter._expire()  # noqa: SLF001  # as above
