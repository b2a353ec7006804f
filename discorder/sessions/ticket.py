"""The ticket: the right to send one IDENTIFY, and the duty to say what became of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class _State(Enum):
    OPEN = "open"
    SENT = "sent"
    REFUNDED = "refunded"


class Ticket:
    """Paid for, and holding its bucket until `sent` or `refund`; good for 15 s, then others may take the bucket.

    Must not: change the book; it only tells the gate that gave it.
    """

    __slots__ = ("_on_refund", "_on_sent", "_state", "bucket", "id", "shard_id")

    def __init__(
        self,
        shard_id: int,
        bucket: int,
        ticket_id: str,
        *,
        on_sent: Callable[[Ticket], None],
        on_refund: Callable[[Ticket], None],
    ) -> None:
        self.shard_id = shard_id
        self.bucket = bucket
        self.id = ticket_id
        self._state = _State.OPEN
        self._on_sent = on_sent
        self._on_refund = on_refund

    def __repr__(self) -> str:
        return f"Ticket(shard_id={self.shard_id}, bucket={self.bucket}, {self._state.value})"

    def sent(self) -> None:
        """IDENTIFY was written: the bucket's spacing counts from here. Idempotent; RuntimeError after a refund."""
        if self._state is _State.REFUNDED:
            msg = f"the IDENTIFY of shard {self.shard_id} was sent on a ticket that had been refunded"
            raise RuntimeError(msg)
        if self._state is _State.OPEN:
            self._state = _State.SENT
            self._on_sent(self)

    def refund(self) -> None:
        """Give the ticket back. Idempotent; without effect once it was sent."""
        if self._state is _State.OPEN:
            self._state = _State.REFUNDED
            self._on_refund(self)
