"""Define the `Clock` interface for time and timers: `SystemClock` for production, `FakeClock` for tests and replays."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

T = TypeVar("T")

GRANULARITY = 0.05  # seconds; timers fire on multiples of it: the loop wakes 20 times a second at most
SHORTEST_ROUNDED = 1.0  # seconds; a shorter timer is exact, a longer one is at most 5 % late


class Timer(Protocol):
    """A scheduled call; ``cancel`` is idempotent."""

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
    """The machine's clock and the running loop's timers. Timers of a second or more fire up to `GRANULARITY` late."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        loop = asyncio.get_running_loop()
        if seconds < SHORTEST_ROUNDED:
            return loop.call_later(seconds, callback)
        return loop.call_at(math.ceil((loop.time() + seconds) / GRANULARITY) * GRANULARITY, callback)

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
    """A clock that moves only by `advance`, which fires the due timers in order. It never sleeps on real time.

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
        """Return the seconds until the next timer, None without one."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._monotonic) if self._timers else None

    async def advance(self, seconds: float, *, settle: Callable[[], Awaitable[None]] | None = None) -> None:
        """Move ``seconds`` forward and fire the due timers in order.

        ``settle`` is awaited after each moment at which a timer fired (default: a few dozen turns of the loop, enough for tasks
        that do not wait for a real socket).
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
    """Run the tasks that are ready: wait for ``turns`` turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def within(clock: Clock, seconds: float, awaitable: Awaitable[T]) -> T:
    """Like ``asyncio.wait_for``, on ``clock``.

    Raises TimeoutError after ``seconds``, once the awaitable is cancelled and has ended.
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
        # A cancellation from outside reaches the inner task as well; `cancelling` distinguishes the two.
        current = asyncio.current_task()
        if expired and not (current is not None and current.cancelling()):
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
