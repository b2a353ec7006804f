"""Remember up to where each bot was sent its shards' events, so that one that was killed can catch up at its next IDENTIFY."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from discorder.logs import logger
from discorder.wire import MAX_SEQ, StreamPosition

FORGET_SECONDS = 7200.0  # above the longest ``catch_up``
LATEST = 250_000_000_000.0  # seconds since the epoch, in the year 9892: what a datetime can hold


class Place(NamedTuple):
    """The place of a bot in the stream of a shard, and when it was last connected there (seconds since the epoch)."""

    position: StreamPosition
    seen_at: float


class PlaceStore(Protocol):
    """Keeps one small text for the façade across restarts. Both methods are called on the loop and return soon."""

    def load_places(self) -> Sequence[bytes]:
        """Return what was saved last: several texts if façades in several places have served the bots."""
        ...

    def save_places(self, text: bytes) -> None:
        """Save ``text`` instead of what was saved before."""
        ...


class _Stored(msgspec.Struct):
    client: str
    shard: int
    session: str
    seq: Annotated[int, Meta(ge=0, le=MAX_SEQ)]
    seen_at: Annotated[float, Meta(ge=0, le=LATEST)]


_decode = msgspec.json.Decoder(list[_Stored]).decode


class Places:
    """The places of all bots. ``now`` returns seconds since the epoch."""

    def __init__(self, store: PlaceStore, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._places: dict[tuple[str, int], Place] = {}
        self._changed = False
        for text in store.load_places():
            try:
                self._take(_decode(text))
            except ValueError as error:  # of msgspec's, and those of a text that is not UTF-8
                logger.warning(
                    "Saved places of the façade's bots are unreadable, so some do not catch up", error=str(error)
                )

    def _take(self, stored: Iterable[_Stored]) -> None:
        for one in stored:
            place, known = Place(StreamPosition(one.session, one.seq), one.seen_at), self.get(one.client, one.shard)
            if known is None or known.seen_at < place.seen_at:
                self._places[one.client, one.shard] = place

    def get(self, client: str, shard: int) -> Place | None:
        """Return the place of a bot; None if it was never connected."""
        return self._places.get((client, shard))

    def seen_at(self, client: str) -> float | None:
        """Return when a bot was last connected on any shard; None if that is not known. Thread-safe."""
        return max((place.seen_at for (name, _), place in list(self._places.items()) if name == client), default=None)

    def put(self, client: str, shard: int, position: StreamPosition) -> None:
        """Set the place of a bot that is connected now. That of an unknown bot is saved at once.

        After a crash, a bot with an old place gets some events twice; one without a place would miss events.
        """
        is_new = (client, shard) not in self._places
        self._places[client, shard] = Place(position, self._now())
        self._changed = True
        if is_new:
            self.save()

    def save(self) -> None:
        """Save the places if one has changed, without those that no bot can use any more."""
        if not self._changed:
            return
        oldest = self._now() - FORGET_SECONDS
        self._places = {key: place for key, place in self._places.items() if place.seen_at > oldest}
        stored = [
            _Stored(client, shard, *place.position, place.seen_at) for (client, shard), place in self._places.items()
        ]
        self._store.save_places(msgspec.json.encode(stored))
        self._changed = False
