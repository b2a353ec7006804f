"""What a subscriber can prove to have got, shard by shard, and what it has to ask for again. Pure: no socket, no clock, no file.

The rule: everything wanted up to a place was handed on, or a `Gap` covers it. The place moves only by proof: a number that
follows on the one before (when every type is wanted), a position that the bus tells, or a replay. Beyond it each type is followed
by ``prev``. Whatever fits neither is held back until a replay has filled the hole, or a `Gap` says that nobody can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from discorder.bot.places import Ask, Item, ReplayEnd, Saved, Shard
from discorder.bot.shard_continuity import ShardContinuity, Wishes
from discorder.wire import ReceivedEvent


class Continuity:
    """All shards of one subscription. ``types`` None: all. ``replay``: whether holes may be asked for; it may be changed.

    ``saved`` is where an earlier run had come, None for none: a shard that is not in it then starts with what comes first, with
    it at the oldest event that can be repeated.
    """

    def __init__(
        self, types: frozenset[str] | None, *, replay: bool, saved: tuple[Saved, ...] | None, from_oldest: bool = False
    ) -> None:
        oldest = (saved is not None or from_oldest) and replay
        self._wishes = Wishes(types, replay, from_oldest=oldest, nothing_before=saved is None)
        self._shards: dict[Shard, ShardContinuity] = {}
        for place in saved or ():
            self._shard(place.shard).go_on_from(place)

    @property
    def types(self) -> frozenset[str] | None:
        """The names that are wanted, None for all."""
        return self._wishes.types

    @property
    def replay(self) -> bool:
        """Whether holes may be asked for."""
        return self._wishes.replay

    @replay.setter
    def replay(self, may_ask: bool) -> None:
        self._wishes.replay = may_ask

    # Each of these goes on as it is iterated, and must be iterated to its end before the next is called: what has been yielded is
    # part of `saved`, what has not is not.

    def accept(self, event: ReceivedEvent) -> bool:
        """Whether ``event``, as it was published, is to be handed on, and nothing else: what nearly all of them are."""
        shard = self._shards.get(event.shard)
        return shard is not None and shard.accept(event)

    def live(self, event: ReceivedEvent) -> Iterator[Item]:
        """What is to be handed on now that ``event`` came from the bus, as it was published."""
        if event.shard not in self._shards:
            yield from self._end_other_layouts(event.shard[1])
        yield from self._shard(event.shard).live(event)

    def replay_begins(self, shard: Shard) -> None:
        """What is wanted of ``shard`` is asked for, or asked for once more: of an earlier answer only its parts are known."""
        self._shard(shard).replay_begins()

    def replayed(self, shard: Shard, event: ReceivedEvent) -> Iterator[Item]:
        """The same for a part of a replay of ``shard``."""
        if event.shard == shard:
            yield from self._shard(shard).replayed(event)

    def replay_ended(self, shard: Shard, end: ReplayEnd) -> Iterator[Item]:
        """The replay of ``shard`` is through."""
        yield from self._shard(shard).replay_ended(end)

    def give_up(self, shard: Shard, cause: str) -> Iterator[Item]:
        """Nobody answers for ``shard``: what was held back goes on, behind a `Gap` where there is a hole."""
        yield from self._shard(shard).give_up(cause)

    def meet(self, shard: Shard) -> Iterator[Item]:
        """There is such a shard."""
        if shard not in self._shards:
            yield from self._end_other_layouts(shard[1])
        self._shard(shard).meet()

    @property
    def asks(self) -> Mapping[Shard, Ask]:
        """The replays that are wanted now."""
        return self._wishes.asking

    def is_held(self, shard: Shard) -> bool:
        """Whether events of ``shard`` wait for a replay."""
        return bool(self._shard(shard).held)

    def place(self, shard: Shard) -> Saved | None:
        """What a cursor is to keep of one shard once everything that was yielded is dealt with; None for nothing yet."""
        return self._shard(shard).saved

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards that are known."""
        return tuple(self._shards)

    def _end_other_layouts(self, count: int) -> Iterator[Item]:
        """The bot runs with ``count`` shards now: what went on with another number of them is over."""
        for shard in [shard for shard in self._shards if shard[1] != count]:
            yield from self._shards.pop(shard).end(f"the bot has {count} shards now")
            self._wishes.asking.pop(shard, None)

    def _shard(self, shard: Shard) -> ShardContinuity:
        found = self._shards.get(shard)
        if found is None:
            found = self._shards[shard] = ShardContinuity(shard, self._wishes)
        return found
