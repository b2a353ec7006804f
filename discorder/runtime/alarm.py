"""Sleep, with a way to end the sleep early, for the heartbeat, the doctor task and the outbox."""

from __future__ import annotations

import asyncio

from discorder.clock import Clock, Timer


class Alarm:
    """Sleep until a moment or until `ring`, whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the sleeping task, or make its next sleep return at once."""
        self._rung.set()

    async def sleep_until(self, due: float | None) -> None:
        """Return at monotonic second ``due`` (None: never) or after `ring`."""
        timer: Timer | None = None
        if due is not None and not self._rung.is_set():
            timer = self._clock.call_later(due - self._clock.monotonic(), self._rung.set)
        try:
            await self._rung.wait()
        finally:
            if timer is not None:
                timer.cancel()
            self._rung.clear()
