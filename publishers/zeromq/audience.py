"""Observe who is connected to the bus, and how many clients subscribe to each topic.

ZeroMQ reports connections on a monitor socket and subscriptions on the XPUB socket, but not which connection subscribed to what.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections import Counter

import zmq
from zmq.utils.monitor import parse_monitor_message

from discorder.clock import Clock
from discorder.publishers.zeromq.state import BusClient

MOST_TOPICS = 2_048  # that are counted: more than `subscriptions` lets clients add
MOST_CLIENTS = 4_096
MESSAGES_PER_READ = 32  # of each kind; the loop continues between two reads
_SUBSCRIBE, _UNSUBSCRIBE = b"\1", b"\0"  # the first byte of a message
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


def report_subscriptions(sock: zmq.Socket[bytes]) -> None:
    """Make an XPUB socket report every subscription, also to a topic that others subscribe to. Call it before it is bound."""
    sock.set(zmq.XPUB_VERBOSER, 1)


class Audience:
    """The clients of one bus, as far as `read` has taken the reports of ZeroMQ."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], bus: zmq.Socket[bytes], clock: Clock) -> None:
        """Begin to observe ``bus``, an XPUB socket."""
        self._bus = bus
        self._clock = clock
        self._clients: dict[int, BusClient] = {}  # by file descriptor
        self._topics: Counter[str] = Counter()
        address = f"inproc://monitor-{id(self):x}"
        bus.monitor(address, _EVENTS)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # a full queue would hold up ZeroMQ's thread
        self._monitor.connect(address)

    @property
    def clients(self) -> tuple[BusClient, ...]:
        """Return the connected clients, in the order of their connections."""
        return tuple(self._clients.values())

    @property
    def topics(self) -> dict[str, int]:
        """Return how many clients subscribe to each topic."""
        return dict(self._topics)

    def read(self) -> bool:
        """Take some of what ZeroMQ has reported. Return whether there may be more."""
        more_subscriptions = self._read_subscriptions()
        return self._read_connections() or more_subscriptions

    def _read_subscriptions(self) -> bool:
        for _ in range(MESSAGES_PER_READ):
            try:
                self._subscribed(self._bus.recv(zmq.DONTWAIT))
            except zmq.Again:
                return False
        return True

    def _read_connections(self) -> bool:
        for _ in range(MESSAGES_PER_READ):
            try:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))
            except zmq.Again:
                return False
            self._connected(int(event["event"]), int(event["value"]))
        return True

    def close(self) -> None:
        """Stop to observe. Call it before the bus is closed."""
        self._bus.disable_monitor()
        self._monitor.close(linger=0)

    def _subscribed(self, message: bytes) -> None:
        """Count a subscription. Other messages are a client's own and mean nothing here."""
        topic = message[1:].decode(errors="replace")
        if message[:1] == _SUBSCRIBE and (topic in self._topics or len(self._topics) < MOST_TOPICS):
            self._topics[topic] += 1
        elif message[:1] == _UNSUBSCRIBE and topic in self._topics:
            self._topics[topic] -= 1
            if not self._topics[topic]:
                del self._topics[topic]

    def _connected(self, event: int, descriptor: int) -> None:
        self._clients.pop(descriptor, None)
        if event == zmq.EVENT_ACCEPTED and len(self._clients) < MOST_CLIENTS:
            self._clients[descriptor] = BusClient(_peer(descriptor), self._clock.now())


def _peer(descriptor: int) -> str:
    """Return the address of a client, or the process id of one on this host's ``ipc://``; "" if it has left already."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        if sock.family == socket.AF_UNIX:
            return _process(sock)
        host, port = sock.getpeername()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ""


def _process(sock: socket.socket) -> str:
    if sys.platform != "linux":
        return "ipc"
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return f"process {struct.unpack('3i', credentials)[0]}"
