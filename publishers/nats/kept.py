"""Remember which events a stream has, to tell which of them are lost when it comes back empty."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from discorder.records import GapRecord, LossKind, LostEvents, gap_record
from discorder.wire import Event, StreamPosition

MOST_SESSIONS = 10_000  # remembered; a plane has one for each shard, and those that ended within the age of the stream


@dataclass(slots=True)
class KeptRange:
    """Hold a run of events of one session that a stream has. ``count``: those of them that this process has sent."""

    shard: tuple[int, int]
    session: str
    from_seq: int
    to_seq: int
    start: datetime
    end: datetime
    count: int = 0

    def __str__(self) -> str:
        return f"{self.from_seq}-{self.to_seq} of shard {self.shard[0]}"

    def gap(self, publisher: str) -> GapRecord:
        """Return the record that tells readers of ``publisher`` that these events are lost."""
        cause = "the NATS server lost the stream, and it was made again"
        lost = LostEvents(LossKind.PUBLISHER, publisher, self.from_seq, self.to_seq, cause, self.start, self.end)
        return gap_record(self.shard, self.session, self.end, lost)


class KeptEvents:
    """Know the sessions in a stream that keeps events for ``max_age`` seconds."""

    def __init__(self, max_age: float) -> None:
        self._max_age = timedelta(seconds=max_age)
        self._ranges: dict[tuple[tuple[int, int], str | None], KeptRange] = {}

    def found(self, shard: tuple[int, int], last: StreamPosition, at: datetime) -> None:
        """Note that the stream had events of ``shard`` up to ``last`` before this process sent any."""
        if (shard, last.session) not in self._ranges:
            self._ranges[shard, last.session] = KeptRange(shard, last.session, 1, last.seq, at, at)

    def add(self, events: Iterable[Event]) -> None:
        """Note that the stream has ``events``; records do not count."""
        for event in events:
            if event.seq is None:
                continue
            kept = self._ranges.get((event.shard, event.session)) or self._begin(event, event.seq)
            kept.to_seq, kept.end = event.seq, event.received_at
            kept.count += 1

    def take(self) -> list[KeptRange]:
        """Return everything that the stream had, and forget it."""
        ranges, self._ranges = self._ranges, {}
        return list(ranges.values())

    def _begin(self, event: Event, seq: int) -> KeptRange:
        """Begin the range of a session, and forget those that are older than the stream keeps them."""
        oldest = event.received_at - self._max_age
        recent = [one for one in self._ranges.items() if one[1].end >= oldest]
        self._ranges = dict(recent[1 - MOST_SESSIONS :])
        kept = KeptRange(event.shard, event.session or "", seq, seq, event.received_at, event.received_at)
        self._ranges[event.shard, event.session] = kept
        return kept
