"""Did the host sleep, or did somebody set its clock? Read off the two clocks that others look at about once a second.

A socket does not survive every sleep, and nothing on it says so; a clock that was set changes nothing. Only an answer tells the
two apart, so that a jump is a reason to ask (`heartbeat.Pulse.probe`), and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

JUMP_SECONDS = 5.0  # more than NTP slews or a busy loop is late; less than it takes a server to give a client up


@dataclass(frozen=True, slots=True)
class Jump:
    """Time that passed on one clock only. ``wall``: seconds that the wall clock went ahead of the monotonic one (or behind).

    ``late``: seconds by which the look itself came late, by the monotonic clock.
    """

    wall: float
    late: float

    def __str__(self) -> str:
        if abs(self.wall) > JUMP_SECONDS:
            return f"the wall clock went {abs(self.wall):.1f} s {'ahead' if self.wall > 0 else 'back'}"
        return f"this process stood still for {self.late:.1f} s"


class ClockWatch:
    """Compares the two clocks from look to look, so that a slow drift never adds up to a jump. Looks come every ``seconds``."""

    __slots__ = ("_monotonic", "_seconds", "_wall")

    def __init__(self, seconds: float, wall: datetime, monotonic: float) -> None:
        self._seconds = seconds
        self._wall = wall
        self._monotonic = monotonic

    def look(self, wall: datetime, monotonic: float) -> Jump | None:
        """The jump since the last look, None when both clocks ran on."""
        passed = monotonic - self._monotonic
        jump = Jump((wall - self._wall).total_seconds() - passed, max(0.0, passed - self._seconds))
        self._wall, self._monotonic = wall, monotonic
        return jump if abs(jump.wall) > JUMP_SECONDS or jump.late > JUMP_SECONDS else None
