"""A ticket reports once what became of it."""

from __future__ import annotations

import pytest

from discorder.sessions import Ticket


class Heard:
    """A ticket, with its reports."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ticket = Ticket(3, 1, "t", on_sent=self.sent, on_refund=self.refunded)

    def sent(self, ticket: Ticket) -> None:
        self.said.append(f"sent {ticket.id}")

    def refunded(self, ticket: Ticket) -> None:
        self.said.append(f"refunded {ticket.id}")


def test_what_was_sent_is_told_once_and_never_given_back() -> None:
    it = Heard()
    it.ticket.sent()
    it.ticket.sent()
    it.ticket.refund()
    assert it.said == ["sent t"]
    assert repr(it.ticket) == "Ticket(shard_id=3, bucket=1, sent)"


def test_what_was_given_back_is_told_once_and_must_not_be_sent() -> None:
    it = Heard()
    it.ticket.refund()
    it.ticket.refund()
    with pytest.raises(RuntimeError, match="shard 3 was sent on a ticket that had been refunded"):
        it.ticket.sent()
    assert it.said == ["refunded t"]
    assert repr(it.ticket) == "Ticket(shard_id=3, bucket=1, refunded)"
