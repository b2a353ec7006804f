"""Inject faults into connections on the client's side, for staging: `discorder serve --fault`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

from discorder.clock import Clock, Timer
from discorder.errors import Closed, ConnectFailed, GatewayFailure
from discorder.transport.fault_grammar import Fault, FaultKind
from discorder.transport.protocol import MAX_BATCH, Deliver, Transport
from discorder.wire import Op, decode_envelope

logger = logging.getLogger(__name__)


class FaultInjector:
    """Inject ``faults`` into the connections that `wrap` makes. A context manager: the time of the faults begins with it."""

    def __init__(self, faults: Sequence[Fault], clock: Clock) -> None:
        self._faults = faults
        self._clock = clock
        self._timers: dict[int, Timer] = {}  # by the index of the fault
        self._open: set[FaultyTransport] = set()
        self.dial_delay = 0.0  # seconds

    def __enter__(self) -> Self:
        shown = ", ".join(map(str, self._faults))
        logger.warning("Faults are injected: never in production", extra={"faults": shown})
        for index, fault in enumerate(self._faults):
            self._schedule(index, fault.at)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def wrap(self, transport: Transport, shard: tuple[int, int]) -> FaultyTransport:
        """Return ``transport`` with the faults; ``shard`` is not distinguished."""
        del shard
        return FaultyTransport(transport, self, self._clock)

    def opened(self, transport: FaultyTransport) -> None:
        """Begin to inject faults into ``transport``."""
        self._open.add(transport)

    def ended(self, transport: FaultyTransport) -> None:
        """Inject no further faults into ``transport``. Idempotent."""
        self._open.discard(transport)

    def _schedule(self, index: int, seconds: float) -> None:
        self._timers[index] = self._clock.call_later(seconds, partial(self._inject, index))

    def _inject(self, index: int) -> None:
        fault = self._faults[index]
        if fault.every:
            self._schedule(index, fault.every)
        logger.warning("Injected a fault", extra={"fault": fault.text, "connections": len(self._open)})
        if fault.kind is FaultKind.SLOW_DIAL:
            self.dial_delay = fault.seconds
        for transport in list(self._open):
            transport.inject(fault)


class FaultyTransport:
    """A connection with faults, around the transport ``inner``."""

    def __init__(self, inner: Transport, injector: FaultInjector, clock: Clock) -> None:
        self._inner = inner
        self._injector = injector
        self._clock = clock
        self._deliver: Deliver | None = None
        self._end: Closed | None = None  # by a fault
        self._held: list[bytes] = []  # messages that came during a stall
        self._flowing = asyncio.Event()  # cleared during a stall
        self._flowing.set()
        self._stall: Timer | None = None
        self._withholds_acks = False
        self._given_up = False  # by the caller, with `close` or `abort`

    @property
    def closed(self) -> bool:
        return self._inner.closed

    async def connect(self, url: str, deliver: Deliver) -> None:
        if self._injector.dial_delay:
            await self._clock.sleep(self._injector.dial_delay)
        if self._given_up:
            msg = "the transport was closed while a fault delayed its dial"
            raise ConnectFailed(msg)
        self._deliver = deliver
        await self._inner.connect(url, self._take)
        self._injector.opened(self)

    async def wait_closed(self) -> None:
        try:
            await self._inner.wait_closed()
        except GatewayFailure:
            if not self._given_up and self._end is None:
                await self._flowing.wait()  # the end is behind the messages that are not read yet
            self._injector.ended(self)
            if self._end is not None:
                raise self._end from None
            raise

    async def send(self, data: bytes) -> None:
        if self._end is not None:
            raise self._end
        await self._inner.send(data)

    async def close(self, code: int) -> None:
        self._stop()
        await self._inner.close(code)

    def abort(self) -> None:
        self._stop()
        self._inner.abort()

    def inject(self, fault: Fault) -> None:
        """Let ``fault`` happen to this connection, unless it has ended."""
        if self._inner.closed:
            self._injector.ended(self)
            return
        match fault.kind:
            case FaultKind.DROP:
                self._break(Closed(None, "network", f"the injected fault {fault}"))
            case FaultKind.CLOSE:
                self._break(Closed(fault.code, "peer", f"the injected fault {fault}"))
            case FaultKind.STALL:
                self._hold(fault.seconds)
            case FaultKind.ZOMBIE:
                self._withholds_acks = True
            case FaultKind.SLOW_DIAL:  # concerns later dials only
                return

    def _break(self, end: Closed) -> None:
        self._end = end
        self._stop()
        self._inner.abort()

    def _hold(self, seconds: float) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._flowing.clear()
        self._stall = self._clock.call_later(seconds, self._release)

    def _release(self) -> None:
        held, self._held = self._held, []
        for begin in range(0, len(held), MAX_BATCH):
            if not self._given_up and self._end is None and self._deliver is not None:
                self._deliver(held[begin : begin + MAX_BATCH])
        self._flowing.set()

    def _take(self, batch: list[bytes]) -> None:
        if self._withholds_acks:
            batch = [message for message in batch if not _is_ack(message)]
        if not self._flowing.is_set():
            self._held += batch
        elif batch and self._deliver is not None:
            self._deliver(batch)

    def _stop(self) -> None:
        """Deliver nothing more."""
        self._given_up = True
        self._held.clear()
        if self._stall is not None:
            self._stall.cancel()
        self._flowing.set()
        self._injector.ended(self)


def _is_ack(message: bytes) -> bool:
    try:
        return decode_envelope(message).op == Op.HEARTBEAT_ACK
    except ValueError:
        return False
