"""The lane of a best-effort publisher: what it has no room for, or refuses for too long, is dropped and counted.

As long as a publisher with ``publish_nowait`` works, events go straight to it. Everything else waits in the queue for the task,
which tries a batch, tries again with back-off, and after ``give_up_after`` parks the publisher: the batch is dropped, and from
then on the gap record of it is offered now and then to see whether it works again (a circuit breaker: closed, open, half-open).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from discorder.clock import Clock
from discorder.errors import PublisherError
from discorder.publishers.health import PublisherState
from discorder.publishers.intake import Intake, Mark
from discorder.publishers.lane import BATCH_BYTES, BATCH_EVENTS, Lane
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import NonBlockingPublisher, Publisher
from discorder.wire import Event

PROBE_EVERY = 30.0  # seconds between two looks at a parked publisher

logger = logging.getLogger(__name__)


class DroppingLane(Lane):
    """``overflow`` is ``drop_oldest`` or ``drop_newest``."""

    def __init__(self, publisher: Publisher, name: str, options: DeliveryOptions, clock: Clock) -> None:
        super().__init__(publisher, name, options, clock, patience=options.give_up_after)
        self._nowait = publisher.publish_nowait if isinstance(publisher, NonBlockingPublisher) else None
        self._direct = False  # whether events may go straight to publish_nowait: healthy, and nothing is before them
        self._intakes: dict[int, Intake] = defaultdict(Intake)

    def offer(self, events: Sequence[Event]) -> None:
        intake = self._intakes[events[0].shard[0]]
        events = intake.unseen(events)
        if not events:
            return
        intake.move_to(events[-1])
        if self._select is not None:
            events = self._select(events)
            if not events:
                return
        taken = self._hand_in_line(events)
        if taken is not None:
            self._accepted += taken
            return
        self._dropped += self._queue.extend(events)
        self._wake()

    def mark(self, shard: int) -> Mark | None:
        return self._intakes[shard].mark

    def _take_record(self, record: Event) -> None:
        if self._hand_in_line((record,)) is None:
            self._queue.append(record)
            self._wake()

    def _hand_in_line(self, events: Sequence[Event]) -> int | None:
        """Give ``events`` to ``publish_nowait``: how many it took; None when they must wait in the queue instead."""
        if not self._direct or self._nowait is None:
            return None
        try:
            taken = self._nowait(events)
            if not 0 <= taken <= len(events):
                self._raise_bad_count(taken, len(events))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it raises stays its own affair
            self._direct = False
            self._note_failure(error)
            return None
        if taken < len(events):
            self._leave_out(events[taken:])
        return taken

    def _leave_out(self, events: Sequence[Event]) -> None:
        """``publish_nowait`` had no room for ``events``: a gap record waits in their place, and what comes next behind it."""
        self._direct = False
        self._dropped += self._queue.put_back(events, f"publisher {self.name} had no room")
        self._wake()

    def retire(self) -> None:
        """Nobody waits for this publisher: there is nothing to call off."""

    async def close(self) -> None:
        """See `Lane.close`."""
        self._direct = False
        await super().close()

    def _rest_if_empty(self) -> None:
        super()._rest_if_empty()
        if not len(self._queue):
            self._direct = self._state is PublisherState.HEALTHY

    async def _open_persistently(self) -> None:
        if not await self._persist(self._open_once):
            await self._probe_open()

    async def _deliver(self) -> None:
        """Take a batch and publish it, or give up on it."""
        if self._state is PublisherState.PARKED:
            await self._clock.sleep(PROBE_EVERY)
            await self._probe()
            return
        self._in_hand = self._queue.take(BATCH_EVENTS, BATCH_BYTES)
        if await self._attempt(self._publish_in_hand) or await self._persist(self._publish_in_hand):
            return
        self._drop_in_hand()
        self._park()

    async def _probe(self) -> None:
        """Offer a parked publisher what comes first: the gap record of what was dropped when it was parked."""
        self._state = PublisherState.PROBING
        self._in_hand = self._queue.take(1, 1)
        if not await self._attempt(self._publish_in_hand):
            self._drop_in_hand()
            self._state = PublisherState.PARKED

    async def _probe_open(self) -> None:
        while True:
            self._park()
            await self._clock.sleep(PROBE_EVERY)
            self._state = PublisherState.PROBING
            if await self._attempt(self._open_once):
                return

    def _park(self) -> None:
        if self._state is PublisherState.RETRYING:
            logger.warning(
                "Publisher %s is parked after %g s of failures, looked at every %g s: %s",
                self.name,
                self._options.give_up_after,
                PROBE_EVERY,
                self._last_error,
            )
        self._state = PublisherState.PARKED
        self._idle.set()

    def _drop_in_hand(self) -> None:
        """Give up on what could not be published; the gap record of it is what a probe offers."""
        self._dropped += self._queue.put_back(self._in_hand, f"publisher {self.name} failed: {self._last_error}")
        self._in_hand = ()

    def _raise_bad_count(self, taken: int, offered: int) -> None:
        msg = f"publish_nowait of {self.name} answered {taken} for {offered} events"
        raise PublisherError(msg)
