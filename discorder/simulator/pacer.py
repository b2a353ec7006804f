"""The heart of the living guilds: lets the stream's events happen at a steady rate. It decides nothing about them."""

from __future__ import annotations

from collections.abc import Callable

from discorder.clock import Clock

TICK = 0.005  # seconds: the shortest sleep; what falls due within one tick happens together
CATCH_UP = 1.0  # seconds: what is overdue by more than this after a stop of the process never happens


async def pace(clock: Clock, rate: float, happen: Callable[[], None]) -> None:
    """Call ``happen`` ``rate`` times a second, for ever."""
    interval = 1 / rate
    due = clock.monotonic() + interval
    while True:
        await clock.sleep(max(TICK, due - clock.monotonic()))
        now = clock.monotonic()
        due = max(due, now - CATCH_UP)
        while due <= now:
            happen()
            due += interval
