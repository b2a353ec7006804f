"""Limit the cost of subscribers: their share of each turn of the loop, and the memory of their topics.

ZeroMQ reads subscriptions on the loop's thread, as many as it finds, and keeps them in a tree without a limit. So it gets few at
a time, and a connection with too many is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import stat
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import zmq

from discorder.clock import Clock
from discorder.publishers.delivery.keep_running import keep_running

MAX_SUBSCRIPTION_BYTES = 96  # of one frame; Discord's longest event name has 38
MAX_CURVE_BYTES = 512  # with CURVE, whose handshake has frames of some 300 bytes
QUEUED_SUBSCRIPTIONS = 2  # per connection; ZeroMQ reads no more of them before the loop continues
NEW_TOPICS = 1_024  # that all subscribers together may add at once; Discord has some 140 events
NEW_TOPICS_PER_SECOND = 0.1  # allowed in addition: bots that reconnect subscribe to their topics again
NEW_TOPICS_AFTER_CUT = 256  # allowed at once after a connection was cut
MANY_BYTES = 16_384  # from one connection since the last check: more than twice the size of 140 topics
PAUSE = 0.001  # seconds between two checks: a subscriber with 140 topics is served within 0.2 s
WARN_EVERY = 60.0  # seconds between two warnings

# ZMQ_TOPICS_COUNT of zmq.h since 4.3.5, which pyzmq names in draft builds only. ZeroMQ does not subtract the topics of a client
# that leaves, so the number counts all topics ever subscribed to, not the current ones.
TOPICS_COUNT = 116
TCP_INFO_BYTES_RECEIVED = 128  # offset of tcpi_bytes_received in Linux's struct tcp_info, an unsigned 64-bit integer
TCP_INFO_SIZE = 256  # bytes requested; the kernel returns as many as it has

logger = logging.getLogger(__name__)


class BusConnection(NamedTuple):
    """Describe one connection of a client to the bus, from the kernel's data."""

    descriptor: int
    inode: int
    unread: int  # bytes that wait to be read: normally 0
    received: int  # bytes received in total; 0 if the system does not count them


def configure_subscriptions(sock: zmq.Socket[bytes], *, curve: bool) -> None:
    """Limit what one subscriber can queue. Call it before the socket is bound."""
    sock.set(zmq.RCVHWM, QUEUED_SUBSCRIPTIONS)
    sock.set(zmq.MAXMSGSIZE, MAX_CURVE_BYTES if curve else MAX_SUBSCRIPTION_BYTES)


class SubscriptionLimit:
    """Let one bound XPUB socket read subscriptions, a few in each turn, and cut the connections that send too many."""

    def __init__(
        self, sock: zmq.Socket[bytes], endpoints: Sequence[str], name: str, clock: Clock, *, read: Callable[[], bool]
    ) -> None:
        """Create a limit; ``read`` takes some of the socket's reports and returns whether there may be more."""
        self._socket = sock
        self._read = read
        self._descriptor = int(sock.get(zmq.FD))
        self._endpoints = tuple(endpoints)
        self.name = name
        self._clock = clock
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._warned_at = -WARN_EVERY
        self._allowed = float(NEW_TOPICS)
        self._counted = 0
        self._counted_at = 0.0
        self._received: dict[int, int] = {}  # bytes by connection, at the last check

    def start(self) -> None:
        """Start to read subscriptions."""
        asyncio.get_running_loop().add_reader(self._descriptor, self._news.set)
        self._news.set()
        self._task = asyncio.create_task(
            keep_running(f"subscriptions of {self.name}", self._run, self._clock), name=f"subscriptions of {self.name}"
        )

    def stop(self) -> None:
        """Stop reading; the socket may be closed then. Idempotent."""
        if self._task is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._task.cancel()
            self._task = None

    @property
    def topics(self) -> int:
        """Return how many different topics were subscribed to so far."""
        self._socket.get(zmq.EVENTS)  # reads the subscriptions that have come
        return int(self._socket.getsockopt(TOPICS_COUNT))

    def enforce(self) -> None:
        """Cut the connections that send topics without end."""
        now, topics = asyncio.get_running_loop().time(), self.topics
        if self._read():
            self._news.set()
        regained = (now - self._counted_at) * NEW_TOPICS_PER_SECOND
        self._allowed = min(self._allowed + regained, NEW_TOPICS) - (topics - self._counted)
        self._counted, self._counted_at = topics, now
        if self._allowed >= 0:
            return
        self._allowed = NEW_TOPICS_AFTER_CUT
        self._cut_the_busiest()
        if now - self._warned_at >= WARN_EVERY:
            self._warned_at = now
            logger.warning(
                "Publisher %s: clients subscribe to more and more topics, %d since the start; the connections that send the most "
                "are cut. Find the program that does this, or that connects again and again; it can read every event",
                self.name,
                topics,
            )

    def _cut_the_busiest(self) -> None:
        found = connections(self._endpoints)
        since = {one: one.received - self._received.get(one.inode, 0) for one in found}
        self._received = {one.inode: one.received for one in found}
        busy = [one for one in found if one.unread or since[one] >= MANY_BYTES]
        if not busy and any(since.values()):
            busy = [max(found, key=lambda one: since[one])]
        # all of them if the system does not say which one it is: the others connect again
        for connection in busy or found:
            _cut(connection.descriptor)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            self.enforce()
            await asyncio.sleep(PAUSE)


def connections(endpoints: Sequence[str]) -> list[BusConnection]:
    """Return this process's connections whose local end is one of ``endpoints``, in the form that ZeroMQ returns after bind."""
    ports = {int(endpoint.rpartition(":")[2]) for endpoint in endpoints if endpoint.startswith("tcp://")}
    paths = {endpoint.removeprefix("ipc://") for endpoint in endpoints if endpoint.startswith("ipc://")}
    found = []
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, or not a connection
            connection = _connection(int(entry.name), ports, paths)
            if connection is not None:
                found.append(connection)
    return found


def _connection(descriptor: int, ports: set[int], paths: set[str]) -> BusConnection | None:
    status = os.fstat(descriptor)
    if not stat.S_ISSOCK(status.st_mode):
        return None
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        local = sock.getsockname()
        ours = local in paths if sock.family == socket.AF_UNIX else local[1] in ports
        if not ours or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        (unread,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
        received = 0
        if sys.platform == "linux" and sock.family != socket.AF_UNIX:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
            if len(info) >= TCP_INFO_BYTES_RECEIVED + 8:
                (received,) = struct.unpack_from("Q", info, TCP_INFO_BYTES_RECEIVED)
        return BusConnection(descriptor, status.st_ino, unread, received)


def _cut(descriptor: int) -> None:
    """End a connection as if the client had ended it. ZeroMQ owns the descriptor and closes it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
