"""Compute how long to wait before the next dial. The result is a window; the driver draws the wait from it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Window:
    """Describe a wait of ``low`` to ``high`` seconds, drawn uniformly."""

    low: float
    high: float


FLOOR = Window(0.25, 0.75)  # every redial waits at least this long; the jitter keeps shards out of step
# After op 9 false: every second without a session loses events (docs/protocol.md#invalid-session).
# The window is narrow because the identify gate already spaces the shards.
INVALIDATED = Window(1.0, 2.0)
RATE_LIMITED = Window(5.0, 6.0)  # after close code 4008

RESUME_BASE, RESUME_CAP = 1.0, 30.0
IDENTIFY_BASE, IDENTIFY_CAP = 5.0, 600.0  # a 120 s cap would spend 1,440 IDENTIFYs a day; Discord allows 1,000

SLOW_DOWN_SECONDS = 60.0  # the send rate is halved for this long after close code 4008
REARM_SECONDS = 0.25  # retry interval of a restart that is due but not yet allowed


def asked_pause(seconds: float) -> Window:
    """Return the pause that a host requested plus the jitter of `FLOOR`. Return `FLOOR` for 0 seconds."""
    return Window(seconds + FLOOR.low, seconds + FLOOR.high)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Compute exponential back-off with full jitter: rung n waits U(floor, min(cap, base * 2**n)) seconds."""

    base: float
    cap: float
    rung: int = 0

    def window(self) -> Window:
        """Return the wait of the current rung."""
        steps = min(self.rung, 30)  # 2**30 s is far above every cap; bounds 2**n in an outage of months
        return Window(FLOOR.low, max(FLOOR.high, min(self.cap, self.base * 2.0**steps)))

    def climbed(self) -> Ladder:
        """Return the ladder at the next rung."""
        return replace(self, rung=self.rung + 1)

    def reset(self) -> Ladder:
        """Return the ladder at the first rung. Used after the connection was stable."""
        return replace(self, rung=0)


RESUME_LADDER = Ladder(RESUME_BASE, RESUME_CAP)
IDENTIFY_LADDER = Ladder(IDENTIFY_BASE, IDENTIFY_CAP)
