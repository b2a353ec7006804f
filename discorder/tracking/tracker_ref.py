"""`TrackerRef`: give the caller of `serve` access to the tracker."""

from __future__ import annotations

import asyncio
import threading

from discorder.errors import NotStarted
from discorder.runtime.loops import on_loop
from discorder.tracking.tracker import GatewayTracker


class TrackerRef:
    """A reference that `serve` fills with its tracker once configuration, log and publishers are open, before the first dial.

    Use one per run of `serve`; a ref that is used again holds the newer tracker.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._tracker: GatewayTracker | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"TrackerRef({self._tracker!r})" if self._tracker is not None else "TrackerRef(<unset>)"

    @property
    def value(self) -> GatewayTracker:
        """The tracker. Raises `NotStarted` before there is one."""
        if self._tracker is None:
            why = f"serve() ended before it had one: {self._error}" if self._ended else "serve() has not made one yet"
            msg = f"there is no tracker: {why}; await ref.ready() to wait for it"
            raise NotStarted(msg)
        return self._tracker

    async def ready(self, timeout: float | None = None) -> GatewayTracker:
        """Wait for READY or RESUMED of every shard that is not paused, and return the tracker. Usable on any event loop.

        ``timeout`` in seconds. Raises TimeoutError after it, `NotStarted` if `serve` ends before.
        """
        async with asyncio.timeout(timeout):
            await self._filled()
            tracker = self.value
            if tracker.plane.loop.is_closed():
                msg = "the control plane ended before it was ready"
                raise NotStarted(msg)
            await on_loop(tracker.plane.loop, tracker.plane.wait_ready())
            return tracker

    def wait(self) -> GatewayTracker:
        """Block this thread until there is a tracker. If `serve` ends before, raise its error."""
        self._settled.wait()
        if self._tracker is None and self._error is not None:
            raise self._error
        return self.value

    async def _filled(self) -> None:
        with self._lock:
            if self._tracker is not None or self._ended:
                return
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            self._waiters.append((loop, waiter))
        await waiter

    # ---------------------------------------------------------------- called by serve

    def fill(self, tracker: GatewayTracker) -> None:
        """Store the tracker and wake all waiters."""
        with self._lock:
            self._tracker, self._ended, self._error = tracker, False, None
            self._wake()

    def end(self, error: BaseException | None) -> None:
        """Record that `serve` has ended, and wake all waiters."""
        with self._lock:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        self._settled.set()
        for loop, waiter in self._waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, waiter)
        self._waiters.clear()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
