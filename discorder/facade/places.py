"""Remember up to where each bot was sent its shards' events, so that one that was killed can catch up at its next IDENTIFY."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from discorder.wire import StreamPosition

FORGET_SECONDS = 7200.0  # above the longest ``catch_up``


class Place(NamedTuple):
    """The place of a bot in the stream of a shard, and when it was last connected there (seconds since the epoch)."""

    position: StreamPosition
    seen_at: float


Stored = Mapping[tuple[str, int], tuple[StreamPosition, float]]
"""Places by the name of the bot and the id of the shard."""


class PlaceStore(Protocol):
    """Keeps the places across restarts. Both methods are called on the loop and return soon."""

    def read_places(self) -> Stored:
        """Return what was written last; nothing before the first time."""
        ...

    def write_places(self, places: Stored) -> None:
        """Replace what was written before. Raises OSError."""
        ...


class Places:
    """The places of all bots. ``now`` returns seconds since the epoch."""

    def __init__(self, store: PlaceStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._places = {key: Place(*place) for key, place in store.read_places().items()}
        self._changed = False

    def get(self, client: str, shard: int) -> Place | None:
        """Return the place of a bot; None if it was never connected."""
        return self._places.get((client, shard))

    def put(self, client: str, shard: int, position: StreamPosition) -> None:
        """Set the place of a bot that is connected now."""
        self._places[client, shard] = Place(position, self._now())
        self._changed = True

    def save(self) -> None:
        """Save the places if one has changed, without those that no bot can use any more. Raises OSError."""
        if not self._changed:
            return
        oldest = self._now() - FORGET_SECONDS
        self._places = {key: place for key, place in self._places.items() if place.seen_at > oldest}
        self._store.write_places(self._places)
        self._changed = False
