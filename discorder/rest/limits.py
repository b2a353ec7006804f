"""Compute which requests the rate limits allow at a given time, and how long to wait otherwise.

Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal, Protocol

Scope = Literal["user", "global", "shared"]

GLOBAL_LIMIT = 50  # requests …
GLOBAL_PERIOD = 1.0  # … per second and bot (docs/protocol.md#rest)
INVALID_STOP = 5_000  # half of Discord's 10,000: other processes may share the address (docs/protocol.md#rest)
INVALID_PERIOD = 600.0
FIRST_PAUSE = 5.0  # seconds after a 429 that does not say how long
SHORTEST_PAUSE = 0.5  # seconds after the third 429 in a row, however short the wait that it states
LONGEST_PAUSE = 600.0  # seconds to which these two grow; a ban of an address lasts an hour or so
WINDOW_JUMP = 86_400.0  # seconds; a window's name that moved further is not older, the server's clock was set
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
class Decision:
    """Whether one more request may be sent. ``wait`` is None when that depends on an answer that is under way.

    ``certain`` is False when an answer may allow the request before ``wait`` has passed. ``banned``: the address is refused.
    """

    allowed: bool
    wait: float | None
    certain: bool
    scope: Scope
    banned: bool = False


ALLOWED = Decision(allowed=True, wait=0.0, certain=True, scope="user")


@dataclass(slots=True)
class Hold:
    """The pause after a 429. It grows while each request sent after a pause is refused again."""

    until: float = float("-inf")
    scope: Scope = "user"
    refusals: int = 0  # in a row
    since: float = float("-inf")  # when the last of them came

    def extend(self, now: float, sent_at: float, stated: float | None, scope: Scope) -> None:
        """Apply a 429 to a request sent at ``sent_at``. ``stated`` is its wait in seconds, None if it states none."""
        is_new = sent_at > self.since  # others were under way when the pause began
        if is_new:
            self.refusals, self.since = self.refusals + 1, now
        elif stated is None:
            return
        ends = now + self._pause(stated)
        if ends > self.until:
            self.until, self.scope = ends, scope

    def clear(self, sent_at: float) -> None:
        """Apply an answer other than a 429."""
        if sent_at > self.since:
            self.refusals = 0

    def check(self, now: float) -> Decision:
        if now >= self.until:
            return ALLOWED
        return Decision(allowed=False, wait=self.until - now, certain=True, scope=self.scope)

    def _pause(self, stated: float | None) -> float:
        doublings = min(self.refusals, 16) - (1 if stated is None else 3)
        if stated is None:
            return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**doublings)
        return max(stated, min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0**doublings) if doublings >= 0 else 0.0)


class Rule(Protocol):
    """Decides whether the first request of a queue may be sent. Times are monotonic seconds."""

    def check(self, now: float) -> Decision: ...

    def take(self, now: float) -> None: ...


class Knowledge(Enum):
    """What is known of a bucket."""

    UNKNOWN = "no answer yet: one request at a time"
    LIMITED = "the headers have stated its limit"
    UNLIMITED = "its answers carry no limits"


@dataclass(slots=True, eq=False)
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
    hold: Hold = field(default_factory=Hold)

    def check(self, now: float) -> Decision:
        self._renew(now)
        held = self.hold.check(now)
        if not held.allowed:
            return held
        if self.knowledge is Knowledge.UNLIMITED or self.remaining > self.in_flight:
            return ALLOWED
        wait = None if self.resets_at is None else self.resets_at - now
        if wait is None and self.in_flight == 0:
            return ALLOWED  # the answers that would have stated the window were lost: one probe
        return Decision(allowed=False, wait=wait, certain=self.remaining <= 0 and wait is not None, scope="user")

    def take(self, now: float) -> None:  # noqa: ARG002  # the signature of Rule; a bucket's window runs on the server's time
        self.in_flight += 1

    def give_back(self, *, unanswered: bool) -> None:
        """Remove one request under way. ``unanswered``: it was sent, so Discord may have counted it."""
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
        """Apply a 2xx answer without limits: the bucket is unlimited until an answer states a limit."""
        if self.knowledge is Knowledge.UNKNOWN:
            self.knowledge = Knowledge.UNLIMITED

    def is_idle(self, now: float) -> bool:
        """Whether the bucket can be dropped: no request under way, no hold and no window."""
        return self.in_flight == 0 and now >= self.hold.until and (self.resets_at is None or now >= self.resets_at)

    def _renew(self, now: float) -> None:
        if self.resets_at is not None and now >= self.resets_at:
            self.remaining, self.resets_at = self.limit, None

    def _compare(self, limits: Limits) -> Literal["older", "same", "newer"]:
        if self.knowledge is not Knowledge.LIMITED:
            return "newer"
        if limits.reset is None or self.window is None:
            return "newer" if self.resets_at is None else "same"
        if abs(limits.reset - self.window) > WINDOW_JUMP:
            return "newer"
        if self.resets_at is None:  # the answer is late: its window has ended here
            return "newer" if limits.reset > self.window else "older"
        if abs(limits.reset - self.window) <= SAME_WINDOW:
            return "same"
        return "newer" if limits.reset > self.window else "older"


class SlidingWindow:
    """At most ``limit`` in any ``period`` seconds."""

    def __init__(self, limit: int, period: float) -> None:
        self._period = period
        self._times: deque[float] = deque(maxlen=limit)

    def wait(self, now: float) -> float:
        """Return the seconds until one more is allowed."""
        full = len(self._times) == self._times.maxlen
        free_at = self._times[0] + self._period if full else now
        return max(0.0, free_at - now)

    def check(self, now: float) -> Decision:
        wait = self.wait(now)
        return ALLOWED if wait <= 0 else Decision(allowed=False, wait=wait, certain=True, scope="global")

    def take(self, now: float) -> None:
        self._times.append(now)


class Unbounded(SlidingWindow):
    """Allows every request; for interaction endpoints, which the global limit exempts."""

    def __init__(self) -> None:
        super().__init__(1, 0.0)


@dataclass(slots=True)
class SubLimit:
    """A limit that only 429s show. After one, a single request at a time tests whether it has ended."""

    hold: Hold = field(default_factory=Hold)
    in_flight: int = 0

    def check(self, now: float) -> Decision:
        held = self.hold.check(now)
        if held.allowed and self.in_flight:
            return Decision(allowed=False, wait=None, certain=False, scope="user")
        return held

    def take(self, now: float) -> None:  # noqa: ARG002  # the signature of Rule
        self.in_flight += 1

    def is_idle(self, now: float) -> bool:
        return not self.in_flight and now >= self.hold.until


@dataclass(slots=True)
class AddressBlock:
    """Discord's refusal of the whole IP address. After each pause one request tests whether it has ended."""

    hold: Hold = field(default_factory=Hold)
    is_probing: bool = False

    def check(self, now: float) -> Decision:
        held = self.hold.check(now)
        if held.allowed and self.is_probing:
            return Decision(allowed=False, wait=None, certain=False, scope="global")
        return held if held.allowed else replace(held, banned=True)

    def probe(self) -> bool:
        """Record that a request is sent. Returns True if it tests whether the block has ended."""
        self.is_probing = self.hold.refusals > 0
        return self.is_probing


@dataclass(slots=True)
class GlobalRule:
    """Allows a request when the address is not blocked, no global 429 applies and the global window has room."""

    block: AddressBlock
    window: SlidingWindow
    hold: Hold = field(default_factory=Hold)

    def check(self, now: float) -> Decision:
        for decision in (self.block.check(now), self.hold.check(now)):
            if not decision.allowed:
                return decision
        return self.window.check(now)

    def take(self, now: float) -> None:
        self.window.take(now)
