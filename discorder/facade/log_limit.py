"""Limit how often the log repeats a line about a bot, however often the bot causes it."""

from __future__ import annotations

from collections.abc import Callable, Hashable

EVERY_SECONDS = 60.0


class LogLimit:
    """Knows when a line was logged last. ``now`` returns monotonic seconds. Its keys are few: bots and kinds of lines."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._next: dict[Hashable, float] = {}
        self._unlogged: dict[Hashable, int] = {}

    def due(self, *key: Hashable) -> int | None:
        """Return how many lines with this key were left out since the last one; None if this one is left out, too."""
        if self._now() < self._next.get(key, 0.0):
            self._unlogged[key] = self._unlogged.get(key, 0) + 1
            return None
        self._next[key] = self._now() + EVERY_SECONDS
        return self._unlogged.pop(key, 0)
