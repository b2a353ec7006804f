"""Write monotonic seconds as times of day that stay the same from one document to the next."""

from __future__ import annotations

from datetime import UTC, datetime

from discorder.clock import Clock
from discorder.status.document import Moment, moment

TOLERANCE = 0.25  # seconds by which the clocks may drift apart until the times are shown anew


class WallTimes:
    """Converts monotonic seconds of ``clock``. The times move only when the wall clock was set."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._measure()

    def refresh(self) -> None:
        """Follow a wall clock that was set."""
        offset = self._measure()
        if abs(offset - self._offset) > TOLERANCE:
            self._offset = offset

    def at(self, monotonic: float) -> Moment:
        """Return the time of day of a monotonic second."""
        return moment(datetime.fromtimestamp(monotonic + self._offset, UTC))

    def _measure(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
