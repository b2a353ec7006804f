"""One publisher's way out of the fan-out: its queue, its task, its failures. It knows nothing of other publishers.

`Lane` is what both kinds share: opening, trying again with back-off, closing, and what the tracker shows. What happens to an
event for which there is no room, and to one that is refused again and again, is theirs: `discorder.publishers.dropping` and
`discorder.publishers.blocking`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

from tenacity import AsyncRetrying, RetryCallState, RetryError, retry_if_exception_type, wait_random_exponential

from discorder.clock import Clock, within
from discorder.errors import PublisherError
from discorder.publishers.health import PublisherHealth, PublisherState
from discorder.publishers.intake import Mark
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import BufferingPublisher, Publisher
from discorder.publishers.queue import BoundedQueue
from discorder.publishers.selection import selector, wants_record
from discorder.wire import Event

BATCH_EVENTS = 256
BATCH_BYTES = 1_048_576  # of data; a larger event goes alone
FIRST_WAIT = 0.25  # seconds, upper end of the first back-off; doubles up to
LONGEST_WAIT = 5.0
CANCEL_TIMEOUT = 0.1  # seconds for a task that may ignore its cancellation
CLOSE_TIMEOUT = 0.3  # seconds for a publisher to close; shutdown as a whole has one second

logger = logging.getLogger(__name__)


class Lane(ABC):
    """Offers events to one publisher without ever failing or waiting itself. All methods belong to the loop."""

    def __init__(
        self, publisher: Publisher, name: str, options: DeliveryOptions, clock: Clock, *, patience: float
    ) -> None:
        """``patience``: seconds for which `_persist` tries."""
        self.publisher = publisher
        self.name = name
        self._options = options
        self._clock = clock
        self._patience = patience
        self._select = selector(options.events)
        self._queue = BoundedQueue(name, options.policy, max_events=options.max_events, max_bytes=options.max_bytes)
        self._in_hand: Sequence[Event] = ()
        self._state = PublisherState.OPENING
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._accepted = self._dropped = self._failures = 0
        self._last_error = ""

    async def open(self) -> None:
        """Open the publisher now; raises what it raises, and PublisherError if it takes longer than ``give_up_after``."""
        await self._open_once()
        self._note_success()
        self._rest_if_empty()
        self._start(opened=True)

    def open_in_background(self) -> None:
        """Open the publisher in its task, as often as it takes; events wait in the queue meanwhile."""
        self._start(opened=False)

    @abstractmethod
    def offer(self, events: Sequence[Event]) -> None:
        """Hand over or queue a batch of one shard and one session; what was offered before is left out. Never raises or waits."""

    def offer_record(self, record: Event) -> None:
        """Hand over or queue one of the control plane's own records, if the publisher wants it. Never raises or waits."""
        all_records = getattr(self.publisher, "all_records", False)
        if wants_record(self._options.events, record.type, all_records=all_records):
            self._take_record(record)

    @abstractmethod
    def mark(self, shard: int) -> Mark | None:
        """The last event of ``shard`` that was offered; None before the first."""

    async def wait_until_idle(self) -> None:
        """Return once nothing waits for the publisher, or it is parked."""
        await self._idle.wait()

    @abstractmethod
    def retire(self) -> None:
        """Nothing more will be offered; what waits still goes out until `close`."""

    async def close(self) -> None:
        """Stop the task and close the publisher, each within its time; idempotent. What is queued is dropped."""
        if self._state is PublisherState.CLOSED:
            return
        self._state = PublisherState.CLOSED
        await self._stop_task()
        self._dropped += self._queue.clear() + count_events(self._in_hand)
        self._in_hand = ()
        self._idle.set()
        await self._close_publisher()

    @property
    def health(self) -> PublisherHealth:
        """What the tracker shows."""
        in_hand = self._in_hand
        oldest = next((event for event in in_hand if event.seq is not None), self._queue.oldest)
        lag = 0.0 if oldest is None else max(0.0, (self._clock.now() - oldest.received_at).total_seconds())
        inside = self.publisher if isinstance(self.publisher, BufferingPublisher) else None
        events, size = self._waiting()
        return PublisherHealth(
            name=self.name,
            kind=type(self.publisher).__name__,
            state=self._state,
            queued_events=events,
            queued_bytes=size,
            in_flight=count_events(in_hand),
            accepted=self._accepted,
            dropped=self._dropped + (inside.dropped if inside else 0),
            gaps=self._queue.gaps + (inside.gaps if inside else 0),
            failures=self._failures,
            last_error=self._last_error,
            lag=lag,
            required=self._options.required,
        )

    def _waiting(self) -> tuple[int, int]:
        """Events and bytes that wait for the publisher."""
        return self._queue.events, self._queue.bytes

    @abstractmethod
    def _take_record(self, record: Event) -> None:
        """Hand over or queue ``record``, whatever room there is."""

    def _wake(self) -> None:
        """Something is in the queue."""
        if self._state not in {PublisherState.PARKED, PublisherState.PROBING}:  # nobody waits for a parked one
            self._idle.clear()
        self._filled.set()

    # The task

    def _start(self, *, opened: bool) -> None:
        self._task = asyncio.create_task(self._run(opened=opened), name=f"publisher {self.name}")

    async def _run(self, *, opened: bool) -> None:
        if not opened:
            await self._open_persistently()
        while True:
            self._rest_if_empty()
            await self._filled.wait()
            await self._deliver()

    @abstractmethod
    async def _open_persistently(self) -> None:
        """Return once the publisher is open."""

    @abstractmethod
    async def _deliver(self) -> None:
        """Take a batch out of the queue, which is not empty, and see it through."""

    def _rest_if_empty(self) -> None:
        if len(self._queue):
            return
        self._filled.clear()
        self._idle.set()

    async def _stop_task(self) -> None:
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        try:
            await within(self._clock, CANCEL_TIMEOUT, asyncio.wait({self._task}))
        except TimeoutError:
            logger.warning("Publisher %s ignores its cancellation and is left behind", self.name)

    async def _close_publisher(self) -> None:
        closing = asyncio.ensure_future(self._shielded_from_own_cancellation(self.publisher.close))
        try:
            await within(self._clock, CLOSE_TIMEOUT, asyncio.wait({closing}))
        except TimeoutError:
            closing.cancel()
            logger.warning("Publisher %s did not close within %.1f s", self.name, CLOSE_TIMEOUT)
            return
        if (error := closing.exception()) is not None:
            logger.warning("Publisher %s failed to close: %s", self.name, describe(error))

    async def _open_once(self) -> None:
        try:
            await within(self._clock, self._options.give_up_after, self.publisher.open())
        except TimeoutError as error:
            msg = f"publisher {self.name} did not open within {self._options.give_up_after:g} s"
            raise PublisherError(msg) from error

    async def _publish_in_hand(self) -> None:
        await self.publisher.publish(self._in_hand)
        self._note_accepted(self._in_hand)
        self._in_hand = ()

    def _note_accepted(self, events: Sequence[Event]) -> None:
        self._accepted += count_events(events)

    # Success and failure

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Try ``work`` once. Most of the time that is all: the machinery of `_persist` costs more than most publishers."""
        try:
            await self._shielded_from_own_cancellation(work)
        except Exception as error:  # noqa: BLE001  # whatever it raises stays its own affair
            self._note_failure(error)
            return False
        self._note_success()
        return True

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Try ``work`` with growing, jittered pauses until it succeeds or the patience is at its end."""
        until = self._clock.monotonic() + self._patience

        def give_up(_: RetryCallState) -> bool:
            return self._clock.monotonic() >= until

        def note(attempt: RetryCallState) -> None:
            if attempt.outcome is not None and (error := attempt.outcome.exception()) is not None:
                self._note_failure(error)

        try:
            await AsyncRetrying(
                sleep=self._clock.sleep,
                wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
                retry=retry_if_exception_type(Exception),
                stop=give_up,
                after=note,
            )(self._shielded_from_own_cancellation, work)
        except RetryError:
            return False
        self._note_success()
        return True

    async def _shielded_from_own_cancellation(self, work: Callable[[], Awaitable[None]]) -> None:
        """A CancelledError that a publisher raises by itself is a failure like any other, not our cancellation."""
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            msg = f"publisher {self.name} cancelled itself"
            raise PublisherError(msg) from error

    def _note_success(self) -> None:
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


def count_events(batch: Sequence[Event]) -> int:
    """How many of ``batch`` are events of Discord's, not records."""
    return sum(event.seq is not None for event in batch)


def describe(error: BaseException) -> str:
    """Class and text of an error in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
