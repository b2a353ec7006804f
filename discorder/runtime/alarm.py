"""A sleep that can be cut short: what the heartbeat, the doctor and the outbox wait with."""

from __future__ import annotations

import asyncio

from discorder.clock import Clock, Timer


class Alarm:
    """Sleep until a moment or until somebody rings, whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the sleeper, or let its next sleep return at once."""
        self._rung.set()

    async def sleep_until(self, due: float | None) -> None:
        """Return at monotonic second ``due`` (None: never) or when rung."""
        timer: Timer | None = None
        if due is not None and not self._rung.is_set():
            timer = self._clock.call_later(due - self._clock.monotonic(), self._rung.set)
        try:
            await self._rung.wait()
        finally:
            if timer is not None:
                timer.cancel()
            self._rung.clear()
