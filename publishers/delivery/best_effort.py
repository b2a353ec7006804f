"""Deliver events to a best-effort publisher; drop and count events that find no room or fail for too long.

The delivery task retries a batch with back-off. After ``give_up_after`` it parks the publisher: it drops the batch, and from then
on offers the gap record of it periodically as a probe (a circuit breaker: closed, open, half-open).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

from discorder.clock import Clock
from discorder.publishers.delivery.health import PublisherState
from discorder.publishers.delivery.position import DeliveryPosition
from discorder.publishers.delivery.queue import BATCH_BYTES, BATCH_EVENTS, DeliveryQueue
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import Publisher
from discorder.wire import Event, StreamPosition

PROBE_EVERY = 30.0  # seconds between two probes of a parked publisher

logger = logging.getLogger(__name__)


class BestEffortQueue(DeliveryQueue):
    """Deliver with the policy ``overflow``, which is ``drop_oldest`` or ``drop_newest``."""

    def __init__(self, publisher: Publisher, name: str, options: DeliveryOptions, clock: Clock) -> None:
        super().__init__(publisher, name, options, clock, patience=options.give_up_after)
        self._positions: dict[int, DeliveryPosition] = defaultdict(DeliveryPosition)

    def offer(self, events: Sequence[Event]) -> None:
        shard = events[0].shard[0]
        if shard in self._fenced:
            return
        position = self._positions[shard]
        events = position.unseen(events)
        if not events:
            return
        position.move_to(events[-1])
        if self._select is not None:
            events = self._select(events)
            if not events:
                return
        if (taken := self._hand_in_line(events)) is None:
            self._dropped += self._queue.extend(events)
            self._wake()
            return
        self._accepted += taken
        if taken < len(events):
            self._leave_out(events[taken:])

    def mark(self, shard: int) -> StreamPosition | None:
        return self._positions[shard].mark

    def _set_position(self, shard: int, position: StreamPosition) -> None:
        self._positions[shard].set(position)

    def _take_record(self, record: Event) -> None:
        taken = self._hand_in_line((record,))
        if taken is None:
            self._queue.append(record)
            self._wake()
        elif not taken:
            self._leave_out((record,))

    def _leave_out(self, events: Sequence[Event]) -> None:
        """Drop ``events``, for which ``publish_nowait`` had no room. Queue a gap record and all later events."""
        self._dropped += self._queue.put_back(events, f"publisher {self.name} had no room")
        self._wake()

    def is_behind(self, shard: int) -> bool:
        return self._queue.holds(shard) or any(event.shard[0] == shard for event in self._in_hand)

    def release(self, shard: int) -> int:
        self._positions.pop(shard, None)
        return super().release(shard)

    def retire(self) -> None:
        """Do nothing, because no connection depends on this publisher."""

    async def _open_persistently(self) -> None:
        if not await self._persist(self._open_once):
            await self._probe_open()

    async def _deliver(self) -> None:
        """Publish the next batch, or drop it after ``give_up_after``."""
        if self._state is PublisherState.PROBING:  # the probe ended the delivery task
            self._give_up()
        if self._state is PublisherState.PARKED:
            await self._clock.sleep(PROBE_EVERY)
            await self._probe()
            return
        if not self._in_hand:
            self._in_hand = tuple(self._queue.take(BATCH_EVENTS, BATCH_BYTES))
        elif self._is_out_of_patience:  # the publisher has ended the delivery task again and again
            self._give_up()
            return
        if not (await self._attempt(self._publish_in_hand) or await self._persist(self._publish_in_hand)):
            self._give_up()

    async def _probe(self) -> None:
        """Offer a parked publisher the first item, the gap record of the events dropped when it was parked."""
        self._state = PublisherState.PROBING
        self._in_hand = tuple(self._queue.take(1, 1))
        if not await self._attempt(self._publish_in_hand):
            self._give_up()

    def _give_up(self) -> None:
        self._drop_in_hand()
        self._park()

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
        """Drop the batch in hand. A probe offers its gap record."""
        self._dropped += self._queue.put_back(self._in_hand, f"publisher {self.name} failed: {self._last_error}")
        self._in_hand = ()
