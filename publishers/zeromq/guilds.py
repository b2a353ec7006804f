"""Answer the request `guilds`: the packed guilds of one shard, each when there is room for it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from discorder.guilds.feed import Snapshot
from discorder.publishers.zeromq.shard_log import LogEntry


class GuildsReader:
    """Move through the guilds of a snapshot. The snapshot does not change, and what it shares with the state is not copied."""

    def __init__(self, shard: tuple[int, int], snapshot: Snapshot) -> None:
        self._shard = shard
        self._place, self._guilds = snapshot
        self._left = list(snapshot.guilds.states)[::-1]
        self._entry: LogEntry | None = None

    def look(self) -> LogEntry | None:
        """Return the next guild; the same one until `step`. None at the end."""
        if self._entry is None and self._left:
            guild_id = self._left[-1]
            self._entry = LogEntry(self._place.seq, b"%d" % guild_id, self._guilds.packed(guild_id))
        return self._entry

    def wanted(self, entry: LogEntry) -> bool:  # noqa: ARG002  # see `ReplaySource`
        """Return True: every guild is sent."""
        return True

    def step(self) -> None:
        """Move past the guild that `look` returned."""
        self._left.pop()
        self._entry = None

    def end(self) -> Mapping[str, object]:
        """Return the fields of the last part: where the guilds are in the stream, and what READY said, with later changes."""
        return {
            "shard": self._shard,
            "session": self._place.session,
            "seq": self._place.seq,
            "guilds": [str(guild_id) for guild_id in self._guilds.guild_ids],
            "ready": msgspec.Raw(self._guilds.ready),
        }
