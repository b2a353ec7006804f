"""Sends requests to the ROUTER of the bus and reads the parts of its answers (docs/bus.md#requests)."""

from __future__ import annotations

import itertools
import logging
from typing import Any, NamedTuple

import msgspec
import zmq

from discorder.bot.sockets import LoadedKeys, Socket, Waiter, connect, has_message

VERSION = 1
RECEIVE_HWM = 256  # parts that wait here while the bot is busy; more wait at the bus

logger = logging.getLogger(__name__)


class ForeignAnswer(ValueError):
    """Raised for a message that is no part of an answer: another program listens at the address."""


class Part(NamedTuple):
    """One part of an answer. The last one has an empty ``topic``."""

    id: bytes
    topic: bytes
    document: bytes

    def fields(self) -> dict[str, Any]:
        """Decode the last part. Raises `ForeignAnswer` when it is no JSON object."""
        try:
            return msgspec.json.decode(self.document, type=dict[str, Any])
        except (ValueError, RecursionError) as error:
            msg = f"no JSON object: {error}"
            raise ForeignAnswer(msg) from error


class Dealer:
    """A DEALER socket that exists only while a request is open.

    `request` opens the socket; `close` drops it with every request that was not answered. Each attempt after a failure takes a
    new socket. ZMQ_IMMEDIATE stays off: with it libzmq 4.3.5 aborts the process when the connection breaks in the middle of an
    answer. So a request is queued until the bus listens. ``watched``: `is_cut` tells when a connection has ended.
    """

    def __init__(
        self,
        context: zmq.Context[Socket],
        address: str,
        keys: LoadedKeys | None,
        waiter: Waiter,
        *,
        watched: bool = False,
    ) -> None:
        self.address = address
        self._watched = watched
        self._monitor: Socket | None = None
        self._context = context
        self._keys = keys
        self._waiter = waiter
        self._socket: Socket | None = None
        self.is_open = False
        self._ids = itertools.count(1)

    def open(self) -> None:
        """Open the socket, unless it is open. Raises ValueError for an address or keys that cannot be used."""
        if self._socket is not None:
            return
        sock = self._context.socket(zmq.DEALER)
        sock.set(zmq.RCVHWM, RECEIVE_HWM)
        if self._watched:
            self._monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self._waiter.add(self._monitor)
        try:
            connect(sock, self.address, self._keys)
        except BaseException:
            sock.close(linger=0)
            raise
        self._socket, self.is_open = sock, True
        self._waiter.add(sock)

    def request(self, op: str, **fields: Any) -> bytes:
        """Send a request, at the latest when the bus listens; return the id of the parts that will answer it.

        A request that cannot be sent (no file descriptor is left) is lost: the caller repeats it after its timeout.
        """
        number = next(self._ids)
        try:
            self._send(msgspec.json.encode({"v": VERSION, "id": number, "op": op, **fields}))
        except zmq.ZMQError as error:
            logger.warning("A request to %s was not sent, and will be repeated: %s", self.address, error)
        return b"%d" % number

    def read(self) -> Part | None:
        """Return the next part, None when there is none. Raises `ForeignAnswer` for a message that is no part of an answer."""
        if self._socket is None:
            return None
        try:
            frames = self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        if len(frames) != 3:  # a part has three frames
            msg = f"a message of {len(frames)} frames"
            raise ForeignAnswer(msg)
        return Part(*frames)

    def is_cut(self) -> bool:
        """Return whether a connection has ended since the last call: what was sent on it may be lost."""
        found = False
        while self._monitor is not None and has_message(self._monitor):
            self._monitor.recv_multipart(zmq.DONTWAIT)
            found = True
        return found

    def _send(self, request: bytes) -> None:
        self.open()
        if self._socket is not None:
            self._socket.send(request, zmq.DONTWAIT)

    def close(self) -> None:
        """Drop the socket and its open requests. Idempotent."""
        sock, self._socket, self.is_open = self._socket, None, False
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            self._waiter.remove(monitor)
        if sock is not None:
            if monitor is not None:
                sock.disable_monitor()
                monitor.close(linger=0)
            self._waiter.remove(sock)
            sock.close(linger=0)
