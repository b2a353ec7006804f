"""Deliver to a publisher that must not lose events: ``overflow = "block"``, which ``required = true`` implies.

It delays no other publisher. Reading continues; events for which the queue has no room are held, per shard and within bounds.
When the hold buffer is full, or in use for longer than ``block_timeout``, the queue reports congestion to the shard, which closes
its connection resumably. Discord's replay buffer keeps the events that come meanwhile.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from discorder.clock import Clock, Timer
from discorder.publishers.delivery.position import HoldingPosition, seq_of
from discorder.publishers.delivery.queue import BATCH_BYTES, BATCH_EVENTS, DeliveryQueue
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import Publisher
from discorder.records import RecordType
from discorder.wire import Event, StreamPosition

REOPEN_BELOW = 0.5  # fill of the queue at which a congested publisher is ready for more


class LosslessQueue(DeliveryQueue):
    """Offer events in order and drop none; retry a failed batch without a limit.

    ``congested`` is called with the shard id, once per connection of the shard; ``accepted`` with the id of each shard whose
    events in a batch were accepted.
    """

    def __init__(
        self,
        publisher: Publisher,
        name: str,
        options: DeliveryOptions,
        clock: Clock,
        congested: Callable[[int], None],
        accepted: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(publisher, name, options, clock, patience=float("inf"))
        self._congested = congested
        self._report_accepted = accepted
        self._positions: dict[int, HoldingPosition] = defaultdict(HoldingPosition)
        self._timers: dict[int, Timer] = {}

    @property
    def required(self) -> bool:
        """Return whether the resume point waits until this publisher has accepted."""
        return self._options.required

    # ---------------------------------------------------------------- events in

    def offer(self, events: Sequence[Event]) -> None:
        shard = events[0].shard[0]
        position = self._positions[shard]
        if position.shut_at is not None or shard in self._fenced:
            return
        unseen = position.unseen(events)
        wanted = unseen if self._select is None else self._select(unseen)
        if wanted and (accepted := self._hand_in_line(wanted)):
            self._accepted += accepted
            position.move_to(wanted[accepted - 1])
            wanted = wanted[accepted:]
        taken = self._take_in(position, wanted)
        if taken < len(wanted):
            refused = seq_of(wanted[taken])
            passed = [event for event in unseen if seq_of(event) < refused]
            if passed:
                position.move_to(passed[-1])
            self._shut(shard, position)
            return
        if unseen:
            position.move_to(unseen[-1])
        if len(position) and shard not in self._timers:
            self._arm(shard, position)

    def _take_in(self, position: HoldingPosition, events: Sequence[Event]) -> int:
        """Queue or hold ``events`` from the front; return how many had room."""
        taken = 0 if len(position) else self._queue.append_fitting(events)
        for event in events[taken:]:
            if not position.hold(event):
                break
            taken += 1
        if taken:
            position.expect(taken)
            self._wake()
        return taken

    def _take_record(self, record: Event) -> None:
        """Queue ``record``. A gap stays behind the held events and counts as outstanding, like an event: a READY after it that
        the publisher's selection excludes must not count as delivered before it. Other records may overtake held events.
        """
        gap = record.type == RecordType.GAP
        position = self._positions[record.shard[0]]
        position.expect(gap)
        if len(position) and gap:
            position.hold(record)
        else:
            self._queue.append(record)
        self._wake()

    def _refill(self) -> None:
        """Move held events into the queue while it has room, one of each shard in turn."""
        waiting = deque((shard, position) for shard, position in self._positions.items() if len(position))
        while waiting:
            shard, position = waiting.popleft()
            if not self._queue.fits(position.oldest):
                return
            self._queue.append(position.release())
            if len(position):
                waiting.append((shard, position))
            else:
                self._disarm(shard)

    def _note_accepted(self, events: Sequence[Event]) -> None:
        super()._note_accepted(events)
        for event in events:
            if event.seq is not None or event.type == RecordType.GAP:
                self._positions[event.shard[0]].accept(event)
        for shard in {event.shard[0] for event in events}:
            self._report_accepted(shard)

    async def _open_persistently(self) -> None:
        await self._persist(self._open_once)

    async def _deliver(self) -> None:
        """Publish the next batch, retrying without a limit."""
        if not self._in_hand:  # otherwise the publisher ended the delivery task during the batch
            self._in_hand = tuple(self._queue.take(BATCH_EVENTS, BATCH_BYTES))
            self._refill()
        if not await self._attempt(self._publish_in_hand):
            await self._persist(self._publish_in_hand)

    # ---------------------------------------------------------------- congestion

    def _arm(self, shard: int, position: HoldingPosition) -> None:
        self._timers[shard] = self._clock.call_later(self._options.block_timeout, lambda: self._shut(shard, position))

    def _disarm(self, shard: int) -> None:
        if (timer := self._timers.pop(shard, None)) is not None:
            timer.cancel()

    def _shut(self, shard: int, position: HoldingPosition) -> None:
        self._disarm(shard)
        position.shut_at = self._clock.monotonic()
        self._congested(shard)

    def connection_opened(self, shard: int) -> None:
        """Accept events again, because the new connection of ``shard`` replays from the mark.

        The time limit for held events restarts with the first event of the connection. Before that the connection must not be
        closed for congestion, or the publisher would never get events again.
        """
        self._positions[shard].shut_at = None
        self._disarm(shard)

    def may_open(self, shard: int) -> bool:
        """Return False while this publisher, which congested ``shard``, has not caught up, for at most ``hold_off``."""
        position = self._positions[shard]
        if position.shut_at is None or (not len(position) and self._queue.fill < REOPEN_BELOW):
            return True
        return self._clock.monotonic() - position.shut_at >= self._options.hold_off

    # ---------------------------------------------------------------- progress

    def mark(self, shard: int) -> StreamPosition | None:
        """Return the last event of ``shard`` that was queued, held or excluded by the selection; None before the first."""
        return self._positions[shard].mark

    def is_behind(self, shard: int) -> bool:
        return self._positions[shard].outstanding > 0

    def delivered(self, shard: int) -> StreamPosition | None:
        """Return the position up to which all events of ``shard`` are accepted; None if unknown."""
        return self._positions[shard].delivered

    def release(self, shard: int) -> int:
        self._disarm(shard)
        position = self._positions.pop(shard, None)
        released = super().release(shard) + (0 if position is None else position.clear())
        self._refill()
        return released

    def is_fenced(self, shard: int) -> bool:
        """Return whether another process publishes the events of ``shard``."""
        return shard in self._fenced

    def _fence(self, shard: int) -> None:
        accepted = self._positions[shard].accepted
        super()._fence(shard)
        if accepted is not None:  # the resume point stays there
            self._set_position(shard, accepted)

    def _set_position(self, shard: int, position: StreamPosition) -> None:
        self._positions[shard].set(position)

    # ---------------------------------------------------------------- end

    def retire(self) -> None:
        """Report no more congestion, because the publisher is being removed."""
        for shard in tuple(self._timers):
            self._disarm(shard)

    async def close(self) -> None:
        self.retire()
        await super().close()
        self._dropped += sum(position.clear() for position in self._positions.values())

    def _waiting(self) -> tuple[int, int]:
        events, size = super()._waiting()
        held = tuple(self._positions.values())  # a copy, because other threads call this too
        return events + sum(position.held_events for position in held), size + sum(
            position.held_bytes for position in held
        )
