"""Read a journal at the start: the snapshot, and the records of the segments."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from discorder.errors import UnusableFile
from discorder.guilds import ShardGuilds
from discorder.publishers.journal import snapshot_file
from discorder.publishers.journal.records import Damaged, Record
from discorder.publishers.journal.segments import Segment, Segments
from discorder.publishers.journal.shard import JournaledShard
from discorder.wire import StreamPosition

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Loaded:
    """What a directory holds. ``snapshot_at``: the number of the first record after the snapshot, None without one."""

    segments: Segments
    shards: dict[int, JournaledShard] = field(default_factory=dict)
    snapshot_at: int | None = None


class Loader:
    """Reads one directory. Blocks."""

    def __init__(self, directory: Path, new_guilds: Callable[[], ShardGuilds]) -> None:
        self._directory = directory
        self._new_guilds = new_guilds
        self._loaded = Loaded(Segments(directory))
        self._places: dict[int, StreamPosition] = {}  # of the shards in the snapshot

    def load(self) -> Loaded:
        """Return what the directory holds. Raises UnusableFile for a file that is not ours or cannot be read.

        A damaged snapshot is set aside; the guilds of sessions that began before the oldest record are then not known.
        """
        loaded = self._loaded
        try:
            (self._directory / snapshot_file.NEW_NAME).unlink(missing_ok=True)  # a crash came before it was complete
            self._read_snapshot()
            loaded.segments.open(loaded.snapshot_at, self._take, self._forget_rings)
        except OSError as error:
            loaded.segments.close()
            msg = f"facade.journal: cannot use {self._directory}: {error.strerror or error}; make it writable, or name another"
            raise UnusableFile(msg) from error
        except BaseException:
            loaded.segments.close()
            raise
        self._reach_snapshot()
        for shard in loaded.shards.values():
            if shard.ring is not None:
                shard.ring.read_so_far()
        return loaded

    def _read_snapshot(self) -> None:
        try:
            found = snapshot_file.read(self._directory)
            if found is None:
                return
            header, packed = found
            shards = {}
            for one, chunks in zip(header.shards, packed, strict=True):
                guilds = self._new_guilds()
                guilds.load(chunks)
                shards[one.shard[0]] = JournaledShard(one.shard, guilds)
                self._places[one.shard[0]] = StreamPosition(one.session, one.seq)
        except (Damaged, ValueError) as error:
            aside = self._directory / f"{snapshot_file.NAME}.damaged"
            os.replace(self._directory / snapshot_file.NAME, aside)  # noqa: PTH105  # as a whole
            self._places.clear()
            logger.error(
                "The snapshot of the journal cannot be used and was moved to %s: %s; a shard whose READY is not among the "
                "events that are still there needs a new session",
                *(aside, error),
            )
            return
        self._loaded.shards, self._loaded.snapshot_at = shards, header.at

    def _take(self, segment: Segment, record: Record, content: bytes) -> None:
        shard_id, at = record.shard[0], self._loaded.snapshot_at
        is_news = at is None or segment.end > at
        if is_news and self._places:
            self._reach_snapshot()
        shard = self._loaded.shards.get(shard_id)
        if shard is None or (is_news and shard.shard != record.shard):
            shard = self._loaded.shards[shard_id] = JournaledShard(record.shard, self._new_guilds())
        shard.note(record.session, record.seq, record.type, segment, record.start, record.end - record.start)
        if is_news and record.seq is not None:
            shard.fold(record.session, record.type, record.read(content))

    def _reach_snapshot(self) -> None:
        """Go on with the state of the snapshot: the records before it are read, those after it follow."""
        for shard_id, place in self._places.items():
            self._loaded.shards[shard_id].continue_from(place)
        self._places = {}

    def _forget_rings(self) -> None:
        for shard in self._loaded.shards.values():
            shard.ring = None
