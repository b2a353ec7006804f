"""The lane of a publisher that must not lose: ``overflow = "block"``, which ``required = true`` implies.

It holds up nobody else. Reading goes on; what its queue has no room for is held, per shard and within bounds. When that is full,
or lasts longer than ``block_timeout``, the shard is told that it is congested: it closes its connection so that the session can
be resumed, and Discord's own replay buffer keeps what comes meanwhile.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from discorder.clock import Clock, Timer
from discorder.publishers.intake import HoldingIntake, Mark
from discorder.publishers.lane import BATCH_BYTES, BATCH_EVENTS, Lane
from discorder.publishers.options import DeliveryOptions
from discorder.publishers.protocol import Publisher
from discorder.records import RecordType
from discorder.wire import Event

REOPEN_BELOW = 0.5  # fill of the queue at which a congested publisher is ready for more


class BlockingLane(Lane):
    """Offers events in order and forgets none; a batch that fails is tried again for as long as it takes.

    ``congested`` is called with the shard id, once per connection of the shard.
    """

    def __init__(
        self, publisher: Publisher, name: str, options: DeliveryOptions, clock: Clock, congested: Callable[[int], None]
    ) -> None:
        super().__init__(publisher, name, options, clock, patience=float("inf"))
        self._congested = congested
        self._intakes: dict[int, HoldingIntake] = defaultdict(HoldingIntake)
        self._timers: dict[int, Timer] = {}

    @property
    def required(self) -> bool:
        """Whether the resume point waits until this publisher has accepted."""
        return self._options.required

    # ---------------------------------------------------------------- events in

    def offer(self, events: Sequence[Event]) -> None:
        shard = events[0].shard[0]
        intake = self._intakes[shard]
        if intake.shut_at is not None:
            return
        unseen = intake.unseen(events)
        wanted = unseen if self._select is None else self._select(unseen)
        chosen = None if wanted is unseen else {event.seq for event in wanted}
        for event in unseen:
            if (chosen is None or event.seq in chosen) and not self._take_in(intake, event):
                self._shut(shard, intake)
                return
            intake.move_to(event)
        if len(intake) and shard not in self._timers:
            self._arm(shard, intake)

    def _take_in(self, intake: HoldingIntake, event: Event) -> bool:
        if not len(intake) and self._queue.fits(event):
            self._queue.append(event)
        elif not intake.hold(event):
            return False
        intake.outstanding += 1
        self._wake()
        return True

    def _take_record(self, record: Event) -> None:
        """A gap keeps its place behind what is held, and is owed like an event: a READY behind it that the publisher does not
        want must not count as delivered before. A state may overtake it.
        """
        gap = record.type == RecordType.GAP
        intake = self._intakes[record.shard[0]]
        intake.outstanding += gap
        if len(intake) and gap:
            intake.hold(record)
        else:
            self._queue.append(record)
        self._wake()

    def _refill(self) -> None:
        """Let what is held follow into the room that the queue has, the shards taking turns."""
        waiting = deque((shard, intake) for shard, intake in self._intakes.items() if len(intake))
        while waiting:
            shard, intake = waiting.popleft()
            if not self._queue.fits(intake.oldest):
                return
            self._queue.append(intake.release())
            if len(intake):
                waiting.append((shard, intake))
            else:
                self._disarm(shard)

    def _note_accepted(self, events: Sequence[Event]) -> None:
        super()._note_accepted(events)
        for event in events:
            if event.seq is not None or event.type == RecordType.GAP:
                self._intakes[event.shard[0]].accept(event)

    async def _open_persistently(self) -> None:
        await self._persist(self._open_once)

    async def _deliver(self) -> None:
        """Take a batch and publish it, for as long as it takes."""
        self._in_hand = self._queue.take(BATCH_EVENTS, BATCH_BYTES)
        self._refill()
        if not await self._attempt(self._publish_in_hand):
            await self._persist(self._publish_in_hand)

    # ---------------------------------------------------------------- congestion

    def _arm(self, shard: int, intake: HoldingIntake) -> None:
        self._timers[shard] = self._clock.call_later(self._options.block_timeout, lambda: self._shut(shard, intake))

    def _disarm(self, shard: int) -> None:
        if (timer := self._timers.pop(shard, None)) is not None:
            timer.cancel()

    def _shut(self, shard: int, intake: HoldingIntake) -> None:
        self._disarm(shard)
        intake.shut_at = self._clock.monotonic()
        self._congested(shard)

    def connection_opened(self, shard: int) -> None:
        """A new connection of ``shard``: it replays from the mark, so events are welcome again.

        What is held is in time again from the first event on: a connection that brings none yet cannot be closed for it, and a
        publisher that shut itself then would stay shut for as long as that connection lives.
        """
        self._intakes[shard].shut_at = None
        self._disarm(shard)

    def may_open(self, shard: int) -> bool:
        """False while ``shard`` was congested by this publisher, which is still busy with it, for at most ``hold_off``."""
        intake = self._intakes[shard]
        if intake.shut_at is None or (not len(intake) and self._queue.fill < REOPEN_BELOW):
            return True
        return self._clock.monotonic() - intake.shut_at >= self._options.hold_off

    # ---------------------------------------------------------------- how far it is

    def mark(self, shard: int) -> Mark | None:
        """The last event of ``shard`` that was taken in; None before the first."""
        return self._intakes[shard].mark

    def is_behind(self, shard: int) -> bool:
        """Whether an event of ``shard`` or a gap is taken in and not accepted."""
        return self._intakes[shard].outstanding > 0

    def delivered(self, shard: int) -> Mark | None:
        """Everything of ``shard`` up to here is accepted; None when nothing is known to be."""
        return self._intakes[shard].delivered

    # ---------------------------------------------------------------- end

    def retire(self) -> None:
        """No connection is interrupted any more for a publisher that is leaving."""
        for shard in tuple(self._timers):
            self._disarm(shard)

    async def close(self) -> None:
        self.retire()
        await super().close()
        self._dropped += sum(intake.clear() for intake in self._intakes.values())

    def _waiting(self) -> tuple[int, int]:
        events, size = super()._waiting()
        held = tuple(self._intakes.values())  # a copy: other threads ask too
        return events + sum(intake.held_events for intake in held), size + sum(intake.held_bytes for intake in held)
