"""Write the snapshots of a journal in the background, and remove the files that are not needed any more."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from discorder.clock import Clock
from discorder.daemon_thread import in_daemon_thread
from discorder.guilds import GuildsSnapshot
from discorder.publishers.journal import snapshot_file
from discorder.publishers.journal.directory import Directory
from discorder.publishers.journal.loading import Loaded
from discorder.publishers.journal.segments import Segment

logger = logging.getLogger(__name__)


class Snapshots:
    """Writes at most one snapshot at a time; ``saving`` is its task, None without one.

    A segment is removed once a complete snapshot is newer than all of it, and the ring has no room or no use for it: all files
    have more than ``ring_bytes``, or its events are older than ``ring_seconds``.
    """

    def __init__(self, directory: Directory, clock: Clock, *, ring_bytes: int, ring_seconds: float) -> None:
        self.saving: asyncio.Task[bool] | None = None
        self._directory = directory
        self._clock = clock
        self._ring_bytes = ring_bytes
        self._ring_seconds = ring_seconds

    def begin(self, loaded: Loaded, complete: Segment | None = None) -> asyncio.Task[bool]:
        """Freeze the guilds, and write them in a thread. ``complete``: the segment that ends there, which is synced first.

        The task returns whether the snapshot was written.
        """
        shards: list[snapshot_file.ShardHeader] = []
        guilds: list[GuildsSnapshot] = []
        for one in loaded.shards.values():
            place, frozen = one.place, one.guilds.freeze()
            if place is not None and frozen is not None:  # never of a session whose READY is not known
                shards.append(snapshot_file.ShardHeader(one.shard, place.session, place.seq))
                guilds.append(frozen)
        header = snapshot_file.Header(loaded.segments.newest.end, tuple(shards))
        descriptor = -1 if complete is None else os.dup(complete.descriptor)
        self._directory.hold()
        directory = self._directory

        def write() -> None:
            try:
                if descriptor >= 0:
                    os.fsync(descriptor)
                snapshot_file.write(directory.path, header, [one.pack() for one in guilds])
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
                directory.release()

        saving = self.saving = asyncio.create_task(self._save(loaded, header.at, write), name="journal-snapshot")
        return saving

    async def _save(self, loaded: Loaded, at: int, write: Callable[[], None]) -> bool:
        try:
            await in_daemon_thread(write, "journal-snapshot")
        except OSError as error:
            logger.warning(
                "The journal cannot write its snapshot, and keeps its older files until the next one: %s: %s",
                *(self._directory.path, error.strerror or error),
            )
            return False
        else:
            loaded.snapshot_at = at
            self.remove_old(loaded)
            return True
        finally:
            self.saving = None

    def remove_old(self, loaded: Loaded) -> None:
        """Remove the segments that neither the snapshot nor the ring needs."""
        segments, oldest_at = loaded.segments, self._clock.now().timestamp() - self._ring_seconds
        while len(segments.all) > 1 and loaded.snapshot_at is not None:
            oldest = segments.all[0]
            if oldest.end > loaded.snapshot_at or (
                segments.total_bytes <= self._ring_bytes and oldest.ended_at >= oldest_at
            ):
                return
            dropped = segments.drop_oldest()
            for shard in loaded.shards.values():
                if shard.ring is not None:
                    shard.ring.drop(dropped)
