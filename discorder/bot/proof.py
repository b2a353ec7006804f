"""What of one shard is proven to be handed on: a place up to which everything is, and how far each type is beyond it.

It knows what was wanted, and nothing of gaps, replays or where events come from.
"""

from __future__ import annotations

from discorder.bot.places import PositionData, Saved, Shard
from discorder.wire import ReceivedEvent


class Proof:
    """``types``: the names that are wanted, None for all."""

    def __init__(self, types: frozenset[str] | None) -> None:
        self.session: str | None = None  # the label; None before the first event
        self.upto = 0  # everything that is wanted, up to here, is handed on or told to be lost
        self._types = types
        self._seen: dict[str, int] = {}

    def begin(self, session: str, upto: int = 0) -> None:
        """Another session, of which nothing up to ``upto`` is missed."""
        self.session, self.upto, self._seen = session, upto, {}

    def go_on_from(self, place: Saved) -> None:
        """As an earlier run left it."""
        self.session, self.upto, self._seen = place.session, place.seq, dict(place.seen)

    def saved(self, shard: Shard) -> Saved | None:
        """As a later run is to find it; None before the first event."""
        if self.session is None:
            return None
        return Saved(shard, self.session, self.upto, {name: seq for name, seq in self._seen.items() if seq > self.upto})

    def wants(self, name: str) -> bool:
        """Whether events of this name are to be handed on."""
        return self._types is None or name in self._types

    def has(self, name: str) -> int:
        """Up to here everything of this type is handed on."""
        return max(self.upto, self._seen.get(name, 0))

    def has_all(self, position: PositionData) -> bool:
        """Whether nothing is missing up to a position that the bus told."""
        return self.upto >= position.since and all(
            seq <= self.has(name) for name, seq in position.types.items() if self.wants(name)
        )

    def follows(self, event: ReceivedEvent, seq: int) -> bool:
        """Whether nothing wanted lies between what is handed on and ``event``."""
        if event.prev is not None:
            return event.prev <= self.has(event.type)
        return self._types is None and seq == self.upto + 1

    def take(self, name: str, seq: int) -> None:
        """An event is handed on."""
        if self._types is None and seq == self.upto + 1:
            self.upto = seq
        else:
            self._seen[name] = seq

    def take_replayed(self, name: str, seq: int) -> None:
        """An event of a replay is handed on; whether there is a hole before it is known only at the end."""
        self._seen[name] = seq

    def move_to(self, seq: int) -> None:
        """Everything up to ``seq`` is handed on or told to be lost; it never moves back."""
        if seq > self.upto:
            self.upto = seq
            self._seen = {name: last for name, last in self._seen.items() if last > seq}
