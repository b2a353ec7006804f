"""Count the sessions of each bot on each shard for as long as the façade is open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SessionCounts:
    """How often a bot identified, resumed and got op 9. ``library``: what it said of itself at its last IDENTIFY."""

    library: str = ""
    identifies: int = 0
    resumes: int = 0
    invalid_sessions: int = 0


class CountsByShard:
    """The counts of every bot on every shard. A shard that is None: an op 9 for a session id without a shard.

    ``refused``: why the last IDENTIFY of a bot was refused; a bot that has had a session since then is not in it.
    """

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self._counts: dict[tuple[str, int | None], SessionCounts] = {}

    def identified(self, client: str, shard: int, library: str) -> None:
        """Count a session that begins."""
        counts = self.of(client, shard)
        counts.library = library
        counts.identifies += 1
        self.refused.pop(client, None)

    def of(self, client: str, shard: int | None) -> SessionCounts:
        """Return the counts of one bot on one shard, which may be changed."""
        return self._counts.setdefault((client, shard), SessionCounts())

    def total(self, client: str) -> SessionCounts:
        """Return the sums over all shards of one bot. Thread-safe."""
        total = SessionCounts()
        for (name, _), counts in list(self._counts.items()):
            if name == client:
                total.identifies += counts.identifies
                total.resumes += counts.resumes
                total.invalid_sessions += counts.invalid_sessions
        return total
