"""Decide whether another IDENTIFY may be paid for, and whether its bucket is free. Arithmetic only.

1,000 IDENTIFYs in 24 hours and Discord ends every session and resets the token (docs/protocol.md#identify), so the ledger
refuses rather than pays. It uses the lower of two counts: what Discord said was left, less what was spent since then; and the
total, less what was spent here in the last 24 hours. A reserve is kept for a start by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from discorder.sessions.identify_budget import (
    HOLD,
    Budget,
    ColdStart,
    Debit,
    Grant,
    Later,
    LookUp,
    Refusal,
    RefusalCause,
    Slot,
    StartLimit,
    Taken,
)

DAY = 86_400.0  # seconds; the window of the budget (docs/protocol.md#identify)
DISCORDS_SPACING = 5.0  # seconds between two IDENTIFYs of a bucket (docs/protocol.md#session-start-limit)
SPACING = 5.25  # seconds between two IDENTIFYs of a bucket: Discord's 5 s and 0.25 s for the network
ASK_AGAIN = 60.0  # seconds to the next try if Discord states no reset


@dataclass(frozen=True, slots=True)
class Ledger:
    """The IDENTIFYs of one bot. A value: every operation returns a new one.

    ``debits`` are keyed by the ticket's id, ``slots`` by bucket (``shard_id % max_concurrency``); neither is ever mutated. A
    store changes the whole ledger in one transaction: two processes cannot both get the last IDENTIFY, or the same bucket.
    """

    look_up: LookUp | None = None
    debits: Mapping[str, Debit] = field(default_factory=dict)
    slots: Mapping[int, Slot] = field(default_factory=dict)

    def completed_from(self, known: Ledger) -> Ledger:
        """Return this ledger, completed with ``known``, an earlier one, if this one was begun anew (it has no look-up)."""
        if self.look_up is not None:
            return self
        return Ledger(known.look_up, {**known.debits, **self.debits}, {**known.slots, **self.slots})

    def tidied(self, now: float) -> Ledger:
        """Drop what is older than a day, and move times that lie in the future to ``now``: the clock was set back since."""
        kept = {key: debit for key, debit in self.debits.items() if debit.at > now - DAY}
        for key, debit in kept.items():
            if debit.touched_at > now:
                sent_at = None if debit.sent_at is None else min(debit.sent_at, now)
                kept[key] = replace(debit, at=min(debit.at, now), sent_at=sent_at)
        look_up = None if self.look_up is None else replace(self.look_up, at=min(self.look_up.at, now))
        return Ledger(look_up, kept, {bucket: slot.tidied(now) for bucket, slot in self.slots.items()})

    def reconciled(self, limit: StartLimit, *, at: float, now: float) -> Ledger:
        """Apply a look-up made at ``at``, and count what others have spent.

        Only other processes lower ``remaining`` by more than our debits. A look-up that is older than the present one changes
        nothing: another process that shares the ledger was faster. One from the future is older: the clock was set back since.
        """
        tidy = self.tidied(now)
        if self.look_up is not None and at < self.look_up.at <= now:
            return tidy
        foreign = 0
        if tidy.look_up is not None:
            expected = min(tidy.look_up.remaining_at(at), limit.total) - tidy.unsettled
            foreign = max(0, expected - limit.remaining)
        debits = {
            key: replace(debit, settled=debit.settled or debit.settles_at() <= at) for key, debit in tidy.debits.items()
        }
        return Ledger(LookUp(limit, at, foreign), debits, tidy.slots)

    def take(
        self, bucket: int, ticket: str, *, now: float, shard_count: int, spacing: float = SPACING
    ) -> tuple[Ledger, Taken | Later | Refusal]:
        """Pay for ``ticket`` and hold ``bucket``, if both are possible at ``now``."""
        tidy = self.tidied(now)
        decision = tidy.decide(now, shard_count)
        if not isinstance(decision, Grant):
            return tidy, decision
        free_at = tidy.slots.get(bucket, Slot()).free_at(spacing)
        if free_at > now:
            return tidy, Later(free_at - now)
        return tidy.paid(bucket, ticket, now), Taken()

    def paid(self, bucket: int, ticket: str, now: float) -> Ledger:
        """Pay for one IDENTIFY, whatever `decide` says, and hold its bucket unless another ticket does."""
        slot = self.slots.get(bucket, Slot())
        if not slot.holder or slot.held_until <= now:
            slot = replace(slot, holder=ticket, held_until=now + HOLD)
        return replace(self.debited(ticket, now), slots={**self.slots, bucket: slot})

    def debited(self, ticket: str, now: float) -> Ledger:
        """Pay for one IDENTIFY, whatever `decide` says; paying twice for one ticket is paying once."""
        return replace(self, debits={ticket: Debit(now), **self.debits})

    def sent(self, bucket: int, ticket: str, now: float) -> Ledger:
        """Note that the ticket's IDENTIFY was sent at ``now``: no refund any more, and the bucket's spacing counts from here."""
        paid = self.debits.get(ticket, Debit(now))
        debits = {**self.debits, ticket: replace(paid, sent_at=now, settled=False)}
        slot = self.slots.get(bucket, Slot())
        holder = "" if slot.holder == ticket else slot.holder
        after = replace(slot, sent_at=max(slot.sent_at, now), holder=holder)
        return replace(self, debits=debits, slots={**self.slots, bucket: after})

    def refunded(self, bucket: int, ticket: str) -> Ledger:
        """Refund a ticket that was not sent, and release its bucket. Anything else stays, so that a refund never makes budget."""
        paid = self.debits.get(ticket)
        if paid is not None and paid.sent_at is not None:
            return self
        debits = {key: debit for key, debit in self.debits.items() if key != ticket}
        slot = self.slots.get(bucket, Slot())
        freed = {bucket: replace(slot, holder="")} if slot.holder == ticket else {}
        return replace(self, debits=debits, slots={**self.slots, **freed})

    @property
    def unsettled(self) -> int:
        """Return the number of debits that the last look-up may not have counted."""
        return sum(not debit.settled for debit in self.debits.values())

    def spendable(self, now: float, shard_count: int) -> int:
        """Return the IDENTIFYs above the reserve, negative below it. Raises ValueError before the first look-up."""
        look_up = self._known()
        tidy = self.tidied(now)
        by_discord = look_up.remaining_at(now) - tidy.unsettled
        by_us = look_up.limit.total - len(tidy.debits)
        return min(by_discord, by_us) - look_up.limit.reserve(shard_count)

    def trusted_for(self, now: float, shard_count: int) -> float:
        """Return for how many seconds the last look-up can be trusted to leave one IDENTIFY more.

        In that time another process that spends as fast as Discord allows, one per bucket and 5 s, cannot use up what lies above
        the reserve. 0 before the first look-up, and once its window has ended by our clock, which may be wrong.
        """
        if self.look_up is None or self.look_up.window_ended(now):
            return 0.0
        return DISCORDS_SPACING * max(0, self.spendable(now, shard_count)) / self.look_up.limit.max_concurrency

    def decide(self, now: float, shard_count: int) -> Grant | Refusal:
        """Decide whether one more IDENTIFY may be paid for. Raises ValueError before the first look-up."""
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
        """Return what `decide` uses, for people. Raises ValueError before the first look-up."""
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

    def cold_start(self, shard_ids: Collection[int], now: float, shard_count: int) -> ColdStart:
        """Return the cost of identifying ``shard_ids`` of a layout of ``shard_count``, bucket by bucket.

        Raises ValueError before the first look-up.
        """
        buckets = Counter(shard % self._known().limit.max_concurrency for shard in shard_ids)
        rounds = max(buckets.values(), default=0)
        paid = max(0, min(len(shard_ids), self.spendable(now, shard_count)))
        after = self
        for number in range(min(paid, len(shard_ids) - 1)):  # the last one is the one to decide
            after = after.debited(f"cold start {number}", now)
        answer = after.decide(now, shard_count)
        return ColdStart(len(shard_ids), rounds, max(0, rounds - 1) * SPACING, paid, answer)

    def _affordable_at(self, look_up: LookUp, now: float, shard_count: int) -> float:
        """Return when both counts allow one more: after Discord's reset, and when enough of our own debits are a day old."""
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
