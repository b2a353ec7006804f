"""The identify ledger: may another IDENTIFY be paid for? Arithmetic only.

1,000 IDENTIFYs in 24 hours and Discord ends every session and resets the token (gateway-protocol.md §6, §7), so the ledger
refuses rather than pays. It believes the lower of two counts: what Discord said was left, less what was spent since then;
and the total, less what was spent here in the last 24 hours. A reserve stays untouched for a start by hand.

Must not: read a clock, draw an id, touch a file or wait. Times are POSIX seconds of the wall clock, handed in, since they are
compared between processes and across restarts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

DAY = 86_400.0  # seconds; the window of the allowance (gateway-protocol.md §6)
TICKET_LIFE = (
    65.0  # seconds; Identifying ends after 65 s, so an older ticket that was not sent belongs to a process that died
)
SETTLING = 5.0  # seconds until an IDENTIFY that was sent surely shows in `remaining`
DISCORDS_SPACING = 5.0  # seconds between two IDENTIFYs of a bucket (§7)
SPACING = 5.25  # seconds between two IDENTIFYs of a bucket: Discord's 5 s (§7) and a quarter for the way there
ASK_AGAIN = 60.0  # seconds to the next try where Discord tells no reset
RESERVE_SHARE = 0.1  # of the total; kept back for a start by hand


@dataclass(frozen=True, slots=True)
class StartLimit:
    """``session_start_limit`` of ``GET /gateway/bot``: counts, and milliseconds until ``remaining`` is ``total`` again."""

    total: int
    remaining: int
    reset_after_ms: int
    max_concurrency: int

    def __post_init__(self) -> None:
        if self.total < 0 or self.remaining < 0 or self.reset_after_ms < 0 or self.max_concurrency < 1:
            msg = f"not a session start limit: {self}"
            raise ValueError(msg)

    def reserve(self, shard_count: int) -> int:
        """What is never spent: a tenth of the total, and at least one IDENTIFY for each shard."""
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

    @property
    def touched_at(self) -> float:
        """When it was paid for or sent, whichever is later by a wall clock that may have been set back between the two."""
        return self.at if self.sent_at is None else max(self.at, self.sent_at)

    def settles_at(self) -> float:
        """From when on a look-up surely counts it, or it will never be sent."""
        return self.at + TICKET_LIFE if self.sent_at is None else self.sent_at + SETTLING


@dataclass(frozen=True, slots=True)
class LookUp:
    """What Discord said at ``at``. ``foreign``: by how much ``remaining`` fell beyond this ledger's own IDENTIFYs."""

    limit: StartLimit
    at: float
    foreign: int = 0

    @property
    def reset_at(self) -> float:
        return self.at + self.limit.reset_after_ms / 1000

    def window_ended(self, now: float) -> bool:
        """The reset has passed, by this clock.

        No time until the reset means that no window runs (gateway-protocol.md §1), not that one has just ended.
        """
        return self.limit.reset_after_ms > 0 and now >= self.reset_at

    def remaining_at(self, now: float) -> int:
        """Discord's count, or the whole allowance again once the reset has passed."""
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
class ColdStart:
    """What identifying some shards would cost: IDENTIFYs, the most that fall into one bucket, and seconds to the last of them.

    ``answer`` is the ledger's for the last one: a Grant, or the Refusal that would park it. ``paid``: how many it pays now.
    """

    identifies: int
    rounds: int
    seconds: float
    paid: int
    answer: Grant | Refusal


@dataclass(frozen=True, slots=True)
class Ledger:
    """A value; every operation returns a new one. ``debits`` are keyed by the ticket's id and never mutated."""

    look_up: LookUp | None = None
    debits: Mapping[str, Debit] = field(default_factory=dict)

    def tidied(self, now: float) -> Ledger:
        """Without what is older than a day. Nothing lies in the future: where the clock was set back, it counts from ``now``."""
        kept = {key: debit for key, debit in self.debits.items() if debit.at > now - DAY}
        for key, debit in kept.items():
            if debit.touched_at > now:
                sent_at = None if debit.sent_at is None else min(debit.sent_at, now)
                kept[key] = replace(debit, at=min(debit.at, now), sent_at=sent_at)
        look_up = None if self.look_up is None else replace(self.look_up, at=min(self.look_up.at, now))
        return Ledger(look_up, kept)

    def reconciled(self, limit: StartLimit, *, at: float, now: float) -> Ledger:
        """Take over a look-up made at ``at``, and notice who else spends.

        Nobody but others lowers ``remaining`` by more than our debits. A look-up older than the one at hand changes nothing:
        another process that shares the ledger was faster. One from the future is older: the clock was set back since.
        """
        tidy = self.tidied(now)
        if self.look_up is not None and at < self.look_up.at <= now:
            return tidy
        foreign = 0
        if tidy.look_up is not None:
            expected = min(tidy.look_up.remaining_at(now), limit.total) - tidy.unsettled
            foreign = max(0, expected - limit.remaining)
        debits = {
            key: replace(debit, settled=debit.settled or debit.settles_at() <= at) for key, debit in tidy.debits.items()
        }
        return Ledger(LookUp(limit, at, foreign), debits)

    def debited(self, ticket: str, now: float) -> Ledger:
        """Pay for one IDENTIFY, whatever `decide` says; paying twice for one ticket is paying once."""
        return replace(self, debits={ticket: Debit(now), **self.debits})

    def sent(self, ticket: str, now: float) -> Ledger:
        """The ticket's IDENTIFY was written to the socket: it cannot be refunded any more."""
        paid = self.debits.get(ticket, Debit(now))
        return replace(self, debits={**self.debits, ticket: replace(paid, sent_at=now, settled=False)})

    def refunded(self, ticket: str) -> Ledger:
        """Give back a ticket that was not sent; anything else is left as it is, so a refund never makes budget."""
        paid = self.debits.get(ticket)
        if paid is None or paid.sent_at is not None:
            return self
        return replace(self, debits={key: debit for key, debit in self.debits.items() if key != ticket})

    @property
    def unsettled(self) -> int:
        """Debits that the last look-up may not have counted."""
        return sum(not debit.settled for debit in self.debits.values())

    def spendable(self, now: float, shard_count: int) -> int:
        """IDENTIFYs above the reserve; negative when the reserve is touched. Raises ValueError before the first look-up."""
        look_up = self._known()
        tidy = self.tidied(now)
        by_discord = look_up.remaining_at(now) - tidy.unsettled
        by_us = look_up.limit.total - len(tidy.debits)
        return min(by_discord, by_us) - look_up.limit.reserve(shard_count)

    def vouched_for(self, now: float, shard_count: int) -> float:
        """For how many seconds the last look-up vouches for one IDENTIFY more: as long as another process that spends as fast as
        Discord lets it, one per bucket and 5 s, cannot have used up what lies above the reserve. 0 before the first look-up, and
        once its window has ended: that is a guess of ours, by a clock that somebody may have set.
        """
        if self.look_up is None or self.look_up.window_ended(now):
            return 0.0
        return DISCORDS_SPACING * max(0, self.spendable(now, shard_count)) / self.look_up.limit.max_concurrency

    def decide(self, now: float, shard_count: int) -> Grant | Refusal:
        """May one more IDENTIFY be paid for? Raises ValueError before the first look-up."""
        spendable = self.spendable(now, shard_count)
        if spendable > 0:
            return Grant(spendable)
        look_up = self._known()
        until = datetime.fromtimestamp(self._affordable_at(look_up, now, shard_count), UTC)
        left = spendable + look_up.limit.reserve(shard_count)
        reason = (
            f"the identify budget is spent: {max(0, left)} of {look_up.limit.total} left, "
            f"{look_up.limit.reserve(shard_count)} are kept in reserve"
        )
        return Refusal(until, reason, RefusalCause.BUDGET)

    def budget(self, now: float, shard_count: int) -> Budget:
        """Everything `decide` looks at, for people. Raises ValueError before the first look-up."""
        look_up = self._known()
        tidy = self.tidied(now)
        return Budget(
            total=look_up.limit.total,
            remaining=max(0, look_up.remaining_at(now) - tidy.unsettled),
            spent_here=len(tidy.debits),
            reserve=look_up.limit.reserve(shard_count),
            spendable=max(0, self.spendable(now, shard_count)),
            reset_at=datetime.fromtimestamp(look_up.reset_at, UTC),
            looked_up_at=datetime.fromtimestamp(look_up.at, UTC),
            foreign=look_up.foreign,
        )

    def cold_start(
        self, shard_ids: Collection[int], now: float, shard_count: int, spacing: float = SPACING
    ) -> ColdStart:
        """What it takes to identify ``shard_ids`` of a layout of ``shard_count``, bucket by bucket.

        Raises ValueError before the first look-up.
        """
        buckets = Counter(shard % self._known().limit.max_concurrency for shard in shard_ids)
        rounds = max(buckets.values(), default=0)
        paid = max(0, min(len(shard_ids), self.spendable(now, shard_count)))
        after = self
        for number in range(min(paid, len(shard_ids) - 1)):  # the last one is the one to ask about
            after = after.debited(f"cold start {number}", now)
        answer = after.decide(now, shard_count)
        return ColdStart(len(shard_ids), rounds, max(0, rounds - 1) * spacing, paid, answer)

    def _affordable_at(self, look_up: LookUp, now: float, shard_count: int) -> float:
        """When both counts allow one more: at Discord's reset, and when enough of our own debits are a day old."""
        tidy = self.tidied(now)
        reserve = look_up.limit.reserve(shard_count)
        until = now
        if look_up.remaining_at(now) - tidy.unsettled <= reserve:
            until = look_up.reset_at if now < look_up.reset_at else now + ASK_AGAIN
        own = sorted(debit.at for debit in tidy.debits.values())
        too_many = len(own) + reserve + 1 - look_up.limit.total
        if too_many > 0:
            until = max(until, own[too_many - 1] + DAY) if too_many <= len(own) else now + DAY
        return min(max(until, now + 1.0), now + DAY)

    def _known(self) -> LookUp:
        if self.look_up is None:
            msg = "the ledger has not seen a look-up yet"
            raise ValueError(msg)
        return self.look_up
