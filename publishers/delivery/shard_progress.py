"""Compute the progress of all publishers with the events of one shard from the delivery queues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from discorder.publishers.delivery.lossless import LosslessQueue
from discorder.publishers.delivery.queue import DeliveryQueue
from discorder.records import LossKind, LostEvents, gap_record
from discorder.wire import Event, StreamPosition


@dataclass(frozen=True, slots=True)
class LostSession:
    """Describe a session (its label) that cannot be resumed: its events after ``delivered`` will not come.

    ``shard`` is the shard of the session, ``since`` (aware) the time of its last event. ``still_stored``: the session is given up
    only when the next one begins, so until then no event is lost.
    """

    shard: tuple[int, int]
    session: str
    delivered: int
    cause: str
    since: datetime
    still_stored: bool = False


class ShardDelivery:
    """Deliver the events of one shard to all publishers. Made by `FanOut.shard`."""

    def __init__(self, shard_id: int, queues: Callable[[], Sequence[DeliveryQueue]]) -> None:
        self._shard_id = shard_id
        self._queues = queues
        self._handed: StreamPosition | None = None  # the last event that was handed to every publisher
        self._handed_at: datetime | None = None  # time of its receipt
        self._report: Callable[[str], None] | None = None
        self._report_moved: Callable[[], None] | None = None
        self._lost: list[LostSession] = []
        self.lost_sessions = 0  # announced so far
        self.missing_runs = 0  # runs of events that no publisher gets; announced so far

    @property
    def gaps(self) -> int:
        """Return the number of gaps that every publisher has."""
        return self.lost_sessions + self.missing_runs

    def hand_over(self, events: Sequence[Event]) -> None:
        """Offer a batch of one connection, not empty, to every publisher, without the events that it was handed before.

        Never blocks, and never raises an error of a publisher.
        """
        last, handed = events[-1], self._handed
        seq, session = last.seq, last.session
        assert seq is not None  # noqa: S101  # records go through `announce`
        assert session is not None  # noqa: S101
        if handed is None or seq > handed.seq or session != handed.session:
            self._handed, self._handed_at = StreamPosition(session, seq), last.received_at
        for queue in self._queues():
            queue.offer(events)
        if self._report_moved is not None:
            self._report_moved()

    def when_moved(self, report: Callable[[], None]) -> None:
        """Call ``report`` when `delivered` may have advanced: a batch was handed over, or one was accepted."""
        self._report_moved = report

    def moved(self) -> None:
        """Report progress; called by the fan-out when a lossless publisher has accepted a batch."""
        if self._report_moved is not None:
            self._report_moved()

    def announce(self, record: Event) -> None:
        """Offer one of the control plane's own records to every publisher that wants it."""
        for queue in self._queues():
            queue.offer_record(record)

    def session_lost(self, lost: LostSession) -> None:
        """Note that a session has ended. A gap record follows when the next one begins or the shard ends."""
        self._lost.append(lost)

    def session_dropped(self, shard: tuple[int, int], session: str, cause: str, now: datetime) -> None:
        """Note that the session of this shard (its label) is given up. See `session_lost`."""
        handed = self._handed
        if handed is not None and handed.session == session:
            self.session_lost(LostSession(shard, session, handed.seq, cause, self._handed_at or now))
        else:
            self.session_lost(LostSession(shard, session, 0, cause, now))

    def announce_lost(self, now: datetime, *, ended: bool) -> None:
        """Offer every publisher a gap record for each lost session, once.

        Call it right before READY is handed over, or with ``ended`` when there will be none. The gap begins after the last event
        that the publisher was offered.
        """
        lost, self._lost = self._lost, []
        for one in lost:
            if ended and one.still_stored:
                continue
            self.lost_sessions += 1
            for queue in self._queues():
                mark = queue.mark(self._shard_id)
                offered = mark.seq if mark is not None and mark.session == one.session else one.delivered
                gap = LostEvents(
                    kind=LossKind.SESSION,
                    publisher=None,
                    from_seq=offered + 1,
                    to_seq=None,
                    cause=one.cause,
                    start=one.since,
                    end=None if ended else now,
                )
                queue.offer_record(gap_record(one.shard, one.session, now, gap))

    def announce_missing(
        self, shard: tuple[int, int], session: str, seqs: tuple[int, int], cause: str, now: datetime
    ) -> None:
        """Offer every publisher a gap record of the events ``seqs`` (first, last) of ``session``, which no publisher gets."""
        self.missing_runs += 1
        for queue in self._queues():
            gap = LostEvents(
                kind=LossKind.PUBLISHER,
                publisher=queue.name,
                from_seq=seqs[0],
                to_seq=seqs[1],
                cause=cause,
                start=now,
                end=now,
            )
            queue.offer_record(gap_record(shard, session, now, gap))

    def adopt(self, shard: tuple[int, int], session: str, seq: int, at: datetime) -> None:
        """Continue a session (its label) of an earlier process, which delivered all events up to ``seq`` before ``at``.

        No event is offered that an earlier ownership of the shard has left in a queue.
        """
        self._handed, self._handed_at = StreamPosition(session, seq), at
        for queue in self._queues():
            queue.adopt(shard, session, seq)

    def when_congested(self, report: Callable[[str], None]) -> None:
        """Call ``report`` with the name of a publisher that can take no more events on this connection."""
        self._report = report

    def congested(self, publisher: str) -> None:
        """Report congestion; called by the fan-out when a lossless publisher has no more room."""
        if self._report is not None:
            self._report(publisher)

    def connection_opened(self) -> None:
        """Let congested publishers accept events again, because the new connection replays the refused ones."""
        for queue in self._blocking():
            queue.connection_opened(self._shard_id)

    def may_open(self) -> bool:
        """Return False while a congested publisher has no room in its queue, for at most its ``hold_off``."""
        return not self.holding

    @property
    def holding(self) -> list[str]:
        """Return the names of the congested publishers for which the shard must wait."""
        return [queue.name for queue in self._blocking() if not queue.may_open(self._shard_id)]

    def _blocking(self) -> Sequence[LosslessQueue]:
        return [queue for queue in self._queues() if isinstance(queue, LosslessQueue)]

    @property
    def behind(self) -> list[str]:
        """Return the names of the lossless publishers that have not accepted all events of this shard."""
        return [queue.name for queue in self._blocking() if queue.is_behind(self._shard_id)]

    def resume_seq(self, session: str | None, received: int) -> int:
        """Return the sequence for a RESUME of ``session`` (a label): the lowest mark of a lossless publisher, or ``received``."""
        marks = [mark for queue in self._blocking() if (mark := queue.mark(self._shard_id)) is not None]
        return min((mark.seq for mark in marks if mark.session == session), default=received)

    @property
    def handed_seq(self) -> int | None:
        """Return the sequence of the last event that was handed to all publishers; None before the first."""
        return None if self._handed is None else self._handed.seq

    def delivered(self, session: str) -> int | None:
        """Return the sequence up to which every event of ``session`` (its label) is delivered; None if not even READY is.

        Delivered: accepted by every required publisher and queued by every lossless one; without such publishers, handed to all.
        """
        shard, handed = self._shard_id, self._handed
        if handed is None or handed.session != session:
            return None
        reached = handed.seq
        for queue in self._blocking():
            taken_in = queue.mark(shard)
            if taken_in is not None or queue.is_fenced(shard):  # otherwise it was handed no event yet
                mark = queue.delivered(shard) if queue.required else taken_in
                if mark is None or mark.session != session:
                    return None
                reached = min(reached, mark.seq)
        return reached
