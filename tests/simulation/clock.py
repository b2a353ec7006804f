"""The clock of a simulated process: virtual time, a wall clock that can be set, and a monotonic one that stops in sleep.

As on Linux: while the host is suspended CLOCK_MONOTONIC stands still, and the wall clock is right again afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from discorder.clock import Timer
from tests.simulation.loop import Process, VirtualLoop

TICK = 1e-6  # no timer is finer: one that fires a rounding error too early must not fire again at the same moment, for ever
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Wall:
    """The wall clock of a host, which outlives its processes: ``offset`` seconds off."""

    offset: float = 0.0


class VirtualClock:
    """`discorder.clock.Clock` for one process."""

    def __init__(self, loop: VirtualLoop, process: Process, wall: Wall) -> None:
        self._loop = loop
        self._process = process
        self._wall = wall

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() + self._wall.offset)

    def monotonic(self) -> float:
        return self._loop.time() - self._process.slept

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self._loop.call_later(max(TICK, seconds), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
