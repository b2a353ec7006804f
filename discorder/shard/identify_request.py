"""Request an identify slot for one shard, hold the ticket until it is used, and refund it otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from discorder.errors import DeadlineMissed, DiscorderError, IdentifyBudgetSpent
from discorder.sessions import Refusal, RefusalCause, Ticket
from discorder.statemachine import Task
from discorder.statemachine import triggers as trigger

Admit = Callable[[int], Awaitable[Ticket | Refusal]]


class IdentifyRequest:
    """Make at most one request at a time and post its answer as a trigger."""

    def __init__(self, shard_id: int, admit: Admit) -> None:
        self._shard_id = shard_id
        self._admit = admit
        self._request: asyncio.Task[None] | None = None
        self._ticket: Ticket | None = None

    def request(self, post: Callable[[trigger.Trigger], None]) -> None:
        """Request a ticket from the gate; ``post`` is called with the answer."""
        self._request = asyncio.get_running_loop().create_task(self._ask(post))
        self._request.add_done_callback(lambda request: _report_failure(request, post))

    async def _ask(self, post: Callable[[trigger.Trigger], None]) -> None:
        answer = await self._admit(self._shard_id)
        if isinstance(answer, Refusal):
            kind = trigger.SlotDeferred if answer.cause is RefusalCause.QUEUE else trigger.SlotRefused
            post(kind(answer.until, _as_error(answer)))
            return
        self._ticket = answer
        post(trigger.IdentifySlot())

    def take_ticket(self) -> Ticket:
        """Return the ticket that was granted; it must be used at once."""
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            msg = "the machine asked for an IDENTIFY without a ticket"
            raise DiscorderError(msg)
        return ticket

    def release(self) -> None:
        """Withdraw the request and refund a ticket that was not used. Idempotent."""
        if self._request is not None:
            self._request.cancel()
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.refund()

    async def close(self) -> None:
        """Wait for the end of the request. Call `release` before."""
        if self._request is not None:
            await asyncio.gather(self._request, return_exceptions=True)


def _report_failure(request: asyncio.Task[None], post: Callable[[trigger.Trigger], None]) -> None:
    if not request.cancelled() and (error := request.exception()) is not None:
        post(trigger.TaskFailed(Task.MASTER, error))  # the gate is broken; the connection is given up


def _as_error(refusal: Refusal) -> DiscorderError:
    if refusal.cause is RefusalCause.BUDGET:
        return IdentifyBudgetSpent(refusal.reason, refusal.until)
    return DeadlineMissed(f"no identify slot: {refusal.reason}")
