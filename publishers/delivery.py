"""How far the events of one shard have come over all publishers: what the driver asks before it resumes, opens or stores.

Every answer is computed from the lanes' marks when it is asked for; nothing is remembered twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from discorder.publishers.blocking import BlockingLane
from discorder.publishers.lane import Lane
from discorder.publishers.protocol import AnsweringPublisher
from discorder.records import Gap, GapKind, gap_record
from discorder.wire import Event


@dataclass(frozen=True, slots=True)
class LostSession:
    """A session (its label) that cannot be resumed: what Discord dispatched in it after ``delivered`` will not come.

    ``shard`` is the one that it belonged to, ``since`` (aware) when its last event came. ``still_stored``: it is given up only
    once the next session begins, so until then nothing is lost.
    """

    shard: tuple[int, int]
    session: str
    delivered: int
    cause: str
    since: datetime
    still_stored: bool = False


class _Handed(NamedTuple):
    """The furthest event of the session (its label) that was handed to everybody, and when it came."""

    session: str
    seq: int
    at: datetime


class ShardDelivery:
    """One shard's side of the fan-out. Made by `FanOut.shard`."""

    def __init__(
        self,
        shard_id: int,
        *,
        hand_over: Callable[[Sequence[Event]], None],
        lanes: Callable[[], Sequence[Lane]],
    ) -> None:
        self._shard_id = shard_id
        self._hand_over = hand_over
        self._lanes = lanes
        self._handed: _Handed | None = None
        self._report: Callable[[str], None] | None = None
        self._lost: list[LostSession] = []
        self.lost_sessions = 0  # that were announced

    def hand_over(self, events: Sequence[Event]) -> None:
        """Offer a batch, not empty, of one connection to every publisher."""
        last, handed = events[-1], self._handed
        seq = last.seq
        assert seq is not None  # noqa: S101  # records go through `announce`
        if handed is None or seq > handed.seq or last.session != handed.session:
            self._handed = _Handed(last.session or "", seq, last.received_at)
        self._hand_over(events)

    def announce(self, record: Event) -> None:
        """Offer one of the control plane's own records to every publisher that wants it."""
        for lane in self._lanes():
            lane.offer_record(record)

    def session_lost(self, lost: LostSession) -> None:
        """A session has ended; a gap record says so when the next one begins, or this shard ends without one."""
        self._lost.append(lost)

    def session_dropped(self, shard: tuple[int, int], session: str, cause: str, now: datetime) -> None:
        """The session of this shard (its label) is given up. See `session_lost`."""
        handed = self._handed
        if handed is not None and handed.session == session:
            self.session_lost(LostSession(shard, session, handed.seq, cause, handed.at))
        else:
            self.session_lost(LostSession(shard, session, 0, cause, now))

    def announce_lost(self, now: datetime, *, ended: bool) -> None:
        """Offer a gap record of each session that was lost to every publisher, once.

        To be called right before READY is handed over, or with ``ended`` when there will be none. The gap begins after the last
        event that the publisher in question was offered.
        """
        lost, self._lost = self._lost, []
        for one in lost:
            if ended and one.still_stored:
                continue
            self.lost_sessions += 1
            for lane in self._lanes():
                mark = lane.mark(self._shard_id)
                offered = mark.seq if mark is not None and mark.session == one.session else one.delivered
                gap = Gap(
                    kind=GapKind.SESSION,
                    publisher=None,
                    from_seq=offered + 1,
                    to_seq=None,
                    cause=one.cause,
                    start=one.since,
                    end=None if ended else now,
                )
                lane.offer_record(gap_record(one.shard, one.session, now, gap))

    def adopt(self, shard: tuple[int, int], session: str, seq: int, at: datetime) -> None:
        """A session (its label) of an earlier process goes on: everything up to ``seq`` was delivered there, before ``at``."""
        self._handed = _Handed(session, seq, at)
        for lane in self._lanes():
            if isinstance(lane.publisher, AnsweringPublisher):
                lane.publisher.goes_on(shard, session, seq)

    def when_congested(self, report: Callable[[str], None]) -> None:
        """Have ``report`` called with a publisher's name when that one can take no more on this connection."""
        self._report = report

    def congested(self, publisher: str) -> None:
        """Told by the fan-out."""
        if self._report is not None:
            self._report(publisher)

    def connection_opened(self) -> None:
        """A new connection: what a congested publisher had to refuse will be replayed."""
        for lane in self._blocking():
            lane.connection_opened(self._shard_id)

    def may_open(self) -> bool:
        """False while a congested publisher asks to wait: for room in its queue, at most for its ``hold_off``."""
        return not self.holding

    @property
    def holding(self) -> list[str]:
        """The congested publishers that ask to wait."""
        return [lane.name for lane in self._blocking() if not lane.may_open(self._shard_id)]

    def _blocking(self) -> Sequence[BlockingLane]:
        return [lane for lane in self._lanes() if isinstance(lane, BlockingLane)]

    @property
    def behind(self) -> list[str]:
        """The publishers that must not lose and have not accepted everything of this shard."""
        return [lane.name for lane in self._blocking() if lane.is_behind(self._shard_id)]

    def resume_seq(self, session: str | None, received: int) -> int:
        """Where a RESUME of ``session`` (its label) begins: the lowest mark of the publishers that block, else ``received``."""
        marks = [mark for lane in self._blocking() if (mark := lane.mark(self._shard_id)) is not None]
        return min((mark.seq for mark in marks if mark.session == session), default=received)

    def delivered(self, session: str) -> int | None:
        """The sequence up to which every event of ``session`` (its label) may be forgotten; None when not even READY may.

        Every required publisher has accepted it, every publisher that blocks has it in its queue; without any of them it was
        handed to each publisher.
        """
        shard, handed = self._shard_id, self._handed
        if handed is None or handed.session != session:
            return None
        reached = handed.seq
        for lane in self._blocking():
            taken_in = lane.mark(shard)
            if taken_in is not None:  # else it was handed nothing yet
                mark = lane.delivered(shard) if lane.required else taken_in
                if mark is None or mark.session != session:
                    return None
                reached = min(reached, mark.seq)
        return reached
