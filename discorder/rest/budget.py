"""The arithmetic of rate limits: what may be sent now, and how long to wait otherwise.

Plain values and the time handed in; nothing here waits, reads a clock or knows HTTP. `limiter` puts it to work.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

Scope = Literal["user", "global", "shared"]

GLOBAL_LIMIT = 50  # requests …
GLOBAL_PERIOD = 1.0  # … per second and bot (gateway-protocol.md §15)
INVALID_STOP = 5_000  # half of Discord's 10,000: other processes may share the address (gateway-protocol.md §15)
INVALID_PERIOD = 600.0
SAME_WINDOW = 0.1  # seconds by which X-RateLimit-Reset may move and still mean the same window


@dataclass(frozen=True, slots=True)
class Limits:
    """The ``X-RateLimit-*`` headers of one answer.

    ``reset_after`` in seconds from the answer; ``reset`` is the server's epoch time of the same moment and only names the window.
    """

    bucket: str | None
    limit: int
    remaining: int
    reset_after: float
    reset: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """May one more request go? ``wait`` is None when only an answer that is under way can tell.

    ``certain`` is False when an answer may come sooner than ``wait`` and open the way.
    """

    go: bool
    wait: float | None
    certain: bool
    scope: Scope


GO = Verdict(go=True, wait=0.0, certain=True, scope="user")


class Rule(Protocol):
    """What decides whether the head of a queue may pass. Times are monotonic seconds."""

    def verdict(self, now: float) -> Verdict: ...

    def take(self, now: float) -> None: ...


class Knowledge(Enum):
    """What is known of a bucket."""

    UNKNOWN = "nothing answered yet: one request at a time"
    LIMITED = "the headers told its limit"
    UNLIMITED = "its answers carry no limits"


@dataclass(slots=True)
class Bucket:
    """Discord's view of one bucket, never more generous than Discord's own.

    ``remaining`` is the lowest count that the server stated for the current window; requests under way are subtracted from it
    whether or not the server has counted them yet. The end of a window is taken from the arrival of the answer, hence never
    too early.
    """

    knowledge: Knowledge = Knowledge.UNKNOWN
    limit: int = 1
    remaining: int = 1
    in_flight: int = 0
    resets_at: float | None = None  # monotonic; None: no window is running as far as we know
    window: float | None = None  # the server's name for the last window seen
    held_until: float = float("-inf")
    held_by: Scope = "user"

    def verdict(self, now: float) -> Verdict:
        self._renew(now)
        if now < self.held_until:
            return Verdict(go=False, wait=self.held_until - now, certain=True, scope=self.held_by)
        if self.knowledge is Knowledge.UNLIMITED or self.remaining > self.in_flight:
            return GO
        wait = None if self.resets_at is None else self.resets_at - now
        if wait is None and self.in_flight == 0:
            return GO  # the answers that would have told the window were lost: one probe
        return Verdict(go=False, wait=wait, certain=self.remaining <= 0 and wait is not None, scope="user")

    def take(self, now: float) -> None:  # noqa: ARG002  # the signature of Rule; a bucket's window runs on the server's time
        self.in_flight += 1

    def give_back(self, *, unanswered: bool) -> None:
        """One request is no longer under way. ``unanswered``: it was sent, so Discord may have counted it."""
        self.in_flight -= 1
        if unanswered and self.knowledge is Knowledge.LIMITED:
            self.remaining = max(0, self.remaining - 1)

    def learn(self, now: float, limits: Limits) -> None:
        """Apply the headers of an answer; answers may come out of order."""
        self._renew(now)
        ends = now + limits.reset_after
        age = self._compare(limits)
        if age == "older":
            return
        if age == "newer":
            self.remaining, self.resets_at = limits.remaining, ends
        else:
            self.remaining = min(self.remaining, limits.remaining)
            self.resets_at = max(self.resets_at or ends, ends)
        self.knowledge, self.limit = Knowledge.LIMITED, limits.limit
        self.window = limits.reset if limits.reset is not None else self.window

    def learn_nothing(self) -> None:
        """A good answer without limits: the route has none, until an answer says otherwise."""
        if self.knowledge is Knowledge.UNKNOWN:
            self.knowledge = Knowledge.UNLIMITED

    def hold(self, now: float, seconds: float, scope: Scope) -> None:
        """A 429: nothing goes for ``seconds``."""
        if now + seconds > self.held_until:
            self.held_until, self.held_by = now + seconds, scope

    def is_idle(self, now: float) -> bool:
        """Nothing under way and nothing to remember: forgetting it changes no decision but the first one's caution."""
        return self.in_flight == 0 and now >= self.held_until and (self.resets_at is None or now >= self.resets_at)

    def _renew(self, now: float) -> None:
        if self.resets_at is not None and now >= self.resets_at:
            self.remaining, self.resets_at = self.limit, None

    def _compare(self, limits: Limits) -> Literal["older", "same", "newer"]:
        if self.knowledge is not Knowledge.LIMITED:
            return "newer"
        if limits.reset is None or self.window is None:
            return "newer" if self.resets_at is None else "same"
        if self.resets_at is None:  # a window that has ended here and is heard of again: the answer was late
            return "newer" if limits.reset > self.window else "older"
        if abs(limits.reset - self.window) <= SAME_WINDOW:
            return "same"
        return "newer" if limits.reset > self.window else "older"


class Window:
    """At most ``limit`` in any ``period`` seconds, and nothing at all while held."""

    def __init__(self, limit: int, period: float) -> None:
        self._period = period
        self._times: deque[float] = deque(maxlen=limit)
        self._held_until = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until one more is allowed."""
        full = len(self._times) == self._times.maxlen
        free_at = self._times[0] + self._period if full else now
        return max(0.0, free_at - now, self._held_until - now)

    def verdict(self, now: float) -> Verdict:
        wait = self.wait(now)
        return GO if wait <= 0 else Verdict(go=False, wait=wait, certain=True, scope="global")

    def take(self, now: float) -> None:
        self._times.append(now)

    def hold(self, now: float, seconds: float) -> None:
        self._held_until = max(self._held_until, now + seconds)


class Unbounded(Window):
    """No limit of its own: interaction endpoints. It can still be held, by a 429."""

    def __init__(self) -> None:
        super().__init__(1, 0.0)
