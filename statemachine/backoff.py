"""How long to wait before the next dial, as arithmetic. Windows come out; whoever acts draws from them."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Window:
    """Wait between ``low`` and ``high`` seconds, drawn uniformly."""

    low: float
    high: float


FLOOR = Window(0.25, 0.75)  # on every path: no redial without a pause, and no two shards in step
INVALIDATED = Window(1.0, 5.0)  # after op 9 false; the older docs asked for it (gateway-protocol.md §9)
RATE_LIMITED = Window(5.0, 6.0)  # after 4008

RESUME_BASE, RESUME_CAP = 1.0, 30.0
IDENTIFY_BASE, IDENTIFY_CAP = 5.0, 600.0  # a 120 s cap would still spend 1,440 IDENTIFYs a day, Discord allows 1,000

SLOW_DOWN_SECONDS = 60.0  # sends are halved for so long after 4008
REARM_SECONDS = 0.25  # a restart that is due but may not happen yet asks again after so long


@dataclass(frozen=True, slots=True)
class Ladder:
    """Exponential back-off with full jitter: rung n waits U(floor, min(cap, base * 2**n))."""

    base: float
    cap: float
    rung: int = 0

    def window(self) -> Window:
        """What the present rung waits."""
        steps = min(self.rung, 30)  # far above every cap; keeps 2**n a sane number after months of outage
        return Window(FLOOR.low, max(FLOOR.high, min(self.cap, self.base * 2.0**steps)))

    def climbed(self) -> Ladder:
        """The next rung."""
        return replace(self, rung=self.rung + 1)

    def reset(self) -> Ladder:
        """The first rung again, after proof of stability."""
        return replace(self, rung=0)


RESUME_LADDER = Ladder(RESUME_BASE, RESUME_CAP)
IDENTIFY_LADDER = Ladder(IDENTIFY_BASE, IDENTIFY_CAP)
