"""The identify gate: who may send IDENTIFY, and when.

A shard asks with `IdentifyGate.admit` and gets, within 60 s, a `Ticket` that is paid for or a `Refusal` that says until when.
Whether the ledger pays and the bucket is free is decided in the store, so that all processes that share it stand in one line;
here the shards of this process wait for their turn, the lowest shard first (gateway-protocol.md §7).

When the store cannot be used, the gate keeps its own book, and pays only by a look-up that is not older than 30 s.
Must not: send anything, or decide by itself what the ledger decides.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from discorder.clock import Clock, within
from discorder.errors import StoreUnavailable
from discorder.logs import logger
from discorder.sessions.allowance import Allowance, OtherUse
from discorder.sessions.book import Book, Later, Taken
from discorder.sessions.bookkeeper import Bookkeeper
from discorder.sessions.ledger import SPACING, Budget, Refusal, RefusalCause, StartLimit
from discorder.sessions.line import Line, Request
from discorder.sessions.store import SessionStore
from discorder.sessions.ticket import Ticket

__all__ = ["IdentifyGate", "Ticket"]

T = TypeVar("T")

ANSWER_WITHIN: Final = 60.0  # seconds: nobody holds an idle socket for longer
POLL: Final = 1.0  # seconds: another process may give a bucket back before it is due
STALE: Final = 300.0  # seconds after which a look-up is made anew before an IDENTIFY is paid for, at the latest
FRESH: Final = 30.0  # seconds for which a look-up is good enough to refuse by, or to do without the store
RETRY_AFTER: Final = 30.0  # seconds a shard is sent away for when there is no look-up to decide by
HEAD_START: Final = 30.0  # seconds by which a shard that must queue for long comes back before its turn


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
        self._keeper = Bookkeeper(store)
        self._allowance = Allowance(clock, self._keeper, look_up)
        self._line = Line(clock)
        self._next_send: dict[int, float] = {}  # per bucket, monotonic: a jump of the wall clock must not shorten it
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def book(self) -> Book:
        """The ledger and the slots as this gate last saw them; for the status page."""
        return self._keeper.book

    @property
    def budget(self) -> Budget | None:
        """What the ledger says now, as far as this gate has seen it; None before the first look-up."""
        ledger = self.book.ledger
        return None if ledger.look_up is None else ledger.budget(self._wall(), self._shard_count)

    @property
    def other_use(self) -> OtherUse | None:
        """IDENTIFYs of this bot that no process with this store has paid for; None while none was noticed."""
        return self._allowance.other_use

    @property
    def waiting(self) -> list[int]:
        """The shards that wait for a ticket, in the order in which they will get one."""
        return self._line.waiting

    def seconds_to_identify(self, shard_ids: Iterable[int]) -> float | None:
        """Seconds until the last of ``shard_ids`` can send, bucket by bucket; None before the first look-up."""
        if not self._line.is_open:
            return None
        now, longest = self._clock.monotonic(), 0.0
        for bucket, count in Counter(map(self._line.bucket, shard_ids)).items():
            first = max(0.0, self._next_send.get(bucket, 0.0) - now)
            longest = max(longest, first + (count - 1) * self._spacing)
        return longest

    def set_limits(self, limit: StartLimit, shard_count: int | None = None) -> None:
        """Take over a look-up that was just made. Those who wait for one go on."""
        if shard_count is not None:
            self._shard_count = shard_count
        self._line.set_concurrency(limit.max_concurrency)
        self._spawn(self._heard(limit, self._wall()))

    async def admit(self, shard_id: int) -> Ticket | Refusal:
        """A ticket for one IDENTIFY of ``shard_id``, or a refusal, within 60 s. Cancelling the call withdraws it."""
        request = self._line.enter(shard_id, ANSWER_WITHIN)
        try:
            while True:
                request.woken.clear()  # before the look: what changes during it must not be slept over
                answer = await self._step(request)
                if isinstance(answer, Ticket | Refusal):
                    return answer
                await self._line.pause(request, min(answer.seconds, self._left(request)))
        finally:
            self._line.leave(request)

    async def flush(self) -> None:
        """Return once every `Ticket.sent`, `Ticket.refund` and `set_limits` so far is in the store, or noted as owed to it."""
        while tasks := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Refuse whoever waits, and flush. To be called before the store is closed; idempotent."""
        self._closed = True
        self._allowance.close()
        self._line.wake_all()
        await self.flush()

    # --- standing in line -----------------------------------------------------------------------------------------------

    async def _step(self, request: Request) -> Ticket | Refusal | Later:
        """One look at the line: an answer, or how long to wait unless woken."""
        left = self._left(request)
        if self._closed:
            return self._refusal(0.0, "the control plane is stopping", RefusalCause.CLOSED)
        if self._allowance.limit is None:
            if left > 0:
                return Later(left)
            return self._refusal(RETRY_AFTER, "GET /gateway/bot has not answered yet", RefusalCause.LOOK_UP)
        bucket = self._line.bucket(request.shard_id)
        before = self._line.before(request)
        ahead = before + self._line.coming_back_before(request.shard_id)
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
        self._line.send_away(shard_id, seconds)
        why = f"{ahead} shards go first" if ahead else "it is in use"
        return self._refusal(
            seconds, f"no turn within {ANSWER_WITHIN:.0f} s in identify bucket {bucket}: {why}", RefusalCause.QUEUE
        )

    def _refusal(self, seconds: float, reason: str, cause: RefusalCause) -> Refusal:
        return Refusal(self._clock.now() + timedelta(seconds=seconds), reason, cause)

    def _left(self, request: Request) -> float:
        return request.deadline - self._clock.monotonic()

    # --- paying ---------------------------------------------------------------------------------------------------------

    async def _take(self, request: Request, bucket: int, seconds: float) -> Ticket | Refusal | Later:
        """`_pay`, in a task of its own: who is cancelled meanwhile, or out of time, gives back what it paid for.

        Raises TimeoutError after ``seconds``. No task stands between here and the caller of `admit`: a cancellation in the very
        turn in which the ticket comes would lose it there.
        """
        paying = self._spawn(self._pay(request, bucket))
        try:
            return await within(self._clock, seconds, asyncio.shield(paying))
        except (TimeoutError, asyncio.CancelledError):  # `admit` withdraws the request before `paying` has a turn
            if paying.done():
                _give_back(paying)
            raise

    async def _pay(self, request: Request, bucket: int) -> Ticket | Refusal | Later:
        """One attempt. The refund for who has gone meanwhile belongs to it, so that `flush` waits for both."""
        answer = await self._attempt(request, bucket)
        if request.withdrawn and isinstance(answer, Ticket):
            answer.refund()
        return answer

    async def _attempt(self, request: Request, bucket: int) -> Ticket | Refusal | Later:
        wait = self._next_send.get(bucket, 0.0) - self._clock.monotonic()
        if wait > 0:
            return Later(wait)
        vouched_for = self.book.ledger.vouched_for(self._wall(), self._shard_count)
        await self._refresh(min(STALE, vouched_for))
        answer = await self._pay_once(request, bucket)
        if isinstance(answer, Refusal) and await self._refresh(FRESH):
            answer = await self._pay_once(request, bucket)
        return answer

    async def _pay_once(self, request: Request, bucket: int) -> Ticket | Refusal | Later:
        if request.withdrawn or self._closed:
            return Later(0.0)
        ticket = Ticket(
            request.shard_id, bucket, secrets.token_hex(8), on_sent=self._note_sent, on_refund=self._note_refund
        )
        try:
            outcome = await self._keeper.change(lambda book: self._pay_from(book, ticket))
        except StoreUnavailable:
            outcome = await self._pay_without_store(ticket)
        return ticket if isinstance(outcome, Taken) else outcome

    def _pay_from(self, book: Book, ticket: Ticket) -> tuple[Book, Taken | Later | Refusal]:
        """The clock is read here, once the book is ours: what another process wrote meanwhile lies before it."""
        return book.take(
            ticket.bucket, ticket.id, now=self._wall(), shard_count=self._shard_count, spacing=self._spacing
        )

    async def _pay_without_store(self, ticket: Ticket) -> Taken | Later | Refusal:
        if self._allowance.age > FRESH:
            reason = "the session store cannot be used, and no fresh GET /gateway/bot says what is left"
            return self._refusal(RETRY_AFTER, reason, RefusalCause.LOOK_UP)
        now = self._wall()
        self._keeper.book, outcome = self._pay_from(self._keeper.book, ticket)
        if isinstance(outcome, Taken):
            self._keeper.owe(lambda book: replace(book, ledger=book.ledger.debited(ticket.id, now)))
        return outcome

    def _note_sent(self, ticket: Ticket) -> None:
        self._next_send[ticket.bucket] = self._clock.monotonic() + self._spacing
        now = self._wall()
        self._spawn(self._record(ticket.bucket, lambda book: book.sent(ticket.bucket, ticket.id, now)))

    def _note_refund(self, ticket: Ticket) -> None:
        self._spawn(self._record(ticket.bucket, lambda book: book.refunded(ticket.bucket, ticket.id)))

    async def _heard(self, limit: StartLimit, at: float) -> None:
        await self._allowance.heard(limit, at)
        self._line.wake_all()

    async def _refresh(self, older_than: float) -> bool:
        """See `Allowance.refresh`; True if an answer came."""
        limit = await self._allowance.refresh(older_than)
        if limit is None:
            return False
        self._line.set_concurrency(limit.max_concurrency)
        self._line.wake_all()
        return True

    async def _record(self, bucket: int, change: Callable[[Book], Book]) -> None:
        await self._keeper.record(change)
        self._line.wake(bucket)

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
