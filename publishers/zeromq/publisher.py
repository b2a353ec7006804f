"""Publish events over ZeroMQ: two frames, the event's name as topic and its document.

The socket is synchronous and used only without blocking: a subscriber that reads too slowly loses messages and never delays the
control plane. It detects gaps by ``prev``, or by the position that is published once a second, and requests a replay from the
ROUTER (`discorder.publishers.zeromq.router`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Annotated, Literal

import zmq
from msgspec import Meta

from discorder.clock import Clock, SystemClock
from discorder.errors import ConfigError, PublisherError
from discorder.paths import DEFAULT_ADDRESS, resolve_endpoint
from discorder.publishers.delivery.keep_running import keep_running
from discorder.publishers.executor import finish
from discorder.publishers.options import MAX_COUNT, DeliveryOptions, PositiveSeconds
from discorder.publishers.protocol import BusApi, History
from discorder.publishers.zeromq.audience import Audience
from discorder.publishers.zeromq.auth import KeyAuthenticator
from discorder.publishers.zeromq.endpoints import IpcAccess, has_any_port
from discorder.publishers.zeromq.protocol import POSITION, position_document
from discorder.publishers.zeromq.ring import Ring
from discorder.publishers.zeromq.router import Router
from discorder.publishers.zeromq.shard_log import NAMELESS
from discorder.publishers.zeromq.sockets import AUTO, OFF, Security, Sockets, open_sockets
from discorder.publishers.zeromq.state import BusState
from discorder.publishers.zeromq.subscriptions import SubscriptionLimit
from discorder.wire import Event, replay_address

MAX_HWM = 2**31 - 1  # ZeroMQ holds it in a C int
DEFAULT_HWM = 10_000  # messages per subscriber; some 10 MB of usual events for one that stopped reading
LINGER_MS = 250  # time in which a subscriber may fetch the last messages at shutdown
RING_BYTES = 67_108_864
RING_SECONDS = 600.0
RingSource = Literal["memory", "journal"]
POSITION_EVERY = 1.0  # seconds between two positions of a shard that moves
POSITION_AGAIN_EVERY = 10  # times as long for one that does not: the last position may have been lost
END_GRACE = 2.0  # seconds that the threads of ZeroMQ may take beyond ``linger_ms``

# Plain integers: combining zmq's flag enum for each frame costs more than sending the frame.
_FIRST_FRAME = int(zmq.SNDMORE) | int(zmq.DONTWAIT)
_LAST_FRAME = int(zmq.DONTWAIT)
_send = zmq.backend.Socket.send  # the wrapper around this method costs three times what the method itself does

logger = logging.getLogger(__name__)


class ZmqOptions(DeliveryOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys of a ``zmq`` publisher's table."""

    bind: Annotated[str | tuple[str, ...], Meta(description="an endpoint or a list of endpoints")] = DEFAULT_ADDRESS
    hwm: Annotated[int, Meta(ge=1, le=MAX_HWM, description="messages per subscriber, 1 to 2**31 - 1")] = DEFAULT_HWM
    linger_ms: Annotated[int, Meta(ge=0, le=60_000, description="milliseconds, 0 to 60000")] = LINGER_MS
    insecure: Annotated[bool, Meta(description="true or false")] = False
    mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$", description='a mode such as "0660"')] = "0600"
    group: Annotated[str, Meta(description="the name of a group")] = ""
    curve_secret_file: Annotated[str, Meta(description="the path of a file that discorder keygen wrote")] = ""
    curve_clients: Annotated[tuple[str, ...], Meta(description="a list of public keys, 40 characters each")] = ()
    replay: Annotated[str, Meta(description='an endpoint, "auto", or "" for none')] = AUTO
    ring_bytes: Annotated[int, Meta(ge=0, le=MAX_COUNT, description="bytes, 0 to 2**50")] = RING_BYTES
    ring_seconds: PositiveSeconds = RING_SECONDS
    ring: Annotated[RingSource, Meta(description='"memory" or "journal"')] = "memory"


class ZmqPublisher:
    """Bind ``bind`` (one endpoint or several; ``tcp://`` and ``ipc://``) and send every event to the subscribers.

    A port of 0 or ``*`` lets the system choose; `endpoints` returns what was bound. ``hwm``: messages kept per subscriber.
    ``linger_ms``: how long `close` may wait for subscribers to fetch the last messages.

    ``replay``: where the ROUTER answers ("auto": the port after the first bind's, or its path + ``.replay``; "" = nowhere),
    from a ring of at most ``ring_bytes`` and ``ring_seconds``. With ``ring`` "journal" a session of an earlier process continues
    with its newest events in the ring, which `refill_from` must have been given.

    Binding an address that other hosts can reach raises ConfigError, unless with ``curve_secret_file`` and the public keys of
    ``curve_clients``, or ``insecure``: the bus is as confidential as the bot's messages. ``mode`` and ``group``: of ``ipc://``
    sockets.
    """

    Options = ZmqOptions
    durable = False
    all_records = True

    def __init__(
        self,
        bind: str | Sequence[str] = DEFAULT_ADDRESS,
        name: str = "zmq",
        *,
        hwm: int = DEFAULT_HWM,
        linger_ms: int = LINGER_MS,
        insecure: bool = False,
        mode: str = "0600",
        group: str = "",
        curve_secret_file: str = "",
        curve_clients: Sequence[str] = (),
        replay: str = AUTO,
        ring_bytes: int = RING_BYTES,
        ring_seconds: float = RING_SECONDS,
        ring: RingSource = "memory",
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.most_in_line = max(1, hwm // 2)  # of more, ZeroMQ may drop the rest without notice
        key = f"publishers.{name}"
        try:
            self._bind = tuple(map(resolve_endpoint, (bind,) if isinstance(bind, str) else bind))
            replay = resolve_endpoint(replay)
        except ValueError as error:
            msg = f"{key}: {error}"
            raise ConfigError(msg) from error
        access = IpcAccess(key, mode, group)
        self._security = Security(key, insecure, curve_secret_file, tuple(curve_clients), access)
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
        self._refills = ring == "journal"
        self._history: History | None = None
        self._bus_api: BusApi | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._authenticator: KeyAuthenticator | None = None
        self._sockets: Sockets | None = None
        self._router: Router | None = None
        self._positions_task: asyncio.Task[None] | None = None
        self._unsent: list[tuple[str, bytes]] = []  # topic and document of the events of this turn of the loop
        self._limit: SubscriptionLimit | None = None
        self._audience: Audience | None = None

    @property
    def addresses(self) -> tuple[tuple[str, str], ...]:
        """Return what `open` binds, as pairs of the key that decides it ("bind", "replay") and the address.

        Without an address whose port the system chooses.
        """
        wanted = [("bind", address) for address in self._bind]
        if self._replay == AUTO and not has_any_port(self._bind[0]):
            wanted.append(("replay", replay_address(self._bind[0])))
        elif self._replay not in {AUTO, OFF}:
            wanted.append(("replay", self._replay))
        return tuple(pair for pair in wanted if not has_any_port(pair[1]))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return where events are published; empty while closed."""
        return () if self._sockets is None else self._sockets.endpoints

    @property
    def replay_endpoint(self) -> str:
        """Return where the ROUTER answers, "" for nowhere."""
        return "" if self._sockets is None else self._sockets.replay_endpoint

    @property
    def subscriptions(self) -> int:
        """Return how many different topics were subscribed to since `open`. Read it only on the loop."""
        return 0 if self._limit is None else self._limit.topics

    @property
    def state(self) -> BusState:
        """Return the bus as it is now. Read it only on the loop."""
        router, authenticator = self._router, self._authenticator
        return BusState(
            binds=self.endpoints,
            router_bind=self.replay_endpoint,
            clients=() if self._audience is None else self._audience.clients,
            topics={} if self._audience is None else self._audience.topics,
            ring_bytes=self._ring.held_bytes,
            ring_bytes_limit=self._ring.max_bytes,
            ring_span=self._ring.span(self._clock.monotonic()),
            ring_span_limit=self._ring.max_seconds,
            replays_running=0 if router is None else router.replays_running,
            replays=0 if router is None else router.replays,
            requests=0 if router is None else router.requests,
            commands=0 if router is None else router.commands,
            refused_keys=0 if authenticator is None else authenticator.refused,
        )

    def answer_from(self, bus_api: BusApi) -> None:
        """See `AnsweringPublisher`."""
        self._bus_api = bus_api

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """See `AnsweringPublisher`."""
        if self._history is not None:
            monotonic, now = self._clock.monotonic(), self._clock.now()
            oldest = now - timedelta(seconds=self._ring.max_seconds)
            for event in self._history(shard, session, seq, self._ring.max_bytes // shard[1]):
                if event.received_at >= oldest:
                    age = (now - event.received_at).total_seconds()
                    self._ring.append([event], [event.document], monotonic - max(0.0, age))
        self._ring.begin(shard, session, seq)

    def refill_from(self, history: History) -> None:
        """See `RefillingPublisher`."""
        self._history = history if self._refills else None

    async def open(self) -> None:
        """Bind all endpoints. Raises AddressInUse, or ConfigError for an invalid address or key file."""
        if self._sockets is not None:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        self._context = zmq.Context()
        try:
            self._authenticator = self._security.authenticator(self._context)
            if self._authenticator is not None:
                self._authenticator.start()
            self._sockets = open_sockets(self._context, self._bind, self._replay, self._hwm, self._security)
        except BaseException:
            await self._end_context()
            raise
        if self._sockets.router is not None:
            off = "commands need loopback, IPC or CURVE: this bus is insecure" if self._insecure else ""
            self._router = Router(
                self._sockets.router, self._ring, self._clock, bus_api=self._bus_api, commands_off=off
            )
            self._router.start()
        self._audience = Audience(self._context, self._sockets.bus, self._clock)
        self._limit = SubscriptionLimit(
            self._sockets.bus, self._sockets.endpoints, self.name, self._clock, read=self._audience.read
        )
        self._limit.start()
        self._positions_task = asyncio.create_task(
            keep_running(f"positions of {self.name}", self._publish_positions, self._clock),
            name=f"positions of {self.name}",
        )

    async def close(self) -> None:
        """Unbind, giving subscribers ``linger_ms`` to fetch what was sent."""
        sockets = self._sockets
        if sockets is None:
            return
        if self._positions_task is not None:
            self._positions_task.cancel()
        self._publish_moved(again=False)
        self._sockets = None
        if self._limit is not None:
            self._limit.stop()
            self._limit = None
        if self._audience is not None:
            self._audience.close()
            self._audience = None
        router, self._router = self._router, None
        try:
            if router is not None:
                await router.stop()
        finally:
            sockets.close(self._linger_ms)
            await self._end_context()

    async def publish(self, events: Sequence[Event]) -> None:
        """Send the batch in parts for which a subscriber's queue has room, with a turn of the loop between two parts."""
        for begin in range(0, len(events), self.most_in_line):
            if begin:
                await self._clock.sleep(0)
            if self._sockets is not None:
                # updates the free room of the queues; sending does so only once in 1 ms
                self._sockets.bus.get(zmq.EVENTS)
            self.publish_nowait(events[begin : begin + self.most_in_line])
            self._send_all()

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Send the batch at the end of this turn of the loop. Raises PublisherError if the publisher is not open.

        The batches of all shards are sent together, because waking ZeroMQ's thread for each one costs more than sending it.
        """
        if self._sockets is None:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        documents = [event.document for event in events]
        self._ring.append(events, documents, self._clock.monotonic())
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send_all)
        self._unsent.extend(zip([event.type for event in events], documents, strict=True))
        if len(self._unsent) >= self.most_in_line:
            self._send_all()
        return len(events)

    def _send_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._sockets is None:
            return
        bus = self._sockets.bus
        for topic, document in unsent:
            _send(bus, topic.encode() or NAMELESS, _FIRST_FRAME)
            _send(bus, document, _LAST_FRAME)

    async def _publish_positions(self) -> None:
        turn = 0
        while True:
            await self._clock.sleep(POSITION_EVERY)
            turn += 1
            self._publish_moved(again=turn % POSITION_AGAIN_EVERY == 0)
            if self._limit is not None:  # subscriptions that came while events were sent have not woken the limit
                self._limit.enforce()

    def _publish_moved(self, *, again: bool) -> None:
        """Publish the position of each shard that has moved, or with ``again`` of all.

        From it a subscriber sees whether it has lost the last event of a type.
        """
        self._ring.trim(self._clock.monotonic())
        now = self._clock.now()
        positions = [position_document(position, now) for position in self._ring.moved(again=again)]
        self._unsent.extend((POSITION, document) for document in positions)
        self._send_all()

    @property
    def _insecure(self) -> bool:
        return self._security.insecure and not self._security.curve

    async def _end_context(self) -> None:
        """End the context in a thread: lingering blocks."""
        context, self._context = self._context, None
        authenticator, self._authenticator = self._authenticator, None
        if context is None:
            return

        def end() -> None:
            if authenticator is not None:
                authenticator.stop()
            # `term` has no time limit, and a process does not end before its threads: hence a daemon, and a limit here.
            ending = threading.Thread(target=context.term, name=f"{self.name}-term", daemon=True)
            ending.start()
            ending.join(self._linger_ms / 1000 + END_GRACE)
            if ending.is_alive():
                logger.error(
                    "Publisher %s: ZeroMQ did not end; its thread is left behind, its sockets are closed", self.name
                )

        await finish(ThreadPoolExecutor(1, f"{self.name}-close"), end)
