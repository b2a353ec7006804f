"""One shard and the identify gate: a ticket that was granted and not used is refunded, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from discorder.clock import settle_loop
from discorder.errors import DeadlineMissed, DiscorderError, IdentifyBudgetSpent
from discorder.sessions import Refusal, RefusalCause, Ticket
from discorder.shard.identify_request import IdentifyRequest
from discorder.statemachine import Task
from discorder.statemachine.triggers import IdentifySlot, SlotDeferred, SlotRefused, TaskFailed, Trigger


class Gate:
    """A gate that grants at once and records what becomes of the ticket."""

    def __init__(self) -> None:
        self.sent: list[Ticket] = []
        self.refunded: list[Ticket] = []
        self.ticket = Ticket(0, 0, "paid for", on_sent=self.sent.append, on_refund=self.refunded.append)

    async def admit(self, _: int) -> Ticket:
        return self.ticket


async def test_a_ticket_that_comes_when_the_connection_is_given_up_is_refunded_once() -> None:
    """The ticket is in the inbox behind the report that ends the connection, so that no IDENTIFY uses it."""
    gate, posted = Gate(), list[Trigger]()
    slot = IdentifyRequest(0, gate.admit)
    slot.request(posted.append)
    await settle_loop()
    assert posted == [IdentifySlot()]
    slot.release()
    slot.release()
    assert gate.refunded == [gate.ticket]
    with pytest.raises(DiscorderError, match="without a ticket"):
        slot.take_ticket()


@pytest.mark.parametrize("cause", RefusalCause)
async def test_only_a_gate_with_others_to_serve_first_sends_a_shard_to_the_back_of_the_line(
    cause: RefusalCause,
) -> None:
    """All other refusals are failures under fail_on_error."""
    refusal, posted = Refusal(datetime.now(UTC), "not now", cause), list[Trigger]()

    async def admit(_: int) -> Refusal:
        return refusal

    slot = IdentifyRequest(0, admit)
    slot.request(posted.append)
    await settle_loop()
    (answer,) = posted
    assert isinstance(answer, SlotDeferred if cause is RefusalCause.QUEUE else SlotRefused)
    assert answer.until == refusal.until
    assert "not now" in str(answer.error)
    assert isinstance(answer.error, IdentifyBudgetSpent if cause is RefusalCause.BUDGET else DeadlineMissed)


async def test_a_ticket_that_is_used_is_not_refunded() -> None:
    """Its IDENTIFY may be on its way."""
    gate = Gate()
    slot = IdentifyRequest(0, gate.admit)
    slot.request(lambda _: None)
    await settle_loop()
    slot.take_ticket().sent()
    slot.release()
    await slot.close()
    assert (gate.sent, gate.refunded) == ([gate.ticket], [])


async def test_a_gate_that_breaks_ends_the_connection() -> None:
    """Otherwise the failure would be unnoticed, and the shard would wait for its deadline."""
    error, posted = OSError(28, "No space left on device"), list[Trigger]()

    async def admit(_: int) -> Ticket:
        raise error

    slot = IdentifyRequest(0, admit)
    slot.request(posted.append)
    await settle_loop()
    assert posted == [TaskFailed(Task.MASTER, error)]


async def test_a_request_that_is_withdrawn_is_gone_when_the_slot_is_closed_and_says_nothing() -> None:
    """The gate may take a moment to withdraw it."""
    posted, broken, steps = list[Trigger](), list[object](), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))

    async def admit(_: int) -> Ticket:
        try:
            await asyncio.Event().wait()
        finally:
            await settle_loop(3)
            steps.append("withdrawn")
        raise AssertionError

    slot = IdentifyRequest(0, admit)
    slot.request(posted.append)
    await settle_loop()
    slot.release()
    await slot.close()
    await settle_loop()
    assert (steps, posted, broken) == (["withdrawn"], [], [])
