"""Discord's limits as arithmetic over a time that is handed in. Nothing here waits, reads a clock or closes a socket."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

BUDGET_WINDOW = 24 * 3600.0  # seconds; §6
NETWORK_JITTER = 0.05  # seconds: what a client sent 5.0 s apart may arrive this much closer together


class SlidingLog:
    """At most ``limit`` hits in any ``window`` seconds; a limit of 0 never refuses."""

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._hits: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count a hit at ``now``, unless that is one too many."""
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
        """Seconds until ``key`` is free again; 0 = now."""
        last = self._last.get(key)
        if last is None or not self._seconds:
            return 0.0
        return max(0.0, last + self._seconds - now)

    def hit(self, key: object, now: float) -> None:
        self._last[key] = now


class Verdict(Enum):
    """What becomes of an IDENTIFY."""

    START = auto()
    TOO_SOON = auto()
    BUDGET_SPENT = auto()


class IdentifyGate:
    """The 5 s buckets and the day's budget of IDENTIFYs (§6, §7). A RESUME never comes here."""

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

    def ask(self, shard_id: int, now: float) -> Verdict:
        """Judge an IDENTIFY of ``shard_id`` and pay for it."""
        self._roll(now)
        bucket = shard_id % self.max_concurrency
        if self._spacing.wait(bucket, now) > NETWORK_JITTER:
            if self._count_rejected:
                self._pay(now)
            return Verdict.TOO_SOON
        self._spacing.hit(bucket, now)
        return Verdict.START if self._pay(now) else Verdict.BUDGET_SPENT

    def _pay(self, now: float) -> bool:
        if self._window_start is None:
            self._window_start = now
        if self._remaining == 0:
            return False
        self._remaining -= 1
        return True

    def _roll(self, now: float) -> None:
        if self._window_start is None and self._remaining < self.total:
            self._window_start = now  # somebody has used a part of it before: the window runs
        if self._window_start is not None and now - self._window_start >= BUDGET_WINDOW:
            self._window_start = None
            self._remaining = self.total
