"""Define the values of the identify budget: what Discord states, what a ticket costs, what the ledger answers.

Times are POSIX seconds of the wall clock: they are compared between processes and across restarts. `ledger` decides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

# seconds; Identifying ends after 65 s: an older ticket that was not sent belongs to a process that died
TICKET_LIFE = 65.0
SETTLING = 5.0  # seconds after which an IDENTIFY that was sent shows in `remaining`
# a count or milliseconds beyond it: a damaged store, or an answer that is not Discord's; arithmetic stays exact
MOST = 2**53
LATEST = 32_503_680_000.0  # the year 3000, in POSIX seconds; `datetime` cannot hold what lies far beyond
RESERVE_SHARE = 0.1  # of the total; kept back for a start by hand
HOLD = 15.0  # seconds for which a ticket that was neither sent nor refunded keeps its bucket: its process may have died


@dataclass(frozen=True, slots=True)
class StartLimit:
    """``session_start_limit`` of ``GET /gateway/bot``: counts, and milliseconds until ``remaining`` is ``total`` again."""

    total: int
    remaining: int
    reset_after_ms: int
    max_concurrency: int

    def __post_init__(self) -> None:
        counts = (self.total, self.remaining, self.reset_after_ms, self.max_concurrency - 1)
        if not all(0 <= count < MOST for count in counts):
            msg = f"not a session start limit: {self}"
            raise ValueError(msg)

    def reserve(self, shard_count: int) -> int:
        """Return what is never spent: a tenth of the total, and at least one IDENTIFY for each shard."""
        return max(math.ceil(self.total * RESERVE_SHARE), shard_count)


class RefusalCause(StrEnum):
    """Why no ticket was given. Only BUDGET means that IDENTIFYs have run out."""

    BUDGET = "budget"
    QUEUE = "queue"
    LOOK_UP = "look-up"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """No IDENTIFY before ``until`` (aware, UTC). ``reason`` is a sentence for the log and the status page."""

    until: datetime
    reason: str
    cause: RefusalCause


@dataclass(frozen=True, slots=True)
class Grant:
    """An IDENTIFY may be paid for. ``spendable`` counts it and those after it, down to the reserve."""

    spendable: int


@dataclass(frozen=True, slots=True)
class Debit:
    """One IDENTIFY paid for. ``settled``: the last look-up already counts it in ``remaining``."""

    at: float
    sent_at: float | None = None
    settled: bool = False

    def __post_init__(self) -> None:
        check_moment(self.at)
        if self.sent_at is not None:
            check_moment(self.sent_at)

    @property
    def touched_at(self) -> float:
        """Return the later of payment and send: the wall clock may have been set back between them."""
        return self.at if self.sent_at is None else max(self.at, self.sent_at)

    def settles_at(self) -> float:
        """Return when a look-up counts it, or it will never be sent."""
        return self.at + TICKET_LIFE if self.sent_at is None else self.sent_at + SETTLING


@dataclass(frozen=True, slots=True)
class Slot:
    """One bucket: when it last sent an IDENTIFY, and which ticket holds it until when. ``holder`` "" = none."""

    sent_at: float = 0.0
    holder: str = ""
    held_until: float = 0.0

    def free_at(self, spacing: float) -> float:
        return max(self.sent_at + spacing, self.held_until if self.holder else 0.0)

    def tidied(self, now: float) -> Slot:
        """Move times that lie in the future to ``now``: a clock that was set back must not close a bucket for an hour."""
        if self.sent_at <= now and self.held_until <= now + HOLD:
            return self
        return replace(self, sent_at=min(self.sent_at, now), held_until=min(self.held_until, now + HOLD))


@dataclass(frozen=True, slots=True)
class Taken:
    """The ticket is paid for and holds its bucket."""


@dataclass(frozen=True, slots=True)
class Later:
    """The bucket is not free yet: ask again in ``seconds``, or sooner, because its ticket may be refunded."""

    seconds: float


@dataclass(frozen=True, slots=True)
class LookUp:
    """Discord's answer to a request at ``at``. ``foreign``: by how much ``remaining`` fell beyond this ledger's IDENTIFYs."""

    limit: StartLimit
    at: float
    foreign: int = 0

    def __post_init__(self) -> None:
        check_moment(self.at)

    @property
    def reset_at(self) -> float:
        return min(self.at + self.limit.reset_after_ms / 1000, LATEST)

    def window_ended(self, now: float) -> bool:
        """Whether the reset has passed by this clock.

        A reset after 0 ms means that no window runs (docs/protocol.md#connection), not that one has just ended.
        """
        return self.limit.reset_after_ms > 0 and now >= self.reset_at

    def remaining_at(self, now: float) -> int:
        """Return Discord's count, or the whole total once the reset has passed."""
        return self.limit.total if self.window_ended(now) else self.limit.remaining


@dataclass(frozen=True, slots=True)
class Budget:
    """The ledger at one moment, for the status page and ``discorder budget``. ``reset_at`` is aware, UTC."""

    total: int
    remaining: int
    spent_here: int
    reserve: int
    spendable: int
    reset_at: datetime
    looked_up_at: datetime
    foreign: int

    def __str__(self) -> str:
        reset = self.reset_at.isoformat(timespec="seconds")
        return f"{self.remaining} of {self.total} IDENTIFYs left, {self.reserve} of them in reserve, until {reset}"


@dataclass(frozen=True, slots=True)
class IdentifyQueue:
    """The shards that wait for an IDENTIFY. ``turns``: the estimated seconds until each shard may send it.

    ``concurrency`` is the number of buckets, None before the first look-up.
    """

    concurrency: int | None
    turns: Mapping[int, float]

    def rounds(self, shard_ids: Collection[int]) -> int:
        """Return how many of ``shard_ids`` share the fullest bucket: the identifies that follow each other."""
        buckets = Counter(shard % (self.concurrency or 1) for shard in shard_ids)
        return max(buckets.values(), default=0)


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What identifying some shards would cost: IDENTIFYs, the most that fall into one bucket, and seconds to the last of them.

    ``answer`` is the ledger's decision on the last one: a Grant, or a Refusal. ``paid``: how many can be paid for now.
    """

    identifies: int
    rounds: int
    seconds: float
    paid: int
    answer: Grant | Refusal


def check_moment(at: float) -> None:
    if not 0 <= at <= LATEST:  # nor NaN
        msg = f"not a moment: {at}"
        raise ValueError(msg)
