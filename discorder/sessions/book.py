"""The book: the ledger and the identify slots together, as one value that a store changes in one transaction.

A ticket is taken only when the ledger pays *and* the shard's bucket is free; both are decided on the same reading, so two
processes with one store cannot both be told yes. One IDENTIFY per bucket ``shard_id % max_concurrency`` in 5.25 s, counted
from send to send (gateway-protocol.md §7).

Must not: read a clock, touch a file or wait. Times are POSIX seconds of the wall clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from discorder.sessions.ledger import SPACING, Grant, Ledger, Refusal, StartLimit

HOLD = 15.0  # seconds for which a ticket that was neither sent nor refunded keeps its bucket: its process may have died


@dataclass(frozen=True, slots=True)
class Slot:
    """A bucket: when it last sent an IDENTIFY, and which ticket holds it until when. ``holder`` "" = nobody."""

    sent_at: float = 0.0
    holder: str = ""
    held_until: float = 0.0

    def free_at(self, spacing: float) -> float:
        return max(self.sent_at + spacing, self.held_until if self.holder else 0.0)

    def tidied(self, now: float) -> Slot:
        """Nothing lies in the future: a clock that was set back must not close a bucket for an hour."""
        return replace(self, sent_at=min(self.sent_at, now), held_until=min(self.held_until, now + HOLD))


@dataclass(frozen=True, slots=True)
class Taken:
    """The ticket is paid for and holds its bucket."""


@dataclass(frozen=True, slots=True)
class Later:
    """The bucket is not free yet: ask again in ``seconds``, or sooner, since its holder may give it back."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Book:
    """A value; every operation returns a new one. ``slots`` are keyed by bucket and never mutated."""

    ledger: Ledger = field(default_factory=Ledger)
    slots: Mapping[int, Slot] = field(default_factory=dict)

    def completed_from(self, known: Book) -> Book:
        """This book, unless it was begun anew (no look-up in it): then with what ``known``, an earlier one, holds."""
        if self.ledger.look_up is not None:
            return self
        debits = {**known.ledger.debits, **self.ledger.debits}
        return Book(Ledger(known.ledger.look_up, debits), {**known.slots, **self.slots})

    def reconciled(self, limit: StartLimit, *, at: float, now: float) -> Book:
        """Take over a look-up made at ``at``."""
        return replace(self, ledger=self.ledger.reconciled(limit, at=at, now=now))

    def take(
        self, bucket: int, ticket: str, *, now: float, shard_count: int, spacing: float = SPACING
    ) -> tuple[Book, Taken | Later | Refusal]:
        """Pay for ``ticket`` and hold ``bucket``, if both are possible at ``now``."""
        slot = self.slots.get(bucket, Slot()).tidied(now)
        tidy = Book(self.ledger.tidied(now), {**self.slots, bucket: slot})
        decision = tidy.ledger.decide(now, shard_count)
        if not isinstance(decision, Grant):
            return tidy, decision
        if slot.free_at(spacing) > now:
            return tidy, Later(slot.free_at(spacing) - now)
        held = replace(slot, holder=ticket, held_until=now + HOLD)
        return Book(tidy.ledger.debited(ticket, now), {**tidy.slots, bucket: held}), Taken()

    def sent(self, bucket: int, ticket: str, now: float) -> Book:
        """The IDENTIFY of ``ticket`` went out at ``now``; the spacing counts from here."""
        slot = self.slots.get(bucket, Slot())
        holder = "" if slot.holder == ticket else slot.holder
        slots = {**self.slots, bucket: replace(slot, sent_at=max(slot.sent_at, now), holder=holder)}
        return Book(self.ledger.sent(ticket, now), slots)

    def refunded(self, bucket: int, ticket: str) -> Book:
        """``ticket`` was not used: its money and its bucket are free again. Once it was sent, nothing changes."""
        slot = self.slots.get(bucket, Slot())
        if slot.holder != ticket:
            return replace(self, ledger=self.ledger.refunded(ticket))
        return Book(self.ledger.refunded(ticket), {**self.slots, bucket: replace(slot, holder="")})
