"""Keep the newest documents of each shard for replays, bounded in bytes and in age.

Documents are kept in chunks: appending costs the same at any size of the ring, and finding a place is a binary search.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from discorder.publishers.zeromq.shard_log import CHUNK_OVERHEAD, Position, ShardLog
from discorder.wire import Event

ENTRY_OVERHEAD = 100  # bytes that Python needs for an entry besides its document
CHUNKS = 64  # a chunk takes at most this fraction of the ring, so that few documents are removed at once


class Ring:
    """Keep the newest documents of all shards, at most ``max_bytes`` together and ``max_seconds`` old."""

    def __init__(self, *, max_bytes: int, max_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._logs: dict[int, ShardLog] = {}
        self._order: deque[ShardLog] = deque()  # the shard of the oldest chunk, of the next oldest, …
        self._chunk_bytes = max_bytes // CHUNKS
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of documents in the ring."""
        return sum(log.held for log in set(self._order))

    @property
    def max_bytes(self) -> int:
        """Return how many bytes the documents may take."""
        return self._max_bytes

    @property
    def max_seconds(self) -> float:
        """Return how old the documents may be."""
        return self._max_seconds

    def span(self, now: float) -> float:
        """Return the age of the oldest document in seconds, 0 without one."""
        return max(0.0, now - self._order[0].oldest.at) if self._order else 0.0

    @property
    def held_bytes(self) -> int:
        """Return the bytes that the documents take."""
        return self._bytes

    def append(self, events: Sequence[Event], documents: Sequence[bytes], now: float) -> None:
        """Keep the ``documents`` of ``events``; ignore those that were kept before. Only `trim` checks the age."""
        if not events:
            return
        shard, added = events[0].shard, 0
        log = self._log_of(shard)
        chunk = log.chunk_at(now)
        for event, document in zip(events, documents, strict=True):
            if event.shard is not shard:
                shard, log = event.shard, self._log_of(event.shard)
                chunk = log.chunk_at(now)
            seq, run = event.seq, log.run
            if run is not None and seq is not None and seq > run.last and event.session == run.session:
                run.last = run.types[event.type] = seq
            else:  # a record, the first event of a session, or a repeated event
                seq = log.take_in(event)
                if seq is None:
                    continue
                chunk = log.chunk_at(now)
            if not self._max_bytes:
                continue
            if chunk is None or chunk.size > self._chunk_bytes:
                chunk = log.begin_chunk(now)
                self._order.append(log)
                added += CHUNK_OVERHEAD
            size = len(document) + ENTRY_OVERHEAD
            chunk.seqs.append(seq)
            chunk.types.append(event.type)
            chunk.documents.append(document)
            chunk.size += size
            added += size
        self._bytes += added
        while self._bytes > self._max_bytes:
            self._give_up_oldest()

    def begin(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """Continue a session of an earlier process: all of its events after ``seq`` will be appended."""
        self._log_of(shard).begin_run(session, seq)

    def trim(self, now: float) -> None:
        """Remove the chunks that are too old."""
        order = self._order
        while order and now - order[0].oldest.at > self._max_seconds:
            self._give_up_oldest()

    def positions(self) -> list[Position]:
        """Return the position of each shard, in order of the shards."""
        logs = sorted(self._logs.values(), key=lambda log: log.shard)
        return [log.position for log in logs if log.runs]

    def moved(self, *, again: bool) -> list[Position]:
        """Return the positions that have moved since the last call, or with ``again`` all of them, in order of the shards."""
        moved = []
        for log in self._logs.values():
            if (run := log.run) is not None and (
                again or log.published_session != run.session or log.published_seq != run.last
            ):
                log.published_session, log.published_seq = run.session, run.last
                moved.append(log)
        return [log.position for log in sorted(moved, key=lambda log: log.shard)]

    def log(self, shard_id: int) -> ShardLog | None:
        """Return the log of one shard; None if no event of it ever came."""
        return self._logs.get(shard_id)

    def _log_of(self, shard: tuple[int, int]) -> ShardLog:
        """Return the log of a shard, a new one for its first event or when the number of shards has changed."""
        log = self._logs.get(shard[0])
        if log is None or log.shard != shard:
            log = self._logs[shard[0]] = ShardLog(shard)
        return log

    def _give_up_oldest(self) -> None:
        self._bytes -= self._order.popleft().give_up_oldest().size
