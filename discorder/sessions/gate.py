"""Decide which shard may send IDENTIFY, and when (docs/protocol.md#session-start-limit).

A shard calls `IdentifyGate.admit` and gets, within 60 s, a `Ticket` that is paid for or a `Refusal` that says until when. The
ledger decides, in a transaction of the store, so that all processes that share it keep the limits together. The shards of this
process wait here for their turn, the lowest first.

While the store cannot be used, the gate pays only by a look-up that is not older than 30 s, and the store gets the debit later.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from enum import Enum
from typing import Any, Final, TypeVar

from discorder.clock import Clock, within
from discorder.errors import StoreUnavailable
from discorder.logs import logger
from discorder.sessions.identify_budget import (
    Budget,
    IdentifyQueue,
    Later,
    Refusal,
    RefusalCause,
    StartLimit,
    Taken,
)
from discorder.sessions.ledger import SPACING, Ledger
from discorder.sessions.start_limit import Allowance, OtherUse
from discorder.sessions.store import SessionStore
from discorder.sessions.wait_queue import WaitingShard, WaitQueue

T = TypeVar("T")

ANSWER_WITHIN: Final = 60.0  # seconds: no shard keeps an idle socket for longer
POLL: Final = 1.0  # seconds: another process may release a bucket before it is due
STALE: Final = 300.0  # seconds after which, at the latest, the look-up is repeated before an IDENTIFY is paid for
FRESH: Final = 30.0  # seconds for which a look-up is good enough to refuse, or to pay without the store
RETRY_AFTER: Final = 30.0  # seconds for which a shard is sent away when there is no look-up to decide by
HEAD_START: Final = 30.0  # seconds by which a shard that must queue for long comes back before its turn


class _TicketState(Enum):
    OPEN = "open"
    SENT = "sent"
    REFUNDED = "refunded"


class Ticket:
    """The right to send one IDENTIFY, and the duty to report what became of it: `sent` or `refund`.

    It is paid for, and holds its bucket for 15 s; then others may take the bucket.
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
        self._state = _TicketState.OPEN
        self._on_sent = on_sent
        self._on_refund = on_refund

    def __repr__(self) -> str:
        return f"Ticket(shard_id={self.shard_id}, bucket={self.bucket}, {self._state.value})"

    def sent(self) -> None:
        """Report that IDENTIFY was sent: the bucket's spacing counts from here. Idempotent; RuntimeError after a refund."""
        if self._state is _TicketState.REFUNDED:
            msg = f"the IDENTIFY of shard {self.shard_id} was sent on a ticket that had been refunded"
            raise RuntimeError(msg)
        if self._state is _TicketState.OPEN:
            self._state = _TicketState.SENT
            self._on_sent(self)

    def refund(self) -> None:
        """Return the IDENTIFY unused. Idempotent; without effect once it was sent."""
        if self._state is _TicketState.OPEN:
            self._state = _TicketState.REFUNDED
            self._on_refund(self)


class IdentifyGate:
    """One per control plane. ``shard_count`` is the whole layout's, for the reserve; `set_limits` may correct it.

    ``look_up`` asks ``GET /gateway/bot`` anew; see `Allowance`.
    """

    def __init__(
        self,
        clock: Clock,
        store: SessionStore,
        *,
        shard_count: int = 1,
        spacing: float = SPACING,
        look_up: Callable[[], Awaitable[StartLimit]] | None = None,
    ) -> None:
        self._clock = clock
        self._shard_count = shard_count
        self._spacing = spacing
        self._store = store
        self._allowance = Allowance(clock, store, look_up)
        self._queue = WaitQueue(clock)
        self._next_send: dict[int, float] = {}  # per bucket, monotonic: a jump of the wall clock must not shorten it
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def budget(self) -> Budget | None:
        """Return the budget by the ledger as this process last saw it; None before the first look-up."""
        ledger = self._store.ledger
        return None if ledger.look_up is None else ledger.budget(self._wall(), self._shard_count)

    @property
    def other_use(self) -> OtherUse | None:
        """Return the IDENTIFYs of this bot that no process with this store has paid for; None while none was noticed."""
        return self._allowance.other_use

    @property
    def waiting(self) -> list[int]:
        """Return the shards that wait for a ticket, in the order in which they get one."""
        return self._queue.waiting

    def seconds_to_identify(self, shard_ids: Iterable[int]) -> float | None:
        """Return the seconds until the last of ``shard_ids`` can send, bucket by bucket; None before the first look-up."""
        if not self._queue.is_open:
            return None
        now, longest = self._clock.monotonic(), 0.0
        for bucket, count in Counter(map(self._queue.bucket, shard_ids)).items():
            first = max(0.0, self._next_send.get(bucket, 0.0) - now)
            longest = max(longest, first + (count - 1) * self._spacing)
        return longest

    @property
    def identify_queue(self) -> IdentifyQueue:
        """Return the shards that wait, with the estimate for each by its place in its bucket's queue."""
        if not self._queue.is_open:
            return IdentifyQueue(None, {})
        now, turns, ahead = self._clock.monotonic(), dict[int, float](), Counter[int]()
        for shard in self._queue.waiting:
            bucket = self._queue.bucket(shard)
            turns[shard] = max(0.0, self._next_send.get(bucket, 0.0) - now) + ahead[bucket] * self._spacing
            ahead[bucket] += 1
        return IdentifyQueue(self._queue.concurrency, turns)

    def set_limits(self, limit: StartLimit, shard_count: int | None = None) -> None:
        """Apply a look-up that was just made, and wake the shards that wait for one."""
        if shard_count is not None:
            self._shard_count = shard_count
        self._queue.set_concurrency(limit.max_concurrency)
        self._spawn(self._accept(limit, self._wall()))

    async def admit(self, shard_id: int) -> Ticket | Refusal:
        """Return a ticket for one IDENTIFY of ``shard_id``, or a refusal, within 60 s. Cancelling it withdraws the request."""
        request = self._queue.enter(shard_id, ANSWER_WITHIN)
        try:
            while True:
                request.woken.clear()  # before the check: a change during it must wake the request
                answer = await self._step(request)
                if isinstance(answer, Ticket | Refusal):
                    return answer
                await self._queue.pause(request, min(answer.seconds, self._left(request)))
        finally:
            self._queue.leave(request)

    async def flush(self) -> None:
        """Return once every `set_limits` and payment so far is in the store, or recorded for it."""
        while tasks := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Refuse every waiting request, and flush. Call it before the store is closed. Idempotent."""
        self._closed = True
        self._allowance.close()
        self._queue.wake_all()
        await self.flush()

    # --- waiting --------------------------------------------------------------------------------------------------------

    async def _step(self, request: WaitingShard) -> Ticket | Refusal | Later:
        """Check the queue once. Returns an answer, or how long to wait unless woken."""
        left = self._left(request)
        if self._closed:
            return self._refusal(0.0, "the control plane is stopping", RefusalCause.CLOSED)
        if self._allowance.limit is None:
            if left > 0:
                return Later(left)
            return self._refusal(RETRY_AFTER, "GET /gateway/bot has not answered yet", RefusalCause.LOOK_UP)
        bucket = self._queue.bucket(request.shard_id)
        before = self._queue.before(request)
        ahead = before + self._queue.coming_back_before(request.shard_id)
        if ahead * self._spacing >= left:
            return self._send_away(request.shard_id, bucket, ahead)
        if before:
            return Later(left)
        try:
            answer = await self._take(request, bucket, left)
        except TimeoutError:
            return self._send_away(request.shard_id, bucket, ahead)
        return Later(min(answer.seconds, POLL)) if isinstance(answer, Later) else answer

    def _send_away(self, shard_id: int, bucket: int, ahead: int) -> Refusal:
        seconds = max(ahead * self._spacing - HEAD_START, self._spacing)
        self._queue.send_away(shard_id, seconds)
        why = f"{ahead} shards go first" if ahead else "it is in use"
        return self._refusal(
            seconds, f"no turn within {ANSWER_WITHIN:.0f} s in identify bucket {bucket}: {why}", RefusalCause.QUEUE
        )

    def _refusal(self, seconds: float, reason: str, cause: RefusalCause) -> Refusal:
        return Refusal(self._clock.now() + timedelta(seconds=seconds), reason, cause)

    def _left(self, request: WaitingShard) -> float:
        return request.deadline - self._clock.monotonic()

    # --- paying ---------------------------------------------------------------------------------------------------------

    async def _take(self, request: WaitingShard, bucket: int, seconds: float) -> Ticket | Refusal | Later:
        """Pay in a task of its own. On cancellation or timeout, refund the ticket.

        Raises TimeoutError after ``seconds``. There is no task between here and the caller of `admit`: a cancellation in the
        very turn in which the ticket comes would lose it there.
        """
        paying = self._spawn(self._pay(request, bucket))
        try:
            return await within(self._clock, seconds, asyncio.shield(paying))
        except (TimeoutError, asyncio.CancelledError):  # `admit` withdraws the request before `paying` has a turn
            if paying.done():
                _give_back(paying)
            raise

    async def _pay(self, request: WaitingShard, bucket: int) -> Ticket | Refusal | Later:
        """Try to pay once, and refund a request that was withdrawn meanwhile, so that `flush` waits for both."""
        answer = await self._attempt(request, bucket)
        if request.withdrawn and isinstance(answer, Ticket):
            answer.refund()
        return answer

    async def _attempt(self, request: WaitingShard, bucket: int) -> Ticket | Refusal | Later:
        wait = self._next_send.get(bucket, 0.0) - self._clock.monotonic()
        if wait > 0:
            return Later(wait)
        trusted_for = self._store.ledger.trusted_for(self._wall(), self._shard_count)
        await self._refresh(min(STALE, trusted_for))
        answer = await self._pay_once(request, bucket)
        if isinstance(answer, Refusal) and await self._refresh(FRESH):
            answer = await self._pay_once(request, bucket)
        return answer

    async def _pay_once(self, request: WaitingShard, bucket: int) -> Ticket | Refusal | Later:
        if request.withdrawn or self._closed:
            return Later(0.0)
        ticket = Ticket(
            request.shard_id, bucket, secrets.token_hex(8), on_sent=self._note_sent, on_refund=self._note_refund
        )
        try:
            outcome = await self._store.transact(lambda ledger: self._pay_from(ledger, ticket))
        except StoreUnavailable:
            outcome = self._pay_without_store(ticket)
        return ticket if isinstance(outcome, Taken) else outcome

    def _pay_from(self, ledger: Ledger, ticket: Ticket) -> tuple[Ledger, Taken | Later | Refusal]:
        """Read the clock inside the transaction: what another process wrote meanwhile lies before it."""
        return ledger.take(
            ticket.bucket, ticket.id, now=self._wall(), shard_count=self._shard_count, spacing=self._spacing
        )

    def _pay_without_store(self, ticket: Ticket) -> Taken | Later | Refusal:
        if self._allowance.age > FRESH:
            reason = "the session store cannot be used, and no fresh GET /gateway/bot says what is left"
            return self._refusal(RETRY_AFTER, reason, RefusalCause.LOOK_UP)
        now = self._wall()
        _, outcome = self._pay_from(self._store.ledger, ticket)
        if isinstance(outcome, Taken):
            self._store.record(lambda ledger: ledger.paid(ticket.bucket, ticket.id, now))
        return outcome

    def _note_sent(self, ticket: Ticket) -> None:
        self._next_send[ticket.bucket] = self._clock.monotonic() + self._spacing
        now = self._wall()
        self._record(ticket, lambda ledger: ledger.sent(ticket.bucket, ticket.id, now))

    def _note_refund(self, ticket: Ticket) -> None:
        self._record(ticket, lambda ledger: ledger.refunded(ticket.bucket, ticket.id))

    async def _accept(self, limit: StartLimit, at: float) -> None:
        await self._allowance.accept(limit, at)
        self._queue.wake_all()

    async def _refresh(self, older_than: float) -> bool:
        """Look up again, see `Allowance.refresh`. Returns True if an answer came."""
        limit = await self._allowance.refresh(older_than)
        if limit is None:
            return False
        self._queue.set_concurrency(limit.max_concurrency)
        self._queue.wake_all()
        return True

    def _record(self, ticket: Ticket, change: Callable[[Ledger], Ledger]) -> None:
        self._store.record(change)
        self._queue.wake(ticket.bucket)

    def _wall(self) -> float:
        return self._clock.now().timestamp()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("The identify gate failed", error=repr(error))


def _give_back(paying: asyncio.Task[Ticket | Refusal | Later]) -> None:
    if not paying.cancelled() and paying.exception() is None and isinstance(ticket := paying.result(), Ticket):
        ticket.refund()
