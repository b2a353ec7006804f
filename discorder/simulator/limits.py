"""Compute Discord's gateway limits. Pure: the caller passes the time."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

BUDGET_WINDOW = 24 * 3600.0  # seconds; docs/protocol.md#identify
NETWORK_JITTER = 0.05  # seconds: what a client sent 5.0 s apart may arrive this much closer together


class SlidingLog:
    """At most ``limit`` hits in any ``window`` seconds; a limit of 0 never refuses."""

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._hits: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count a hit at ``now``, unless it exceeds the limit."""
        if not self._limit:
            return True
        while self._hits and now - self._hits[0] >= self._window:
            self._hits.popleft()
        if len(self._hits) >= self._limit:
            return False
        self._hits.append(now)
        return True


class Spacing:
    """At least ``seconds`` between two hits of one key; 0 never refuses."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[object, float] = {}

    def wait(self, key: object, now: float) -> float:
        """Return the seconds until ``key`` is free again; 0 = now."""
        last = self._last.get(key)
        if last is None or not self._seconds:
            return 0.0
        return max(0.0, last + self._seconds - now)

    def hit(self, key: object, now: float) -> None:
        self._last[key] = now


class IdentifyResult(Enum):
    """The result of an IDENTIFY."""

    START = auto()
    TOO_SOON = auto()
    BUDGET_SPENT = auto()


class IdentifyLimit:
    """The 5 s buckets and the day's budget of IDENTIFYs (docs/protocol.md#session-start-limit). RESUMEs do not count."""

    def __init__(
        self, *, total: int, remaining: int | None, max_concurrency: int, spacing: float, count_rejected: bool
    ) -> None:
        self.total = total
        self.max_concurrency = max_concurrency
        self._remaining = total if remaining is None else remaining
        self._spacing = Spacing(spacing)
        self._count_rejected = count_rejected
        self._window_start: float | None = None

    def remaining(self, now: float) -> int:
        self._roll(now)
        return self._remaining

    def reset_after_ms(self, now: float) -> int:
        """Milliseconds until the window resets; 0 while nothing has been used."""
        self._roll(now)
        return 0 if self._window_start is None else int((self._window_start + BUDGET_WINDOW - now) * 1000)

    def ask(self, shard_id: int, now: float) -> IdentifyResult:
        """Check an IDENTIFY of ``shard_id`` against both, and count it."""
        self._roll(now)
        bucket = shard_id % self.max_concurrency
        if self._spacing.wait(bucket, now) > NETWORK_JITTER:
            if self._count_rejected:
                self._pay(now)
            return IdentifyResult.TOO_SOON
        self._spacing.hit(bucket, now)
        return IdentifyResult.START if self._pay(now) else IdentifyResult.BUDGET_SPENT

    def _pay(self, now: float) -> bool:
        if self._window_start is None:
            self._window_start = now
        if self._remaining == 0:
            return False
        self._remaining -= 1
        return True

    def _roll(self, now: float) -> None:
        if self._window_start is None and self._remaining < self.total:
            self._window_start = now  # a part has been used before, so the window is running
        if self._window_start is not None and now - self._window_start >= BUDGET_WINDOW:
            self._window_start = None
            self._remaining = self.total
