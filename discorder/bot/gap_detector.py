"""Detects lost events, shard by shard, and decides what to replay and where a `Gap` is due. Pure: no socket, clock or file.

Each shard has a position: everything wanted up to it was delivered, or a `Gap` covers it. It advances by a number that follows on
the one before (when every type is wanted), by a position that the bus reports, or by a replay. After it each type is checked by
``prev``. An event that fits neither is held until a replay has filled the gap, or a `Gap` is delivered because nobody can.
"""

from __future__ import annotations

from collections.abc import Iterator

from discorder.bot.positions import GAP_RECORD, Item, ReplayEnd, ReplayRequest, SavedPosition, Shard
from discorder.bot.shard_gap_detector import NOT_REQUESTED, ShardGapDetector, SharedState
from discorder.wire import ReceivedEvent


class GapDetector:
    """All shards of one subscription. ``types``: the wanted ones, None for all. ``replay``: whether replays may be requested.

    ``saved``: the positions of an earlier run, None for none. A shard that is not among them starts with the oldest event that
    can be replayed; without an earlier run it starts with the first event that arrives. ``lost``: why events are missing where no
    replay may be requested.
    """

    def __init__(
        self,
        types: frozenset[str] | None,
        *,
        replay: bool,
        saved: tuple[SavedPosition, ...] | None,
        from_oldest: bool = False,
        lost: str = NOT_REQUESTED,
    ) -> None:
        self._can_replay = replay
        oldest = (saved is not None or from_oldest) and replay
        self.shared = SharedState(types, replay, from_oldest=oldest, nothing_before=saved is None, lost=lost)
        self._shards: dict[Shard, ShardGapDetector] = {}
        self._count: int | None = None  # of shards, in the last layout
        for position in saved or ():
            self._shard(position.shard).restore(position)

    # Each of these continues as it is iterated, and must be iterated to its end before the next is called: what has been yielded
    # is part of `position`, what has not is not.

    def accept(self, event: ReceivedEvent) -> bool:
        """Return whether to deliver ``event`` as it is, and nothing else. The short way for most events; else call `receive`."""
        shard = self._shards.get(event.shard)
        return shard is not None and shard.accept(event)

    def receive(self, event: ReceivedEvent) -> Iterator[Item]:
        """Yield what to deliver now that ``event`` came from the bus."""
        if event.type == GAP_RECORD and event.shard not in self._shards:
            return  # such as the end of an older layout, which may come after the first events of the new one
        yield from self._end_other_layouts(event.shard[1])
        yield from self._shard(event.shard).receive(event)

    def begin_replay(self, shard: Shard) -> None:
        """Note that the replay of ``shard`` is requested, perhaps again after an answer that was cut off."""
        self._shard(shard).begin_replay()

    def receive_replayed(self, shard: Shard, event: ReceivedEvent) -> Iterator[Item]:
        """Yield what to deliver now that ``event`` came in a replay of ``shard``."""
        if event.shard == shard in self._shards:
            yield from self._shards[shard].receive_replayed(event)

    def unconfirmed(self, shard: Shard) -> ReplayRequest | None:
        """Return what to check after an answer that was cut off: whether the bus still has everything after this position.

        None: request the whole replay again.
        """
        return self._shard(shard).unconfirmed

    def confirm(self, shard: Shard, end: ReplayEnd) -> None:
        """Process the answer about `unconfirmed`: if it is complete, the replay continues where it was cut off."""
        self._shard(shard).confirm(end)

    def end_replay(self, shard: Shard, end: ReplayEnd) -> Iterator[Item]:
        """End the replay of ``shard``. A bus that has another number of shards answers for the shard with the same id."""
        if end.shard is not None and end.shard[1] != shard[1]:
            yield from self._end_other_layouts(end.shard[1])
        elif shard in self._shards:
            yield from self._shards[shard].end_replay(end)

    def abandon_replay(self, shard: Shard, cause: str) -> Iterator[Item]:
        """Deliver the held events of ``shard`` without a replay, after a `Gap` where some are missing."""
        if shard in self._shards:
            yield from self._shards[shard].abandon_replay(cause)

    def add(self, shard: Shard) -> Iterator[Item]:
        """Add a shard that the bus reports."""
        yield from self._end_other_layouts(shard[1])
        self._shard(shard).add()

    def start(self, position: SavedPosition) -> Iterator[Item]:
        """Start a shard at ``position``: everything up to it is known, and what came since is requested."""
        yield from self._end_other_layouts(position.shard[1])
        self._shard(position.shard).restore(position)

    def receive_after_loss(self, event: ReceivedEvent) -> Iterator[Item]:
        """Yield what to deliver now that ``event`` came, before which events of any type may be lost; else as `receive`.

        Only for events that come in their order: nothing is missing up to the last one that was delivered.
        """
        yield from self._shard(event.shard).lose_before(event)
        yield from self.receive(event)

    def request_all(self) -> None:
        """Request of each shard what may have been missed on a connection that was silent."""
        for shard in self._shards.values():
            shard.request_missed()

    def holds(self, shard: Shard) -> bool:
        """Return whether events of ``shard`` wait for a replay."""
        return shard in self._shards and bool(self._shards[shard].held)

    def position(self, shard: Shard) -> SavedPosition | None:
        """Return the position to save once everything that was yielded is processed; None before the first event."""
        return self._shards[shard].position if shard in self._shards else None

    def first_position(self, shard: Shard) -> SavedPosition | None:
        """Return the position before the first item; None before the first event, and where an earlier run had saved one."""
        return self._shards[shard].first_position if shard in self._shards else None

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All known shards."""
        return tuple(self._shards)

    def _end_other_layouts(self, count: int) -> Iterator[Item]:
        """End each shard that is not one of ``count``: the bot runs with that many now.

        A shard is forgotten once its gap was processed, so that a cursor never loses it.
        """
        if count == self._count:
            return
        self._count = count
        for shard in [shard for shard in self._shards if shard[1] != count]:
            self.shared.requests.pop(shard, None)
            yield from self._shards[shard].end(f"the bot has {count} shards now")
            del self._shards[shard]
            self.shared.nothing_before, self.shared.from_oldest = False, self._can_replay

    def _shard(self, shard: Shard) -> ShardGapDetector:
        found = self._shards.get(shard)
        if found is None:
            found = self._shards[shard] = ShardGapDetector(shard, self.shared)
        return found
