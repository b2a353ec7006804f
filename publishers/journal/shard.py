"""Hold what the journal knows of one shard: its guilds, and where its events are."""

from __future__ import annotations

from discorder.guilds import FOLDED, ShardGuilds
from discorder.guilds.feed import Entry
from discorder.publishers.journal.ring import ShardRing
from discorder.publishers.journal.segments import Segment
from discorder.wire import StreamPosition


class JournaledShard:
    """``shard`` is (id, count). ``ring`` is None before the first event."""

    def __init__(self, shard: tuple[int, int], guilds: ShardGuilds) -> None:
        self.shard = shard
        self.guilds = guilds
        self.ring: ShardRing | None = None

    @property
    def place(self) -> StreamPosition | None:
        """Return the place at which the guilds are; None if the READY of the session is not known."""
        ring = self.ring
        if ring is None or self.guilds.session != ring.session:
            return None
        return StreamPosition(ring.session, ring.seq)

    def note(self, session: str, seq: int | None, kind: str, segment: Segment, start: int, length: int) -> bool:
        """Note a record in a file. Return False for a record of lost events of another session, which no reader gets."""
        ring = self.ring
        if seq is None:
            if ring is None or ring.session != session:
                return False
        elif ring is None or ring.session != session:
            ring = self.ring = ShardRing(session, min(seq - 1, 0) if kind == "READY" else seq - 1)
        ring.add(segment, seq, start, length)
        return True

    def fold(self, session: str, kind: str, data: bytes) -> None:
        """Fold an event into the guilds."""
        if kind in FOLDED:
            self.guilds.apply(session, kind, data)

    def remember(self, entry: Entry) -> None:
        """Keep the newest record in memory. Call it after `note`."""
        if self.ring is not None:
            self.ring.remember(entry)

    def continue_from(self, place: StreamPosition) -> None:
        """Use the guilds of a snapshot, which are at ``place``, after the records before the snapshot were noted."""
        ring = self.ring
        if ring is None or ring.session != place.session or ring.seq < place.seq:
            self.ring = ShardRing(place.session, place.seq)
