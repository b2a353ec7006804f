"""Define the feed of a façade: the guilds of a shard at a place in its stream, and the events after a place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from discorder.guilds.snapshot import GuildsSnapshot
from discorder.wire import StreamPosition


class NotHeld(LookupError):
    """The events after a place are not held any more, or the place belongs to another session than the present one.

    ``held_after``: the sequence after which the events of the place's session are held; None if none is.
    """

    def __init__(self, message: str, held_after: int | None = None) -> None:
        super().__init__(message)
        self.held_after = held_after


class Entry(NamedTuple):
    """One event of a shard. ``received_at``: seconds since the epoch. ``seq`` is None in a record of lost events.

    ``data`` is Discord's ``d``, byte for byte.
    """

    seq: int | None
    type: str
    received_at: float
    data: bytes


class Snapshot(NamedTuple):
    """The guilds of a shard when every event up to ``place`` was folded into them."""

    place: StreamPosition
    guilds: GuildsSnapshot


class Feed(Protocol):
    """Read what the control plane has received. All methods are called on the loop of the feed and return at once."""

    @property
    def layout(self) -> tuple[Sequence[int], int] | None:
        """Return the shard ids of this process and the shard count; None while they are not known."""
        ...

    @property
    def intents(self) -> int:
        """Return the intents of the control plane."""
        ...

    def snapshot(self, shard: int) -> Snapshot | None:
        """Return the guilds of ``shard`` as they are now, and the place at which they are; None before its first READY."""
        ...

    def end(self, shard: int) -> StreamPosition | None:
        """Return the place of the newest event of ``shard``; None before its first READY."""
        ...

    def entries(self, shard: int, after: StreamPosition, most_bytes: int) -> Sequence[Entry]:
        """Return the oldest events after ``after``: at least one if there is one, then as many as ``most_bytes`` allows.

        Raises `NotHeld`.
        """
        ...

    def watch(self, wake: Callable[[int], None]) -> Callable[[], None]:
        """Call ``wake`` with the shard after new events, soon and on the loop. Return the function that ends this."""
        ...
