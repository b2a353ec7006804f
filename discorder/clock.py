"""Time as a seam: everything that waits or measures asks a `Clock`, so that a test can own the time.

`SystemClock` is the real one. `FakeClock` stands still until it is told to advance, then fires what became due in order and
lets the loop settle in between; it never sleeps on real time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """A call that has been put off; ``cancel`` is idempotent."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall time, monotonic time, and waiting."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running loop after ``seconds``."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``; zero or less still gives the loop one turn."""
        ...


class SystemClock:
    """The machine's clock and the running loop's timers."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _FakeTimer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """A clock that stands still until `advance` moves it.

    ``start`` is the wall time at monotonic zero. `jump_wall` moves only the wall clock, as NTP or a suspended host does.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._monotonic = 0.0
        self._start = start
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._monotonic)

    def monotonic(self) -> float:
        return self._monotonic

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (self._monotonic + max(0.0, seconds), next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock alone, forwards or back."""
        self._start += timedelta(seconds=seconds)

    def next_due(self) -> float | None:
        """Seconds until the next timer, None without one."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._monotonic) if self._timers else None

    async def advance(self, seconds: float, *, settle: Callable[[], Awaitable[None]] | None = None) -> None:
        """Move ``seconds`` forward, firing what becomes due in order.

        After each moment at which something fired, ``settle`` is awaited (default: a few dozen turns of the loop, enough for
        whatever does not wait on a real socket).
        """
        settle = settle or settle_loop
        end = self._monotonic + seconds
        await settle()
        while (due := self.next_due()) is not None and self._monotonic + due <= end:
            self._monotonic += due
            while self._timers and self._timers[0][0] <= self._monotonic:
                timer = heapq.heappop(self._timers)[2]
                if not timer.cancelled:
                    timer.callback()
            await settle()
        self._monotonic = end
        await settle()


async def settle_loop(turns: int = 40) -> None:
    """Let everything that is ready on the loop run: ``turns`` empty turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def within(clock: Clock, seconds: float, awaitable: Awaitable[T]) -> T:
    """``asyncio.wait_for`` on ``clock``.

    Raises TimeoutError after ``seconds``, having cancelled the awaitable and waited for it.
    """
    task = asyncio.ensure_future(awaitable)
    expired = False

    def expire() -> None:
        nonlocal expired
        if not task.done():
            expired = True
            task.cancel()

    timer = clock.call_later(seconds, expire)
    try:
        return await task
    except asyncio.CancelledError:
        # A cancellation from outside reaches the inner task as well; `cancelling` tells the two apart.
        current = asyncio.current_task()
        if expired and not (current is not None and current.cancelling()):
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
