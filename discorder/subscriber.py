"""A bot's end of the bus: typed events from a ZeroMQ endpoint, as an asynchronous iterator.

Imports only ``wire`` and ZeroMQ: a bot needs nothing else of the control plane.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import zmq

from discorder.wire import ReceivedEvent, decode_document

DEFAULT_ADDRESS = "tcp://127.0.0.1:6000"
RECEIVE_HWM = 10_000  # messages that wait in this process while the bot is busy
READ_AT_ONCE = 256  # messages between two turns of the loop

_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:/\[\]\s*]+):(\d{1,5})")
_DONTWAIT = int(zmq.DONTWAIT)


def subscribe(address: str = DEFAULT_ADDRESS, types: str | Iterable[str] | None = None) -> Subscription:
    """Subscribe to the events named in ``types`` (None: all) on the bus at ``address``.

    ::

        async with discorder.subscribe(types=["MESSAGE_CREATE"]) as events:
            async for event in events:
                print(event.json()["content"])

    Nobody needs to listen at ``address`` yet: the connection is made, and made again, in the background. Raises ValueError for an
    address that is no endpoint and for an empty ``types``.
    """
    return Subscription(address, types)


class Subscription:
    """Live events, in order. Iterate on one loop, one task at a time; `aclose` ends the iteration."""

    def __init__(self, address: str, types: str | Iterable[str] | None) -> None:
        _check_address(address)
        self.address = address
        self.types = _checked_types(types)
        self._arrived: deque[ReceivedEvent] = deque()
        self._reader: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        try:
            self._connect()
        except BaseException:
            self._give_back()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedEvent:
        """The next event. Raises ValueError for a message that is none: then something else publishes at the address."""
        while not self._arrived:
            if self._socket.closed:
                raise StopAsyncIteration
            if self._read_what_is_there():
                await asyncio.sleep(0)  # a flood must not keep the bot's other tasks from running
            else:
                await self._wait_for_more()
        return self._arrived.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Unsubscribe and give the socket back; an iteration that waits ends. Idempotent."""
        self._arrived.clear()
        self._give_back()
        self._wake()

    def __del__(self) -> None:
        # A bot that just breaks out of its loop leaves nothing behind.
        if hasattr(self, "_socket"):
            self._give_back()

    def _connect(self) -> None:
        self._socket.set(zmq.RCVHWM, RECEIVE_HWM)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.IPV6, int("[" in self.address))
        for topic in self.types if self.types is not None else ("",):
            self._socket.subscribe(topic)
        try:
            self._socket.connect(self.address)
        except zmq.ZMQError as error:
            msg = f"cannot connect to {self.address}: {error}"
            raise ValueError(msg) from error

    def _read_what_is_there(self) -> bool:
        """Move up to `READ_AT_ONCE` messages out of the socket; False once it is empty."""
        for _ in range(READ_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return bool(self._arrived)
            if (event := self._event(frames)) is not None:
                self._arrived.append(event)
        return True

    def _event(self, frames: list[bytes]) -> ReceivedEvent | None:
        """The event in ``frames``; None for one whose name merely begins like a name asked for (topics match by prefix)."""
        try:
            topic, document = frames
            name = topic.decode()
            return decode_document(document) if self.types is None or name in self.types else None
        except ValueError as error:
            msg = f"{self.address} carries something else than Discorder's events: {error}"
            raise ValueError(msg) from error

    async def _wait_for_more(self) -> None:
        """Wait for the socket's file descriptor, which tells of news only once: so only after a read found nothing."""
        loop = asyncio.get_running_loop()
        if self._reader is None:
            self._reader = (loop, int(self._socket.get(zmq.FD)))
            reference: weakref.ref[Subscription] = weakref.ref(self)
            loop.add_reader(self._reader[1], _wake_subscription, reference)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is None:
            self._stop_reading()  # the bot is busy: it will look for itself
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader[0].is_closed():
            reader[0].remove_reader(reader[1])

    def _give_back(self) -> None:
        self._stop_reading()
        self._socket.close(linger=0)
        self._context.term()


def _wake_subscription(reference: weakref.ref[Subscription]) -> None:
    """Called by the loop, which must not keep a subscription alive that the bot has dropped."""
    if (subscription := reference()) is not None:
        subscription._wake()  # noqa: SLF001  # the same class, only outside of it for the weak reference


def _check_address(address: str) -> None:
    match = _TCP.fullmatch(address)
    if (match is None or not 0 < int(match[2]) <= 65_535) and not re.fullmatch(r"ipc://.+", address):
        msg = f"{address!r} is not an endpoint; allowed: tcp://HOST:PORT and ipc://PATH, such as {DEFAULT_ADDRESS!r}"
        raise ValueError(msg)


def _checked_types(types: str | Iterable[str] | None) -> frozenset[str] | None:
    if types is None:
        return None
    names = frozenset([types] if isinstance(types, str) else types)
    if not names or "" in names:
        msg = "types names no event; leave it out to get all of them"
        raise ValueError(msg)
    return names
