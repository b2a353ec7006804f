"""Publish events within the process: a bounded channel, read on a loop or from a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Self

from discorder.errors import PublisherError
from discorder.publishers.delivery.bounded_queue import BoundedQueue
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.wire import Event

DEFAULT_MAXSIZE = 10_000
DEFAULT_MAX_BYTES = 67_108_864


class ChannelEventPublisher:
    """Publish events to readers in the same process through a bounded channel.

    Read it with ``await channel.get()`` or ``async for event in channel`` on any loop, or with ``channel.get_blocking(timeout)``
    from a thread (`serve_in_background`). Each event goes to one reader.

    ``maxsize`` (events) and ``max_bytes`` (of ``data``) bound it. When it is full, ``overflow`` decides: ``drop_oldest``
    (default) or ``drop_newest``; `dropped` counts the dropped events, and in their place the reader gets a record of type
    ``DISCORDER_GAP`` (its ``seq`` is None).

    **Back-pressure can hold up your control plane** when the publisher is added with ``overflow="block"``: a reader that stops
    reading fills the channel, then the queue before it. Heartbeats continue, but after ``block_timeout`` the connection is closed
    and resumed later, for all publishers, and events that Discord no longer keeps by then are lost. With the two dropping
    policies a full channel blocks nothing.
    """

    Options = DeliveryOptions
    durable = False

    def __init__(
        self,
        maxsize: int = DEFAULT_MAXSIZE,
        name: str = "channel",
        *,
        overflow: Overflow | str = Overflow.DROP_OLDEST,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        policy = Overflow(overflow)
        if policy is Overflow.BLOCK:
            msg = 'a channel itself does not block; add it to the tracker with overflow="block"'
            raise ValueError(msg)
        if maxsize < 1 or max_bytes < 1:
            msg = f"a channel needs room for at least one event, not maxsize={maxsize}, max_bytes={max_bytes}"
            raise ValueError(msg)
        self.name = name
        self.maxsize = maxsize
        self._queue = BoundedQueue(name, policy, max_events=maxsize, max_bytes=max_bytes)
        self._changed = threading.Condition()
        self._waiters: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._open = False
        self._ended = False
        self._dropped = 0

    @classmethod
    def from_options(cls, name: str, options: DeliveryOptions) -> Self:
        """Create a channel with the bounds and the policy of the table, because the channel itself is the queue."""
        policy = Overflow.DROP_OLDEST if options.policy is Overflow.BLOCK else options.policy
        return cls(options.max_events, name, overflow=policy, max_bytes=options.max_bytes)

    @property
    def dropped(self) -> int:
        """Return the number of accepted events that were dropped since the channel was made."""
        return self._dropped

    @property
    def gaps(self) -> int:
        """Return the number of runs of events that were dropped."""
        return self._queue.gaps

    def __len__(self) -> int:
        return len(self._queue)

    # Called by the control plane

    async def open(self) -> None:
        """Accept events. Events that were not read before the last `close` are kept."""
        with self._changed:
            self._open = True
            self._ended = False

    async def close(self) -> None:
        """Accept no more events. Readers get the remaining ones, then PublisherError."""
        with self._changed:
            self._ended = self._ended or self._open
            self._open = False
            self._notify()

    async def publish(self, events: Sequence[Event]) -> None:
        """Add the batch, waiting for room without a limit. No event is dropped."""
        for event in events:
            while (room := self._append(event)) is not None:
                await self._notified(room)

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Add the events that the policy allows. All of ``events`` are accepted; `dropped` counts those without room."""
        with self._changed:
            self._refuse_unless_open()
            self._dropped += self._queue.extend(events)
            self._notify()
            return len(events)

    # Called by readers

    async def get(self) -> Event:
        """Wait for the next event and return it. Raises PublisherError once the channel is closed and empty."""
        while True:
            with self._changed:
                if (event := self._pop()) is not None:
                    return event
                arrival = self._wait_on_loop()
            await self._notified(arrival)

    def get_blocking(self, timeout: float | None = None) -> Event:
        """Return the next event, in a thread that runs no loop.

        Raises TimeoutError after ``timeout`` seconds (None: never), PublisherError once the channel is closed and empty.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while (event := self._pop()) is None:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    msg = f"no event came within {timeout} s"
                    raise TimeoutError(msg)
                self._changed.wait(remaining)
            return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self.get()
        except PublisherError:
            raise StopAsyncIteration from None

    async def _notified(self, future: asyncio.Future[None]) -> None:
        """Wait for ``future``. Remove it on cancellation, so that a caller that polls does not leave a future at each try."""
        try:
            await future
        finally:
            with self._changed:
                self._waiters.pop(future, None)

    # All methods below are called with the lock held

    def _pop(self) -> Event | None:
        taken = self._queue.take(1, 1)
        if taken:
            self._notify()  # a publisher may be waiting for room
            return taken[0]
        if self._ended:
            msg = f"channel {self.name} is closed"
            raise PublisherError(msg)
        return None

    def _append(self, event: Event) -> asyncio.Future[None] | None:
        """Add ``event`` and return None, or return a future to wait for."""
        with self._changed:
            self._refuse_unless_open()
            if not self._queue.fits(event):
                return self._wait_on_loop()
            self._queue.append(event)
            self._notify()
            return None

    def _refuse_unless_open(self) -> None:
        if not self._open:
            msg = f"channel {self.name} is not open"
            raise PublisherError(msg)

    def _wait_on_loop(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters[future] = loop
        return future

    def _notify(self) -> None:
        """Wake every caller that waits for an event or for room. Each checks again."""
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, {}
        for future, loop in waiters.items():
            with contextlib.suppress(RuntimeError):  # the loop of the caller is closed, and it no longer waits
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
