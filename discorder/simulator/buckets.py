"""REST rate limits (§15) as arithmetic over a time that is handed in: a bucket per route and major parameter, one global."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MESSAGES_PER_WINDOW = 5  # POST /channels/{id}/messages, the limit that bots run into
MESSAGES_WINDOW = 5.0  # seconds
WINDOW = 1.0  # seconds, of every other bucket and of the global limit


@dataclass(slots=True)
class _Window:
    """A fixed window: ``limit`` requests until ``reset``."""

    limit: int
    seconds: float
    used: int = 0
    reset: float = 0.0

    def hit(self, now: float) -> bool:
        if now >= self.reset:
            self.used, self.reset = 0, now + self.seconds
        if self.used >= self.limit:
            return False
        self.used += 1
        return True


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may pass. ``headers`` go with the answer; ``retry_after`` in seconds when it may not."""

    allowed: bool
    is_global: bool
    retry_after: float
    headers: dict[str, str]


class Buckets:
    """``limit`` requests per second and bucket, ``global_limit`` per second in all; 0 = no limit."""

    def __init__(self, limit: int, global_limit: int) -> None:
        self._limit = limit
        self._global = _Window(global_limit, WINDOW)
        self._windows: dict[tuple[str, str], _Window] = {}

    def ask(self, route: str, major: str, *, now: float, epoch: float, count_global: bool) -> Decision:
        """Judge one request. ``now`` monotonic, ``epoch`` wall time, seconds."""
        if not self._limit:
            return Decision(allowed=True, is_global=False, retry_after=0.0, headers={})
        if count_global and self._global.limit and not self._global.hit(now):
            return self._refuse(self._global.reset - now, is_global=True, headers={})
        window = self._windows.get((route, major))
        if window is None:
            if route == "POST /channels/{channel_id}/messages":
                window = _Window(MESSAGES_PER_WINDOW, MESSAGES_WINDOW)
            else:
                window = _Window(self._limit, WINDOW)
            self._windows[route, major] = window
        allowed = window.hit(now)
        wait = window.reset - now
        headers = {
            "X-RateLimit-Limit": str(window.limit),
            "X-RateLimit-Remaining": str(window.limit - window.used),
            "X-RateLimit-Reset": f"{epoch + wait:.3f}",
            "X-RateLimit-Reset-After": f"{wait:.3f}",
            "X-RateLimit-Bucket": hashlib.sha256(route.encode()).hexdigest()[:32],
        }
        if allowed:
            return Decision(allowed=True, is_global=False, retry_after=0.0, headers=headers)
        return self._refuse(wait, is_global=False, headers=headers)

    def _refuse(self, wait: float, *, is_global: bool, headers: dict[str, str]) -> Decision:
        extra = {"Retry-After": str(int(-(-wait // 1))), "X-RateLimit-Scope": "global" if is_global else "user"}
        if is_global:
            extra["X-RateLimit-Global"] = "true"
        return Decision(allowed=False, is_global=is_global, retry_after=wait, headers=headers | extra)
