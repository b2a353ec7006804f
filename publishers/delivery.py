"""How far the events of one shard have come over all publishers: what the driver asks before it resumes, opens or stores.

Every answer is computed from the lanes' marks when it is asked for; nothing is remembered twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from discorder.publishers.blocking import BlockingLane
from discorder.publishers.intake import Mark
from discorder.wire import Event


class ShardDelivery:
    """One shard's side of the fan-out. Made by `FanOut.shard`."""

    def __init__(
        self,
        shard_id: int,
        *,
        hand_over: Callable[[Sequence[Event]], None],
        blocking: Callable[[], Sequence[BlockingLane]],
    ) -> None:
        self._shard_id = shard_id
        self._hand_over = hand_over
        self._blocking = blocking
        self._handed: Mark | None = None
        self._report: Callable[[str], None] | None = None

    def hand_over(self, events: Sequence[Event]) -> None:
        """Offer a batch, not empty, of one connection to every publisher."""
        last = events[-1]
        if self._handed is None or last.session != self._handed.session or last.seq > self._handed.seq:
            self._handed = Mark(last.session, last.seq)
        self._hand_over(events)

    def adopt(self, session: str, seq: int) -> None:
        """A session (its label) of an earlier process goes on: everything up to ``seq`` was delivered there."""
        self._handed = Mark(session, seq)

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
        return all(lane.may_open(self._shard_id) for lane in self._blocking())

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
        shard = self._shard_id
        reached = [lane for lane in self._blocking() if lane.mark(shard) is not None]
        marks = [self._handed, *(lane.delivered(shard) if lane.required else lane.mark(shard) for lane in reached)]
        if any(mark is None or mark.session != session for mark in marks):
            return None
        return min(mark.seq for mark in marks if mark is not None)
