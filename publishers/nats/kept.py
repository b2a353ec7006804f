"""Remember which events a stream has, to tell which of them are lost when its server comes back without them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from discorder.publishers.nats.messages import Message
from discorder.records import GapRecord, LossKind, LostEvents, gap_record
from discorder.wire import Event, StreamPosition

MOST_SESSIONS = 10_000  # remembered; a plane has one for each shard, and those that ended within the age of the stream

Shard = tuple[int, int]
Find = Callable[[Shard], Awaitable[StreamPosition | None]]  # the last event of a shard in the stream


@dataclass(slots=True)
class KeptRange:
    """Hold a run of events of one session that a stream has.

    ``number``: of the last one in the stream, at least. ``count``: those that this process has sent.
    """

    shard: Shard
    session: str
    from_seq: int
    to_seq: int
    start: datetime
    end: datetime
    number: int = 0
    count: int = 0

    def __str__(self) -> str:
        return f"{self.from_seq}-{self.to_seq} of shard {self.shard[0]}"

    def after(self, seq: int) -> KeptRange:
        """Return what comes after ``seq``."""
        first = max(self.from_seq, seq + 1)
        return replace(self, from_seq=first, count=min(self.count, self.to_seq - first + 1))

    def gap(self, publisher: str) -> GapRecord:
        """Return the record that tells readers of ``publisher`` that these events are lost."""
        cause = "the NATS server has lost them from the stream"
        lost = LostEvents(LossKind.PUBLISHER, publisher, self.from_seq, self.to_seq, cause, self.start, self.end)
        return gap_record(self.shard, self.session, self.end, lost)


class KeptEvents:
    """Know the sessions in a stream that keeps events for ``max_age`` seconds."""

    def __init__(self, max_age: float) -> None:
        self.end = 0  # the number of the last message that was stored
        self._max_age = timedelta(seconds=max_age)
        self._ranges: dict[tuple[Shard, str | None], KeptRange] = {}
        self._adopted: dict[Shard, KeptRange] = {}

    def adopt(self, shard: Shard, session: str, seq: int) -> None:
        """Note that an earlier process has stored the events of ``session`` up to ``seq``."""
        now = datetime.now(UTC)
        self._adopted[shard] = KeptRange(shard, session, 1, seq, now, now)

    def found(self, shard: Shard, last: StreamPosition, at: datetime) -> None:
        """Note that the stream had events of ``shard`` up to ``last`` before this process sent any."""
        if (shard, last.session) not in self._ranges:
            self._ranges[shard, last.session] = KeptRange(shard, last.session, 1, last.seq, at, at, self.end)

    def add(self, messages: Iterable[Message]) -> None:
        """Note that the stream has ``messages``; records do not count."""
        for message in messages:
            event = message.event
            if event.seq is None:
                continue
            kept = self._ranges.get((event.shard, event.session)) or self._begin(event, event.seq)
            kept.to_seq, kept.end, kept.number = event.seq, event.received_at, message.number or self.end
            kept.count += 1

    def note_numbers(self, messages: Iterable[Message]) -> None:
        """Note how far the stream has come; ``messages`` may be stored or not."""
        self.end = max([self.end, *(message.number for message in messages)])

    def missing(self, shard: Shard, last: StreamPosition | None, *, new: bool) -> list[KeptRange]:
        """Return what ``shard`` lacks of its adopted session; ``last``: its last event in the stream. Once for each session.

        A stream that is not ``new`` and has nothing of the session may have dropped it for its age or size.
        """
        adopted = self._adopted.pop(shard, None)
        if adopted is None or not (new or (last is not None and last.session == adopted.session)):
            return []
        lost = adopted.after(_seq_in(adopted.session, last))
        return [lost] if lost.from_seq <= lost.to_seq else []

    async def lost_after(self, end: int, find: Find) -> list[KeptRange]:
        """Return what is missing now that the last message of the stream has the number ``end``, and forget it."""
        affected = [one for one in self._ranges.values() if one.number > end]
        last = {shard: await find(shard) for shard in {one.shard for one in affected}} if end else {}
        for one in affected:
            del self._ranges[one.shard, one.session]
        self.end = end
        return [
            lost
            for one in affected
            if (lost := one.after(_seq_in(one.session, last.get(one.shard)))).from_seq <= lost.to_seq
        ]

    def _begin(self, event: Event, seq: int) -> KeptRange:
        """Begin the range of a session, and forget those that are older than the stream keeps them."""
        oldest = event.received_at - self._max_age
        recent = [one for one in self._ranges.items() if one[1].end >= oldest]
        self._ranges = dict(recent[1 - MOST_SESSIONS :])
        kept = KeptRange(event.shard, event.session or "", seq, seq, event.received_at, event.received_at)
        self._ranges[event.shard, event.session] = kept
        return kept


def _seq_in(session: str, last: StreamPosition | None) -> int:
    """Return the sequence of ``last`` if it is of ``session``, otherwise 0."""
    return last.seq if last is not None and last.session == session else 0
