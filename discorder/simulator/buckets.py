"""Compute the REST rate limits (docs/protocol.md#rest): buckets per major parameter, sub-limits, one global limit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MESSAGES_PER_WINDOW = 5  # POST /channels/{id}/messages, the limit that bots run into
MESSAGES_WINDOW = 5.0  # seconds
REACTIONS_WINDOW = 0.25  # seconds for one reaction; all emojis of a channel share the bucket
WINDOW = 1.0  # seconds, of every other bucket and of the global limit
RENAMES_PER_WINDOW = 2  # of a channel's name or topic: a sub-limit, which no header shows
RENAMES_WINDOW = 600.0  # seconds
DISCORD_EPOCH = 1_420_070_400.0  # seconds since 1970; the upper bits of an id are milliseconds since then
NEW_MESSAGE = 10.0  # seconds for which a message's deletion has a bucket of its own
OLD_MESSAGE = 14 * 86_400.0  # seconds after which it has another

_MESSAGE = "/channels/{channel_id}/messages/{message_id}"
_QUOTAS = {  # requests and seconds of the buckets that bots run into
    "POST /channels/{channel_id}/messages": (MESSAGES_PER_WINDOW, MESSAGES_WINDOW),
    "new deletions": (3, WINDOW),
    "deletions": (5, WINDOW),
    "old deletions": (30, 120.0),
    "reactions": (1, REACTIONS_WINDOW),
}


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
class BucketDecision:
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
        self._renames: dict[str, _Window] = {}

    def ask(
        self, name: str, major: str, *, now: float, epoch: float, count_global: bool, renames: bool
    ) -> BucketDecision:
        """Check a request on the bucket ``name``. ``now`` monotonic, ``epoch`` wall time, seconds; ``renames`` a channel."""
        if not self._limit:
            return BucketDecision(allowed=True, is_global=False, retry_after=0.0, headers={})
        if count_global and self._global.limit and not self._global.hit(now):
            return self._refuse(self._global.reset - now, is_global=True, headers={})
        window = self._windows.setdefault((name, major), _Window(*_QUOTAS.get(name, (self._limit, WINDOW))))
        allowed = window.hit(now)
        wait = window.reset - now
        headers = {
            "X-RateLimit-Limit": str(window.limit),
            "X-RateLimit-Remaining": str(window.limit - window.used),
            "X-RateLimit-Reset": f"{epoch + wait:.3f}",
            "X-RateLimit-Reset-After": f"{wait:.3f}",
            "X-RateLimit-Bucket": hashlib.sha256(name.encode()).hexdigest()[:32],
        }
        if not allowed:
            return self._refuse(wait, is_global=False, headers=headers)
        if renames:
            sub_limit = self._renames.setdefault(major, _Window(RENAMES_PER_WINDOW, RENAMES_WINDOW))
            if not sub_limit.hit(now):
                return self._refuse(sub_limit.reset - now, is_global=False, headers=headers)
        return BucketDecision(allowed=True, is_global=False, retry_after=0.0, headers=headers)

    def _refuse(self, wait: float, *, is_global: bool, headers: dict[str, str]) -> BucketDecision:
        extra = {"Retry-After": str(int(-(-wait // 1))), "X-RateLimit-Scope": "global" if is_global else "user"}
        if is_global:
            extra["X-RateLimit-Global"] = "true"
        return BucketDecision(allowed=False, is_global=is_global, retry_after=wait, headers=headers | extra)


def bucket_name(route: str, message_id: str | None, epoch: float) -> str:
    """Return the bucket that a request counts on; for a deletion it depends on the message's age."""
    if "/reactions/" in route:
        return "reactions"
    if route != f"DELETE {_MESSAGE}" or message_id is None:
        return route
    age = epoch - ((int(message_id) >> 22) / 1000 + DISCORD_EPOCH)
    return "new deletions" if age < NEW_MESSAGE else "old deletions" if age > OLD_MESSAGE else "deletions"
