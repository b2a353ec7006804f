"""The identify gate: who may send IDENTIFY, and when.

A shard asks with `IdentifyGate.admit` and gets, within 60 s, a `Ticket` that is paid for or a `Refusal` that says until when.
Whether the ledger pays and the bucket is free is decided in the store, so that all processes that share it stand in one line;
here the shards of this process wait for their turn, the lowest shard first (gateway-protocol.md §7).

When the store cannot be used, the gate keeps its own book, and pays only by a look-up that is not older than 30 s.
Must not: send anything, or decide by itself what the ledger decides.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from discorder.clock import Clock, within
from discorder.errors import DiscorderError, StoreUnavailable
from discorder.logs import logger
from discorder.sessions.book import Book, Later, Taken
from discorder.sessions.ledger import SPACING, Refusal, RefusalCause, StartLimit
from discorder.sessions.store import SessionStore
from discorder.sessions.ticket import Ticket

__all__ = ["IdentifyGate", "Ticket"]

T = TypeVar("T")

ANSWER_WITHIN: Final = 60.0  # seconds: nobody holds an idle socket for longer
POLL: Final = 1.0  # seconds: another process may give a bucket back before it is due
STALE: Final = 300.0  # seconds after which a look-up is made anew before an IDENTIFY is paid for
FRESH: Final = 30.0  # seconds for which a look-up is good enough to refuse by, or to do without the store
LOOK_UP_WITHIN: Final = 10.0  # seconds that one look-up may take here, and between two of them
RETRY_AFTER: Final = 30.0  # seconds a shard is sent away for when there is no look-up to decide by
HEAD_START: Final = 30.0  # seconds by which a shard that must queue for long comes back before its turn


@dataclass(slots=True, eq=False)
class _Request:
    """A shard that waits. ``order`` tells apart two requests of one shard."""

    shard_id: int
    order: int
    deadline: float
    withdrawn: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        return self.shard_id, self.order


class IdentifyGate:
    """One per control plane. ``shard_count`` is the whole layout's, for the reserve; `set_limits` may correct it.

    ``look_up`` asks ``GET /gateway/bot`` anew; without it the gate has only what `set_limits` brings. It may raise any
    DiscorderError or OSError: the gate then goes by what it has.
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
        self._store = store
        self._shard_count = shard_count
        self._spacing = spacing
        self._look_up = look_up
        self._limit: StartLimit | None = None
        self._looked_up_at = 0.0  # monotonic, of the answer
        self._asked_at = float("-inf")  # monotonic, of the question
        self._book = Book()  # the last one seen, and the only one while the store cannot be used
        self._owed: list[Callable[[Book], Book]] = []  # changes that the store has not got yet, in order
        self._waiting: list[_Request] = []
        self._order = itertools.count()
        self._away: dict[int, float] = {}  # shards sent away to queue: when they are due back, monotonic
        self._next_send: dict[
            int, float
        ] = {}  # per bucket, monotonic: a jump of the wall clock must not shorten the spacing
        self._sleepers: set[asyncio.Future[None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[StartLimit] | None = None
        self._look_up_turn = asyncio.Lock()
        self._store_turn = asyncio.Lock()
        self._closed = False

    @property
    def book(self) -> Book:
        """The ledger and the slots as this gate last saw them; for the status page."""
        return self._book

    @property
    def waiting(self) -> list[int]:
        """The shards that wait for a ticket, in the order in which they will get one."""
        return [request.shard_id for request in sorted(self._waiting, key=lambda one: one.rank)]

    def set_limits(self, limit: StartLimit, shard_count: int | None = None) -> None:
        """Take over a look-up that was just made. Those who wait for one go on."""
        if shard_count is not None:
            self._shard_count = shard_count
        self._spawn(self._reconcile(limit, self._wall()))

    async def admit(self, shard_id: int) -> Ticket | Refusal:
        """A ticket for one IDENTIFY of ``shard_id``, or a refusal, within 60 s. Cancelling the call withdraws it."""
        request = _Request(shard_id, next(self._order), self._clock.monotonic() + ANSWER_WITHIN)
        self._away.pop(shard_id, None)
        self._waiting.append(request)
        try:
            while True:
                answer = await self._step(request)
                if isinstance(answer, Ticket | Refusal):
                    return answer
                await self._pause(min(answer.seconds, self._left(request)))
        finally:
            request.withdrawn = True
            self._waiting.remove(request)
            self._wake()

    async def flush(self) -> None:
        """Return once every `Ticket.sent`, `Ticket.refund` and `set_limits` so far is in the store, or noted as owed to it."""
        while tasks := tuple(self._tasks):
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(
                tasks
            )  # their callbacks may not have run: awaiting what is done gives nobody a turn

    async def close(self) -> None:
        """Refuse whoever waits, and flush. To be called before the store is closed; idempotent."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        self._wake()
        await self.flush()

    # --- standing in line -----------------------------------------------------------------------------------------------

    async def _step(self, request: _Request) -> Ticket | Refusal | Later:
        """One look at the line: an answer, or how long to wait unless woken."""
        left = self._left(request)
        if self._closed:
            return self._refusal(0.0, "the control plane is stopping", RefusalCause.CLOSED)
        if self._limit is None:
            if left > 0:
                return Later(left)
            return self._refusal(RETRY_AFTER, "GET /gateway/bot has not answered yet", RefusalCause.LOOK_UP)
        bucket = request.shard_id % self._limit.max_concurrency
        before = [one for one in self._waiting if one.rank < request.rank and self._bucket(one.shard_id) == bucket]
        ahead = len(before) + self._coming_back_before(request.shard_id, bucket)
        if left <= 0 or ahead * self._spacing > left:
            return self._send_away(request.shard_id, bucket, ahead)
        if before:
            return Later(left)
        try:
            answer = await within(self._clock, left, self._take(request, bucket))
        except TimeoutError:
            return self._send_away(request.shard_id, bucket, ahead)
        return Later(min(answer.seconds, POLL)) if isinstance(answer, Later) else answer

    def _coming_back_before(self, shard_id: int, bucket: int) -> int:
        """How many that were sent away will stand before ``shard_id``; who is a minute late is not waited for."""
        overdue = self._clock.monotonic() - ANSWER_WITHIN
        self._away = {shard: due for shard, due in self._away.items() if due > overdue}
        return sum(shard < shard_id and self._bucket(shard) == bucket for shard in self._away)

    def _send_away(self, shard_id: int, bucket: int, ahead: int) -> Refusal:
        seconds = max(ahead * self._spacing - HEAD_START, self._spacing)
        self._away[shard_id] = self._clock.monotonic() + seconds
        why = f"{ahead} shards go first" if ahead else "it is in use"
        return self._refusal(
            seconds, f"no turn within {ANSWER_WITHIN:.0f} s in identify bucket {bucket}: {why}", RefusalCause.QUEUE
        )

    def _refusal(self, seconds: float, reason: str, cause: RefusalCause) -> Refusal:
        return Refusal(self._clock.now() + timedelta(seconds=seconds), reason, cause)

    def _bucket(self, shard_id: int) -> int:
        return shard_id % (self._limit.max_concurrency if self._limit else 1)

    def _left(self, request: _Request) -> float:
        return request.deadline - self._clock.monotonic()

    async def _pause(self, seconds: float) -> None:
        """Return after ``seconds``, or as soon as the line has moved."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.add(woken)
        timer = self._clock.call_later(seconds, self._wake)
        try:
            await woken
        finally:
            timer.cancel()
            self._sleepers.discard(woken)

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    # --- paying ---------------------------------------------------------------------------------------------------------

    async def _take(self, request: _Request, bucket: int) -> Ticket | Refusal | Later:
        """`_pay`, in a task of its own: who is cancelled meanwhile gives back what it paid for."""
        paying = self._spawn(self._pay(request, bucket))
        try:
            return await asyncio.shield(paying)
        except asyncio.CancelledError:
            request.withdrawn = True
            paying.add_done_callback(_give_back)
            raise

    async def _pay(self, request: _Request, bucket: int) -> Ticket | Refusal | Later:
        wait = self._next_send.get(bucket, 0.0) - self._clock.monotonic()
        if wait > 0:
            return Later(wait)
        await self._refresh(STALE)
        answer = await self._pay_once(request, bucket)
        if isinstance(answer, Refusal) and await self._refresh(FRESH):
            answer = await self._pay_once(request, bucket)
        return answer

    async def _pay_once(self, request: _Request, bucket: int) -> Ticket | Refusal | Later:
        if request.withdrawn or self._closed:
            return Later(0.0)
        ticket = Ticket(
            request.shard_id, bucket, secrets.token_hex(8), on_sent=self._note_sent, on_refund=self._note_refund
        )
        try:
            outcome = await self._change(lambda book: self._pay_from(book, ticket))
        except StoreUnavailable:
            outcome = await self._pay_without_store(ticket)
        return ticket if isinstance(outcome, Taken) else outcome

    def _pay_from(self, book: Book, ticket: Ticket) -> tuple[Book, Taken | Later | Refusal]:
        """The clock is read here, once the book is ours: what another process wrote meanwhile lies before it."""
        return book.take(
            ticket.bucket, ticket.id, now=self._wall(), shard_count=self._shard_count, spacing=self._spacing
        )

    async def _pay_without_store(self, ticket: Ticket) -> Taken | Later | Refusal:
        await self._refresh(FRESH)
        if self._clock.monotonic() - self._looked_up_at > FRESH:
            reason = "the session store cannot be used, and no fresh GET /gateway/bot says what is left"
            return self._refusal(RETRY_AFTER, reason, RefusalCause.LOOK_UP)
        now = self._wall()
        self._book, outcome = self._pay_from(self._book, ticket)
        if isinstance(outcome, Taken):
            self._owed.append(lambda book: replace(book, ledger=book.ledger.debited(ticket.id, now)))
        return outcome

    def _note_sent(self, ticket: Ticket) -> None:
        self._next_send[ticket.bucket] = self._clock.monotonic() + self._spacing
        now = self._wall()
        self._spawn(self._record(lambda book: book.sent(ticket.bucket, ticket.id, now)))

    def _note_refund(self, ticket: Ticket) -> None:
        self._spawn(self._record(lambda book: book.refunded(ticket.bucket, ticket.id)))

    # --- the look-up ----------------------------------------------------------------------------------------------------

    async def _refresh(self, older_than: float) -> bool:
        """Look up anew if the last answer is older than that, or its reset has passed; True if an answer came."""
        if self._look_up is None:
            return False
        async with self._look_up_turn:
            now = self._clock.monotonic()
            age = now - self._looked_up_at
            reset_passed = self._limit is not None and age * 1000 >= self._limit.reset_after_ms
            if self._closed or (age < older_than and not reset_passed) or now - self._asked_at < LOOK_UP_WITHIN:
                return False
            self._asked_at, asked_at = now, self._wall()
            self._looking = asyncio.ensure_future(within(self._clock, LOOK_UP_WITHIN, self._look_up()))
            await asyncio.wait({self._looking})
            looking, self._looking = self._looking, None
            if looking.cancelled():
                return False
            error = looking.exception()
            if error is None:
                await self._reconcile(looking.result(), asked_at)
                return True
            if not isinstance(error, DiscorderError | OSError):  # TimeoutError is an OSError
                raise error
            logger.info("Could not look up the identify budget", error=str(error))
            return False

    async def _reconcile(self, limit: StartLimit, at: float) -> None:
        """``at``: wall time at which Discord was asked."""

        def reconciled(book: Book) -> Book:
            return book.reconciled(limit, at=at, now=self._wall())

        try:
            await self._change(lambda book: (reconciled(book), None))
        except StoreUnavailable:
            self._book = reconciled(self._book)
        self._limit = limit
        self._looked_up_at = self._clock.monotonic()
        look_up = self._book.ledger.look_up
        if look_up is not None and look_up.foreign:
            logger.warning("Another process uses this token", identifies=look_up.foreign, remaining=limit.remaining)
        self._wake()

    # --- the book -------------------------------------------------------------------------------------------------------

    async def _record(self, change: Callable[[Book], Book]) -> None:
        """Make a change that must not get lost: the store gets it later if it cannot be used now."""
        try:
            await self._change(lambda book: (change(book), None))
        except StoreUnavailable:
            self._book = change(self._book)
            self._owed.append(change)
        self._wake()

    async def _change(self, change: Callable[[Book], tuple[Book, T]]) -> T:
        """Change the store's book, what is owed to it first. Raises StoreUnavailable, and then nothing was changed."""
        async with self._store_turn:
            owed = tuple(self._owed)

            def whole(book: Book) -> tuple[Book, tuple[Book, T]]:
                for debt in owed:
                    book = debt(book)
                after, result = change(book)
                return after, (after, result)

            self._book, result = await self._store.transact(whole)
            del self._owed[: len(owed)]
            return result

    def _wall(self) -> float:
        return self._clock.now().timestamp()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _give_back(paying: asyncio.Task[Ticket | Refusal | Later]) -> None:
    if not paying.cancelled() and paying.exception() is None and isinstance(ticket := paying.result(), Ticket):
        ticket.refund()
