"""Publishes events over ZeroMQ: two frames, the event's name as topic and its document.

The socket is a plain synchronous one that is only ever used without blocking: a subscriber too slow for its pipe loses messages
there and never holds up the control plane (design: "What PUB cannot tell"). Such a subscriber finds its holes by ``prev``, or by
the position that is told once a second, and asks the ROUTER beside it to repeat them (`discorder.publishers.zeromq_router`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import zmq
from msgspec import Meta

from discorder.clock import Clock, SystemClock
from discorder.errors import ConfigError, PublisherError
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import Desk
from discorder.publishers.workers import finish
from discorder.publishers.zeromq_binding import AUTO, OFF, Security, Sockets, open_sockets
from discorder.publishers.zeromq_gatekeeper import Gatekeeper
from discorder.publishers.zeromq_requests import POSITION, position_document
from discorder.publishers.zeromq_ring import Ring
from discorder.publishers.zeromq_router import Router
from discorder.wire import Event

DEFAULT_BIND = "tcp://127.0.0.1:6000"
DEFAULT_HWM = 10_000  # messages per subscriber; some 10 MB of usual events for one that stopped reading
LINGER_MS = 250  # what a subscriber may take to fetch the last messages at shutdown
RING_BYTES = 67_108_864
RING_SECONDS = 600.0
DRAIN_EVERY = 1_024  # batches between two looks at the subscription messages, which otherwise pile up
TELL_EVERY = 1.0  # seconds between two positions of a shard that moves
TELL_AGAIN_EVERY = 10  # times as long for one that does not: the last telling may have been lost
END_GRACE = 2.0  # seconds that ZeroMQ's own threads may take beyond ``linger_ms``

# Plain integers: combining zmq's flag enum for each frame costs more than sending the frame.
_FIRST_FRAME = int(zmq.SNDMORE) | int(zmq.DONTWAIT)
_LAST_FRAME = int(zmq.DONTWAIT)

# By the first byte of a message; what else a subscriber sends means nothing.
_SUBSCRIPTION_CHANGE = {b"\1": 1, b"\0": -1}

logger = logging.getLogger(__name__)


class ZmqOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a ``zmq`` publisher's table."""

    bind: Annotated[str | tuple[str, ...], Meta(description="an endpoint or a list of endpoints")] = DEFAULT_BIND
    hwm: Annotated[int, Meta(ge=1, description="messages per subscriber, at least 1")] = DEFAULT_HWM
    linger_ms: Annotated[int, Meta(ge=0, le=60_000, description="milliseconds, 0 to 60000")] = LINGER_MS
    insecure: Annotated[bool, Meta(description="true or false")] = False
    curve_secret_file: Annotated[str, Meta(description="the path of a file that discorder keygen wrote")] = ""
    curve_clients: Annotated[tuple[str, ...], Meta(description="a list of public keys, 40 characters each")] = ()
    replay: Annotated[str, Meta(description='an endpoint, "auto", or "" for none')] = AUTO
    ring_bytes: Annotated[int, Meta(ge=0, description="bytes, at least 0")] = RING_BYTES
    ring_seconds: Annotated[float, Meta(gt=0, description="seconds, more than 0")] = RING_SECONDS


class ZmqPublisher:
    """Binds ``bind`` (one endpoint or several; ``tcp://`` and ``ipc://``) and sends every event to whoever subscribed.

    A port of 0 or ``*`` lets the system choose; `endpoints` tells what was bound. ``hwm``: messages kept per subscriber.
    ``linger_ms``: how long `close` may wait for subscribers to fetch the last messages.

    ``replay``: where the ROUTER answers ("auto": the port after the first bind's, or its path + ``.replay``; "" = nowhere), out
    of a ring of at most ``ring_bytes`` and ``ring_seconds``.

    Binding an address that other hosts can reach raises ConfigError, unless with ``curve_secret_file`` and the public keys of
    ``curve_clients``, or ``insecure``: the bus is as confidential as the bot's messages.
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
        curve_secret_file: str = "",
        curve_clients: Sequence[str] = (),
        replay: str = AUTO,
        ring_bytes: int = RING_BYTES,
        ring_seconds: float = RING_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._bind = (bind,) if isinstance(bind, str) else tuple(bind)
        self._security = Security(f"publishers.{name}", insecure, curve_secret_file, tuple(curve_clients))
        if not self._bind:
            msg = f"publishers.{name}.bind: no endpoint is named"
            raise ConfigError(msg)
        for endpoint in self._bind:
            self._security.check(endpoint, "bind")
        if replay not in {AUTO, OFF}:
            self._security.check(replay, "replay")
        self._replay = replay
        self._hwm = hwm
        self._linger_ms = linger_ms
        self._clock = clock or SystemClock()
        self._ring = Ring(max_bytes=ring_bytes if replay != OFF else 0, max_seconds=ring_seconds)
        self._desk: Desk | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._gatekeeper: Gatekeeper | None = None
        self._sockets: Sockets | None = None
        self._router: Router | None = None
        self._telling: asyncio.Task[None] | None = None
        self._told: dict[tuple[int, int], tuple[str, int]] = {}
        self._send: Callable[[bytes, int], Any] = self._refuse
        self._subscriptions = 0
        self._batches = 0

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where events are published right now; empty while closed."""
        return () if self._sockets is None else self._sockets.endpoints

    @property
    def replay_endpoint(self) -> str:
        """Where the ROUTER answers right now, "" for nowhere."""
        return "" if self._sockets is None else self._sockets.replay_endpoint

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are: one for each topic of each subscriber. Only to be read on the loop."""
        self._drain_subscriptions()
        return self._subscriptions

    def answer_from(self, desk: Desk) -> None:
        """See `AnsweringPublisher`."""
        self._desk = desk

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """See `AnsweringPublisher`."""
        self._ring.begin(shard, session, seq)

    async def open(self) -> None:
        """Bind all endpoints. Raises AddressInUse, or ConfigError for an address that cannot be bound or a key file that cannot
        be used.
        """
        if self._sockets is not None:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        self._context = zmq.Context()
        try:
            self._gatekeeper = self._security.gatekeeper(self._context)
            if self._gatekeeper is not None:
                self._gatekeeper.start()
            self._sockets = open_sockets(self._context, self._bind, self._replay, self._hwm, self._security)
        except BaseException:
            await self._end_context()
            raise
        # The wrapper around this method costs three times what the method itself does.
        self._send = functools.partial(zmq.backend.Socket.send, self._sockets.bus)
        if self._sockets.router is not None:
            off = "commands need loopback, IPC or CURVE: this bus is insecure" if self._insecure else ""
            self._router = Router(self._sockets.router, self._ring, self._clock, desk=self._desk, commands_off=off)
            self._router.start()
        self._telling = asyncio.create_task(self._tell_positions(), name=f"positions of {self.name}")

    async def close(self) -> None:
        """Unbind, giving subscribers ``linger_ms`` to fetch what was sent."""
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        if self._telling is not None:
            self._telling.cancel()
        self._tell(again=False)
        self._send = self._refuse
        self._subscriptions = 0
        router, self._router = self._router, None
        try:
            if router is not None:
                await router.stop()
        finally:
            sockets.close(self._linger_ms)
            await self._end_context()

    async def publish(self, events: Sequence[Event]) -> None:
        """Send the batch; never waits."""
        self.publish_nowait(events)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Send the batch. Raises PublisherError if the publisher is not open."""
        send, keep = self._send, self._ring.append
        now = self._clock.monotonic()
        for event in events:
            document = event.document  # before the first frame is out: nothing may fail between the two
            topic = event.type.encode()
            send(topic, _FIRST_FRAME)
            send(document, _LAST_FRAME)
            keep(event, topic, document, now)
        self._batches += 1
        if self._batches % DRAIN_EVERY == 0:
            self._drain_subscriptions()
        return len(events)

    async def _tell_positions(self) -> None:
        turn = 0
        while True:
            await self._clock.sleep(TELL_EVERY)
            turn += 1
            self._drain_subscriptions()  # on a quiet bus nobody else does
            self._tell(again=turn % TELL_AGAIN_EVERY == 0)

    def _tell(self, *, again: bool) -> None:
        """Publish how far each shard has come, if it has moved or ``again``: so that a subscriber finds out that it lost the last
        event of its type, and that a quiet one knows that it has everything.
        """
        self._ring.trim(self._clock.monotonic())
        for position in self._ring.positions():
            place = (position.session, position.last)
            if again or self._told.get(position.shard) != place:
                self._told[position.shard] = place
                self._send(POSITION.encode(), _FIRST_FRAME)
                self._send(position_document(position, self._clock.now()), _LAST_FRAME)

    @property
    def _insecure(self) -> bool:
        return self._security.insecure and not self._security.curve

    async def _end_context(self) -> None:
        """Lingering blocks, so it is a thread's affair."""
        context, self._context = self._context, None
        gatekeeper, self._gatekeeper = self._gatekeeper, None
        if context is None:
            return

        def end() -> None:
            if gatekeeper is not None:
                gatekeeper.stop()
            # `term` has no time limit, and a process does not end before its threads: hence a daemon, and a limit here.
            ending = threading.Thread(target=context.term, name=f"{self.name}-term", daemon=True)
            ending.start()
            ending.join(self._linger_ms / 1000 + END_GRACE)
            if ending.is_alive():
                logger.error(
                    "Publisher %s: ZeroMQ did not end; its thread is left behind, its sockets are closed", self.name
                )

        await finish(ThreadPoolExecutor(1, f"{self.name}-close"), end)

    def _drain_subscriptions(self) -> None:
        if self._sockets is None:
            return
        with contextlib.suppress(zmq.Again):  # how ZeroMQ says that there are no more
            while True:
                self._subscriptions += _SUBSCRIPTION_CHANGE.get(self._sockets.bus.recv(zmq.DONTWAIT)[:1], 0)

    def _refuse(self, _frame: bytes, _flags: int) -> None:
        msg = f"publisher {self.name} is not open"
        raise PublisherError(msg)
