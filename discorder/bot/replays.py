"""Has the holes of a subscription filled: sends what `Continuity` asks for to the ROUTER, and feeds it the answers.

It knows deadlines, but neither waits nor reads a clock: its owner does, and tells it the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from discorder.bot.continuity import Continuity
from discorder.bot.dealer import Dealer, Part
from discorder.bot.places import GAP_RECORD, Item, Shard, end_of_replay
from discorder.wire import decode_document

AT_ONCE = 4  # replays; the bus allows a client eight
FIRST_PART = 2.0  # seconds until an unanswered request is sent again
NEXT_PART = 10.0  # the same between two parts
TRY_AGAIN = 0.1  # seconds while nobody is there to ask
REFUSED_AGAIN = 1.0  # seconds after a refusal that does not say when
GIVE_UP = 6.0  # seconds without an answer, while events of the shard wait
SILENCE = 30.0  # seconds in which nobody is asked after that

Flow = tuple[Shard, Iterator[Item]]


@dataclass(slots=True)
class _Request:
    """What goes on for one shard; ``id`` None: nothing is on its way."""

    began: float
    due: float
    id: bytes | None = None


@dataclass(slots=True)
class _Census:
    """The question which shards there are."""

    wanted: bool
    id: bytes | None = None
    due: float = 0.0


@dataclass(slots=True)
class Replays:
    """All replays of one subscription."""

    dealer: Dealer
    continuity: Continuity
    census_wanted: bool
    _requests: dict[Shard, _Request] = field(default_factory=dict)
    _census: _Census = field(init=False)
    sent: bool = False  # by the last `tend`
    _silent_until: float = 0.0

    def __post_init__(self) -> None:
        self._census = _Census(self.census_wanted)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to read and nothing to tend."""
        return not self.continuity.asks and self.continuity.replay and not self._census.wanted

    def read(self, now: float) -> list[Flow] | None:
        """Take in one part of an answer; None when there is none. Raises ValueError for what is no part of one."""
        part = self.dealer.read()
        if part is None:
            return None
        if part.id == self._census.id:
            return self._take_census(part)
        for shard, request in self._requests.items():
            if request.id == part.id:
                return self._take(shard, request, part, now)
        return []  # of a request that was given up

    def tend(self, now: float) -> list[Flow]:
        """Send what is due, and give up what has waited too long."""
        asks = self.continuity.asks
        self.sent = False
        for shard in [shard for shard in self._requests if shard not in asks]:
            del self._requests[shard]
        if now >= self._silent_until:
            self.continuity.replay = True
        self._count_shards(now)
        flows: list[Flow] = []
        for shard in list(asks):
            request = self._requests.setdefault(shard, _Request(now, now))
            if request.id is None and self._under_way >= AT_ONCE:
                request.began = now  # it waits for others, not for an answer
            elif now >= request.due:
                flows += self._send(shard, request, now)
        return flows

    def due(self, now: float) -> float | None:
        """Seconds until `tend` has something to do; None: nothing by itself."""
        if self.idle:
            return None
        room = self._under_way < AT_ONCE
        times = [request.due for request in self._requests.values() if room or request.id is not None]
        if not self.continuity.replay:
            times.append(self._silent_until)
        if self._census.wanted:
            times.append(self._census.due)
        return max(0.0, min(times) - now) if times else None

    @property
    def _under_way(self) -> int:
        return sum(request.id is not None for request in self._requests.values())

    def _send(self, shard: Shard, request: _Request, now: float) -> list[Flow]:
        """Ask, or ask again: an answer that stopped coming will not come any more."""
        if now - request.began >= GIVE_UP and self.continuity.is_held(shard):
            return self._give_up(shard, now, f"nobody answers at {self.dealer.address}")
        ask = self.continuity.asks[shard]
        types = self.continuity.types
        wanted = None if types is None else [*types, GAP_RECORD]
        request.id = self.dealer.ask("replay", shard=shard[0], session=ask.session, after=ask.after, types=wanted)
        request.due = now + (TRY_AGAIN if request.id is None else FIRST_PART)
        self.continuity.replay_begins(shard)
        self.sent = True
        return []

    def _give_up(self, shard: Shard, now: float, cause: str) -> list[Flow]:
        del self._requests[shard]
        self.continuity.replay = False
        self._silent_until = now + SILENCE
        return [(shard, self.continuity.give_up(shard, cause))]

    def _take(self, shard: Shard, request: _Request, part: Part, now: float) -> list[Flow]:
        request.began, request.due = now, now + NEXT_PART
        if part.topic:
            return [(shard, self.continuity.replayed(shard, decode_document(part.document)))]
        fields = part.fields()
        if fields.get("ok"):
            del self._requests[shard]
            return [(shard, self.continuity.replay_ended(shard, end_of_replay(fields)))]
        request.id = None
        request.due = now + (fields.get("retry_after") or REFUSED_AGAIN)
        if fields.get("error") in {"no_such_shard", "busy"}:  # it has not heard of it yet, or not now
            return []
        return self._give_up(shard, now, f"{self.dealer.address} refuses: {fields.get('message')}")

    def _count_shards(self, now: float) -> None:
        census = self._census
        if census.wanted and now >= census.due:
            census.id = self.dealer.ask("positions")
            census.due = now + (TRY_AGAIN if census.id is None else FIRST_PART)
            self.sent = True

    def _take_census(self, part: Part) -> list[Flow]:
        self._census.wanted, self._census.id = False, None
        shards = [(entry["shard"][0], entry["shard"][1]) for entry in part.fields().get("shards", ())]
        return [(shard, self.continuity.meet(shard)) for shard in shards]
