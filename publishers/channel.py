"""Publishes events into the process itself: a bounded channel, read on a loop or from a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Self

from discorder.errors import PublisherError
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.publishers.queue import BoundedQueue
from discorder.wire import Event

DEFAULT_MAXSIZE = 10_000
DEFAULT_MAX_BYTES = 67_108_864

_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]


class ChannelEventPublisher:
    """A bounded channel of events for readers in the same process.

    Read it with ``await channel.get()`` or ``async for event in channel`` on any loop, or with ``channel.get_blocking(timeout)``
    from a thread (`serve_in_background`). Each event goes to one reader.

    ``maxsize`` (events) and ``max_bytes`` (of ``data``) bound it. When it is full, ``overflow`` decides: ``drop_oldest``
    (default) or ``drop_newest``; `dropped` counts what was thrown away, and in its place the reader gets a record of type
    ``DISCORDER_GAP`` (its ``seq`` is None).

    **Back-pressure can hold up your control plane** when the publisher is added with ``overflow="block"``: a reader that stops
    reading fills the channel, then the queue before it. Heartbeats go on, but after ``block_timeout`` the connection is closed
    and resumed later, for all publishers, and what Discord no longer keeps by then is lost. With the two dropping policies a full
    channel holds up nothing.
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
        self._waiters: list[_Waiter] = []
        self._open = False
        self._ended = False
        self._dropped = 0

    @classmethod
    def from_options(cls, name: str, options: DeliveryOptions) -> Self:
        """Bounds and policy are those of the table: the channel is itself the queue."""
        policy = Overflow.DROP_OLDEST if options.policy is Overflow.BLOCK else options.policy
        return cls(options.max_events, name, overflow=policy, max_bytes=options.max_bytes)

    @property
    def dropped(self) -> int:
        """How many accepted events were thrown away since the channel was made."""
        return self._dropped

    @property
    def gaps(self) -> int:
        """How many runs of events were thrown away."""
        return self._queue.gaps

    def __len__(self) -> int:
        return len(self._queue)

    # What the control plane calls

    async def open(self) -> None:
        """Let events in. What an earlier life left unread is still there."""
        with self._changed:
            self._open = True
            self._ended = False

    async def close(self) -> None:
        """Let no more events in; readers get what is left and are then told that it is over."""
        with self._changed:
            self._ended = self._ended or self._open
            self._open = False
            self._notify()

    async def publish(self, events: Sequence[Event]) -> None:
        """Put the batch in, waiting for room as long as it takes. Nothing is dropped."""
        for event in events:
            while (room := self._append(event)) is not None:
                await room

    def publish_nowait(self, events: Sequence[Event]) -> int:
        """Put in what the policy lets in. All of ``events`` are accepted; `dropped` counts what found no room."""
        with self._changed:
            self._refuse_unless_open()
            self._dropped += self._queue.extend(events)
            self._notify()
            return len(events)

    # What readers call

    async def get(self) -> Event:
        """The next event, waiting for it. Raises PublisherError once the channel is closed and empty."""
        while True:
            with self._changed:
                if (event := self._pop()) is not None:
                    return event
                arrival = self._wait_on_loop()
            await arrival

    def get_blocking(self, timeout: float | None = None) -> Event:
        """The next event, for a thread that runs no loop.

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

    # All below is called with the lock held

    def _pop(self) -> Event | None:
        taken = self._queue.take(1, 1)
        if taken:
            self._notify()  # a publisher may wait for room
            return taken[0]
        if self._ended:
            msg = f"channel {self.name} is closed"
            raise PublisherError(msg)
        return None

    def _append(self, event: Event) -> asyncio.Future[None] | None:
        """Put ``event`` in and return None, or return what to wait for."""
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
        self._waiters.append((loop, future))
        return future

    def _notify(self) -> None:
        """Wake everybody who waits for an event or for room: each looks again for itself."""
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
