"""Check the clocks for jumps, and run other periodic work, once a second per control plane.

Suspending the host can break a socket without an error; setting the clock cannot. Only an answer from the peer shows which one
happened, so a jump triggers a probe (`heartbeat.Pulse.probe`) and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from discorder.clock import Clock
from discorder.logs import logger

TICK_SECONDS = 1.0
JUMP_SECONDS = 5.0  # above NTP slew and the lag of a busy loop; below the time after which a server drops a client


@dataclass(frozen=True, slots=True)
class Jump:
    """Record a difference between the clocks. ``wall``: seconds the wall clock gained on the monotonic clock (negative: lost).

    ``late``: seconds by which the check itself ran late, by the monotonic clock.
    """

    wall: float
    late: float

    def __str__(self) -> str:
        if abs(self.wall) > JUMP_SECONDS:
            return f"the wall clock went {abs(self.wall):.1f} s {'ahead' if self.wall > 0 else 'back'}"
        return f"this process stood still for {self.late:.1f} s"


class ClockWatch:
    """Compare the clocks between two checks, ``seconds`` apart. A slow drift therefore never adds up to a jump."""

    __slots__ = ("_monotonic", "_seconds", "_wall")

    def __init__(self, seconds: float, wall: datetime, monotonic: float) -> None:
        self._seconds = seconds
        self._wall = wall
        self._monotonic = monotonic

    def check(self, wall: datetime, monotonic: float) -> Jump | None:
        """Return the jump since the last call, or None if neither difference exceeds `JUMP_SECONDS`."""
        passed = monotonic - self._monotonic
        jump = Jump((wall - self._wall).total_seconds() - passed, max(0.0, passed - self._seconds))
        self._wall, self._monotonic = wall, monotonic
        return jump if abs(jump.wall) > JUMP_SECONDS or jump.late > JUMP_SECONDS else None


class Ticker:
    """Call ``jumped`` after the host slept or a clock was set, and ``act`` at every tick."""

    def __init__(self, clock: Clock, *, jumped: Callable[[], None], act: Callable[[], None]) -> None:
        self._clock = clock
        self._jumped = jumped
        self._act = act

    async def run(self) -> None:
        """Tick until cancelled."""
        clock = self._clock
        watch = ClockWatch(TICK_SECONDS, clock.now(), clock.monotonic())
        while True:
            await clock.sleep(TICK_SECONDS)
            jump = watch.check(clock.now(), clock.monotonic())
            if jump is not None:
                logger.warning("The clocks jumped, every connected shard sends a heartbeat", jump=str(jump))
                self._jumped()
            self._act()
