"""Deliver events to one publisher: its queue, its task, its failures.

While a publisher with ``publish_nowait`` works, events go directly to it. All others wait in the queue for the delivery task.

`DeliveryQueue` has the common part of both kinds: opening, retries with back-off, closing, health. `best_effort` and `lossless`
decide what happens to an event without room, and to one that fails again and again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import index

from discorder.clock import Clock, Timer
from discorder.errors import DiscorderError, Fenced, PublisherError, PublisherUnreachable
from discorder.publishers.delivery.bounded_queue import BoundedQueue
from discorder.publishers.delivery.contained import contained
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.publishers.delivery.isolation import IsolatedPublisher, as_failure, describe, isolated, stop
from discorder.publishers.delivery.keep_running import succeeds
from discorder.publishers.options import DeliveryOptions, selector, wants_record
from discorder.publishers.protocol import NonBlockingPublisher, Publisher
from discorder.wire import Event, StreamPosition

BATCH_EVENTS = 256
BATCH_BYTES = 1_048_576  # of data; a larger event goes alone
RESTART_AFTER = 1.0  # seconds until a delivery task that ended by itself is restarted

logger = logging.getLogger(__name__)


class DeliveryQueue(ABC):
    """Offer events to one publisher without raising or waiting. Call all methods on the loop."""

    def __init__(
        self, publisher: Publisher, name: str, options: DeliveryOptions, clock: Clock, *, patience: float
    ) -> None:
        """Create a queue; `_persist` retries for ``patience`` seconds."""
        self.publisher = publisher
        self.name = name
        self._calls = IsolatedPublisher(publisher, name, clock)
        self._options = options
        self._clock = clock
        self._patience = patience
        self._select = selector(options.events)
        self._all_records = bool(getattr(publisher, "all_records", False))
        self._queue = BoundedQueue(name, options.policy, max_events=options.max_events, max_bytes=options.max_bytes)
        self._fenced: set[int] = set()  # ids of shards whose events another process publishes
        self._in_hand: tuple[Event, ...] = ()  # a tuple, because the publisher gets it and could change a list
        self._state = PublisherState.OPENING
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._passed = asyncio.Event()  # set for a moment when a batch is finished
        self._task: asyncio.Task[None] | None = None
        self._restart: Timer | None = None
        self._opened = False
        self._nowait = _publish_nowait_of(publisher, name)
        self._most_in_line = int(getattr(publisher, "most_in_line", sys.maxsize))
        self._direct = False  # call publish_nowait directly: the publisher is healthy and nothing waits for it
        self._trying_since: float | None = None  # monotonic seconds of the first attempt since the last success
        self._accepted = self._dropped = self._failures = 0
        self._last_error = ""

    async def open(self) -> None:
        """Open the publisher now, or in the background if its server cannot be reached.

        Raises a `DiscorderError`, also if opening takes longer than ``give_up_after``.
        """
        try:
            await self._open_once()
        except PublisherUnreachable as error:
            self._note_failure(error)
            self._start()
            return
        except DiscorderError:
            raise
        except Exception as error:
            msg = f"publisher {self.name} could not be opened: {describe(error)}"
            raise PublisherError(msg) from error
        self._note_success()
        self._rest_if_empty()
        self._start()

    def open_in_background(self) -> None:
        """Open the publisher in its task, with retries; events wait in the queue meanwhile."""
        self._start()

    @abstractmethod
    def offer(self, events: Sequence[Event]) -> None:
        """Publish or queue a batch of one shard and session, without events that were offered before. Never raises or waits."""

    def offer_record(self, record: Event) -> None:
        """Publish or queue one of the control plane's own records, if the publisher wants it. Never raises or waits."""
        wanted = wants_record(self._options.events, record.type, all_records=self._all_records)
        if wanted and record.shard[0] not in self._fenced:
            self._take_record(record)

    def adopt(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """Begin ``shard`` (id, count) anew after ``seq`` of ``session``, which an earlier process delivered. Never raises.

        Remove what is left of an earlier ownership of the shard.
        """
        self.release(shard[0])
        self._set_position(shard[0], StreamPosition(session, seq))
        try:
            self._calls.goes_on(shard, session, seq)
        except Exception as error:  # noqa: BLE001  # isolate publisher failures
            self._note_failure(error)

    @abstractmethod
    def _set_position(self, shard: int, position: StreamPosition) -> None:
        """Note that all events of ``shard`` up to ``position`` were offered and accepted."""

    @abstractmethod
    def mark(self, shard: int) -> StreamPosition | None:
        """Return the last event of ``shard`` that was offered; None before the first."""

    @abstractmethod
    def is_behind(self, shard: int) -> bool:
        """Return whether an event or a gap of ``shard`` was taken and is not accepted yet."""

    async def wait_until_idle(self, shard: int | None = None) -> None:
        """Wait until no item of ``shard`` (None: of any shard) is left for the publisher, or it is parked."""
        if shard is None:
            await self._idle.wait()
            return
        while self.is_behind(shard) and not self._idle.is_set():
            await self._passed.wait()

    def release(self, shard: int) -> int:
        """Remove the events of ``shard``, which another process delivers from now on; return their number.

        They count as neither accepted nor dropped. A batch that is being published may still be accepted as a whole; if not, it
        is offered again without them.
        """
        self._fenced.discard(shard)
        released = self._queue.release(shard)
        kept = tuple(event for event in self._in_hand if event.shard[0] != shard)
        released += count_events(self._in_hand) - count_events(kept)
        self._in_hand = kept
        self._passed.set()
        self._passed.clear()
        return released

    @abstractmethod
    def retire(self) -> None:
        """Expect no more events; publish the waiting ones until `close`."""

    async def close(self) -> None:
        """Stop the task and close the publisher, each in bounded time, and drop the queued events. Idempotent."""
        if self._state is PublisherState.CLOSED:
            return
        self._state = PublisherState.CLOSED
        self._direct = False
        if self._restart is not None:
            self._restart.cancel()
        await stop(self.name, self._clock, (self._task, self._calls.opening))
        self._dropped += self._queue.clear() + count_events(self._in_hand)
        self._in_hand = ()
        self._idle.set()
        self._passed.set()
        await self._calls.close()

    @property
    def health(self) -> PublisherHealth:
        """Return state, counts and last error, for the tracker."""
        in_hand = self._in_hand
        oldest = next((event for event in in_hand if event.seq is not None), self._queue.oldest)
        lag = 0.0 if oldest is None else max(0.0, (self._clock.now() - oldest.received_at).total_seconds())
        dropped_inside, gaps_inside = self._buffer_counts()
        events, size = self._waiting()
        return PublisherHealth(
            name=self.name,
            kind=type(self.publisher).__name__,
            state=self._state,
            queued_events=events,
            queued_bytes=size,
            in_flight=count_events(in_hand),
            accepted=self._accepted,
            dropped=self._dropped + dropped_inside,
            gaps=self._queue.gaps + gaps_inside,
            failures=self._failures,
            last_error=self._last_error,
            lag=lag,
            required=self._options.required,
            overflow=self._options.policy,
        )

    def _buffer_counts(self) -> tuple[int, int]:
        """Return the events and runs of events that the publisher's own buffer dropped; the last known counts if it raises."""
        try:
            return self._calls.buffer_counts()
        except Exception as error:  # noqa: BLE001  # isolate publisher failures: the health of the others is read too
            self._last_error = describe(error)
            return self._calls.last_buffer_counts

    def _waiting(self) -> tuple[int, int]:
        """Return the number of events that wait for the publisher, and their bytes."""
        return self._queue.events, self._queue.bytes

    @abstractmethod
    def _take_record(self, record: Event) -> None:
        """Publish or queue ``record``, even without room."""

    def _hand_in_line(self, events: Sequence[Event]) -> int | None:
        """Call ``publish_nowait`` and return how many events it took; None if the events must wait in the queue."""
        if not self._direct or self._nowait is None or len(events) > self._most_in_line:
            return None
        try:
            taken = index(self._nowait(tuple(events)))  # the publisher cannot change a tuple, and a tuple is not copied
            if not 0 <= taken <= len(events):
                self._raise_bad_count(taken, len(events))
        except BaseException as error:  # noqa: BLE001  # isolate publisher failures: a panic or SystemExit must not end a connection
            self._note_failure(as_failure(self.name, error))
            return None
        return taken

    def _raise_bad_count(self, taken: int, offered: int) -> None:
        msg = f"publish_nowait of {self.name} answered {taken} for {offered} events"
        raise PublisherError(msg)

    def _wake(self) -> None:
        """Wake the task, because the queue is not empty. Later events must wait, too."""
        self._direct = False
        if self._state not in {PublisherState.PARKED, PublisherState.PROBING}:  # parked counts as idle
            self._idle.clear()
        self._filled.set()

    # The task

    def _start(self) -> None:
        self._restart = None
        self._task = asyncio.create_task(self._run(), name=f"publisher {self.name}")
        self._task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Restart the delivery task if it ended before `close`: the publisher cancelled it, or this class has a bug.

        The batch that was being published is still in hand and is offered again.
        """
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._state is PublisherState.CLOSED:
            return
        self._note_failure(as_failure(self.name, error or PublisherError("the delivery task ended")))
        self._restart = self._clock.call_later(RESTART_AFTER, self._start)

    async def _run(self) -> None:
        if not self._opened:
            await self._open_persistently()
        while self._state is not PublisherState.CLOSED:
            self._rest_if_empty()
            if not self._in_hand:
                await self._filled.wait()
            await self._deliver()
            self._passed.set()
            self._passed.clear()

    @abstractmethod
    async def _open_persistently(self) -> None:
        """Return once the publisher is open."""

    @abstractmethod
    async def _deliver(self) -> None:
        """Publish the batch in hand or the next one of the queue, or give up on it."""

    def _rest_if_empty(self) -> None:
        if len(self._queue) or self._in_hand:
            return
        self._filled.clear()
        self._idle.set()
        self._direct = self._state is PublisherState.HEALTHY

    async def _open_once(self) -> None:
        await self._calls.open(self._options.give_up_after)
        self._opened = True

    async def _publish_in_hand(self) -> None:
        if not self._in_hand:  # the whole batch was released
            return
        try:
            await self.publisher.publish(self._in_hand)
        except Fenced as fenced:
            for shard in fenced.shards & {event.shard[0] for event in self._in_hand}:
                self._fence(shard)
        self._note_accepted(self._in_hand)
        self._in_hand = ()

    def _fence(self, shard: int) -> None:
        """Remove the events of ``shard``, and take no more of them before `adopt` or `release`: another process delivers them."""
        self.release(shard)
        self._fenced.add(shard)
        logger.warning(
            "Publisher %s: another process publishes the events of shard %d; this one publishes no more of them",
            *(self.name, shard),
        )

    def _note_accepted(self, events: Sequence[Event]) -> None:
        self._accepted += count_events(events)

    # Success and failure

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Try ``work`` once, without the cost of `_persist`."""
        try:
            await self._try(work)
        except Exception as error:  # noqa: BLE001  # isolate publisher failures
            self._note_failure(error)
            return False
        self._note_success()
        return True

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Try ``work`` with growing, jittered pauses until it succeeds or ``patience`` has passed."""
        succeeded = await succeeds(
            partial(self._try, work), self._clock, give_up=lambda: self._is_out_of_patience, failed=self._note_failure
        )
        if succeeded:
            self._note_success()
        return succeeded

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._trying_since is None:
            self._trying_since = self._clock.monotonic()
        try:
            await isolated(self.name, work)
        except Exception:
            if self._state is PublisherState.CLOSED:  # the publisher answered its cancellation with an error
                raise asyncio.CancelledError from None
            raise

    @property
    def _is_out_of_patience(self) -> bool:
        """Return whether ``patience`` has passed since the first failed attempt."""
        since = self._trying_since
        return since is not None and self._clock.monotonic() - since >= self._patience

    def _note_success(self) -> None:
        self._trying_since = None
        if self._state in {PublisherState.RETRYING, PublisherState.PROBING}:
            logger.info("Publisher %s works again", self.name)
        if self._state is not PublisherState.CLOSED:
            self._state = PublisherState.HEALTHY

    def _note_failure(self, error: BaseException) -> None:
        self._failures += 1
        self._last_error = describe(error)
        if self._state in {PublisherState.HEALTHY, PublisherState.OPENING}:
            self._state = PublisherState.RETRYING
            logger.warning("Publisher %s failed and is tried again: %s", self.name, self._last_error)


def _publish_nowait_of(publisher: Publisher, name: str) -> Callable[[Sequence[Event]], int] | None:
    """Return the function to call directly. Discorder's own publishers start no task in it, so they need no containment."""
    if not isinstance(publisher, NonBlockingPublisher):
        return None
    if type(publisher).__module__.startswith("discorder."):
        return publisher.publish_nowait
    return partial(contained, f"publisher {name}", publisher.publish_nowait)


def count_events(batch: Sequence[Event]) -> int:
    """Return the number of events in ``batch``, records not counted."""
    return sum(event.seq is not None for event in batch)
