"""Publishes events over ZeroMQ: two frames, the event's name as topic and its document.

The socket is a plain synchronous one that is only ever used without blocking: a subscriber too slow for its pipe loses messages
there and never holds up the control plane (design: "What PUB cannot tell"; such a subscriber finds its holes by ``prev``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import zmq
from msgspec import Meta

from discorder.errors import ConfigError, PublisherError
from discorder.publishers.endpoints import address_in_use, check_endpoint, check_ipc_path
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.workers import finish
from discorder.wire import Event

DEFAULT_BIND = "tcp://127.0.0.1:6000"
DEFAULT_HWM = 10_000  # messages per subscriber; some 10 MB of usual events for one that stopped reading
LINGER_MS = 250  # what a subscriber may take to fetch the last messages at shutdown
DRAIN_EVERY = 1_024  # batches between two looks at the subscription messages, which otherwise pile up

# Plain integers: combining zmq's flag enum for each frame costs more than sending the frame.
_FIRST_FRAME = int(zmq.SNDMORE) | int(zmq.DONTWAIT)
_LAST_FRAME = int(zmq.DONTWAIT)


class ZmqOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a ``zmq`` publisher's table."""

    bind: Annotated[str | tuple[str, ...], Meta(description="an endpoint or a list of endpoints")] = DEFAULT_BIND
    hwm: Annotated[int, Meta(ge=1, description="messages per subscriber, at least 1")] = DEFAULT_HWM
    linger_ms: Annotated[int, Meta(ge=0, le=60_000, description="milliseconds, 0 to 60000")] = LINGER_MS
    insecure: Annotated[bool, Meta(description="true or false")] = False


class ZmqPublisher:
    """Binds ``bind`` (one endpoint or several; ``tcp://`` and ``ipc://``) and sends every event to whoever subscribed.

    A port of 0 or ``*`` lets the system choose; `endpoints` tells what was bound. ``hwm``: messages kept per subscriber.
    ``linger_ms``: how long `close` may wait for subscribers to fetch the last messages. Binding an address that other hosts
    can reach raises ConfigError unless ``insecure``: the bus is as confidential as the bot's messages.
    """

    Options = ZmqOptions
    durable = False
    all_records = True

    def __init__(
        self,
        bind: str | Sequence[str] = DEFAULT_BIND,
        name: str = "zmq",
        *,
        hwm: int = DEFAULT_HWM,
        linger_ms: int = LINGER_MS,
        insecure: bool = False,
    ) -> None:
        self.name = name
        self.endpoints: tuple[str, ...] = ()
        self._bind = (bind,) if isinstance(bind, str) else tuple(bind)
        self._key = f"publishers.{name}.bind"
        if not self._bind:
            msg = f"{self._key}: no endpoint is named"
            raise ConfigError(msg)
        for endpoint in self._bind:
            check_endpoint(self._key, endpoint, insecure=insecure)
        self._hwm = hwm
        self._linger_ms = linger_ms
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._send: Callable[[bytes, int], Any] = self._refuse
        self._subscriptions = 0
        self._batches = 0

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are: one for each topic of each subscriber. Only to be read on the loop."""
        self._drain_subscriptions()
        return self._subscriptions

    async def open(self) -> None:
        """Bind all endpoints. Raises AddressInUse, or ConfigError for an address that cannot be bound."""
        if self._socket is not None:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        try:
            self._configure(self._socket)
            self.endpoints = tuple(self._bind_one(self._socket, endpoint) for endpoint in self._bind)
        except BaseException:
            self._linger_ms, lingering = 0, self._linger_ms
            await self.close()
            self._linger_ms = lingering
            raise
        # The wrapper around this method costs three times what the method itself does.
        self._send = functools.partial(zmq.backend.Socket.send, self._socket)

    async def close(self) -> None:
        """Unbind, giving subscribers ``linger_ms`` to fetch what was sent."""
        if self._socket is None or self._context is None:
            return
        sock, context = self._socket, self._context
        self._socket = self._context = None
        self._send = self._refuse
        self._subscriptions = 0
        self.endpoints = ()
        sock.close(linger=self._linger_ms)
        await finish(ThreadPoolExecutor(1, f"{self.name}-close"), context.term)  # lingering blocks

    async def publish(self, events: Sequence[Event]) -> None:
        """Send the batch; never waits."""
        self.publish_nowait(events)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Send the batch. Raises PublisherError if the publisher is not open."""
        send = self._send
        for event in events:
            document = event.document  # before the first frame is out: nothing may fail between the two
            send(event.type.encode(), _FIRST_FRAME)
            send(document, _LAST_FRAME)
        self._batches += 1
        if self._batches % DRAIN_EVERY == 0:
            self._drain_subscriptions()
        return len(events)

    def _configure(self, sock: zmq.Socket[bytes]) -> None:
        sock.set(zmq.SNDHWM, self._hwm)
        sock.set(zmq.XPUB_VERBOSER, 1)  # every subscription and its end, not only the first and last of a topic
        sock.set(zmq.IPV6, int(any("[" in endpoint for endpoint in self._bind)))

    def _bind_one(self, sock: zmq.Socket[bytes], endpoint: str) -> str:
        check_ipc_path(self._key, endpoint)
        try:
            sock.bind(endpoint)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise address_in_use(self._key, endpoint) from error
            msg = f"{self._key}: cannot bind {endpoint}: {error}"
            raise ConfigError(msg) from error
        bound = sock.get(zmq.LAST_ENDPOINT)
        return (bound if isinstance(bound, bytes) else bytes(bound)).rstrip(b"\0").decode()

    def _drain_subscriptions(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(zmq.Again):  # how ZeroMQ says that there are no more
            while True:
                # The first byte is 1 for a new subscription, 0 for the end of one.
                self._subscriptions += 1 if self._socket.recv(zmq.DONTWAIT)[:1] == b"\1" else -1

    def _refuse(self, _frame: bytes, _flags: int) -> None:
        msg = f"publisher {self.name} is not open"
        raise PublisherError(msg)
