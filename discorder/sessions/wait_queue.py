"""Queue the shards that wait for the identify gate: one queue per bucket, the lowest shard first.

See docs/protocol.md#session-start-limit.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from discorder.clock import Clock

OVERDUE = 60.0  # seconds after which no place is kept any more for a shard that was to come back


@dataclass(slots=True, eq=False)
class WaitingShard:
    """One waiting shard, until monotonic second ``deadline``. ``order`` distinguishes two requests of one shard."""

    shard_id: int
    order: int
    deadline: float
    withdrawn: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rank(self) -> tuple[int, int]:
        return self.shard_id, self.order


class WaitQueue:
    """The requests that wait, by bucket, and the shards that were sent away and will come back."""

    def __init__(self, clock: Clock) -> None:
        self.is_open = False  # the number of buckets is known
        self._clock = clock
        self.concurrency = 1  # Discord's ``max_concurrency``: the number of buckets
        self._queues: dict[int, list[WaitingShard]] = {}
        self._away: dict[int, float] = {}  # shard to monotonic second at which it is due back
        self._order = itertools.count()

    @property
    def waiting(self) -> list[int]:
        """Return the waiting shards in the order of their ids."""
        return sorted(request.shard_id for queue in self._queues.values() for request in queue)

    def bucket(self, shard_id: int) -> int:
        return shard_id % self.concurrency

    def set_concurrency(self, buckets: int) -> None:
        """Apply Discord's ``max_concurrency``; if it has changed, every request is queued anew."""
        self.is_open = True
        if buckets != self.concurrency:
            waiting = [request for queue in self._queues.values() for request in queue]
            self.concurrency = buckets
            self._queues = {}
            for request in waiting:
                self._insert(request)

    def enter(self, shard_id: int, seconds: float) -> WaitingShard:
        """Queue ``shard_id`` for at most ``seconds``."""
        self._away.pop(shard_id, None)
        request = WaitingShard(shard_id, next(self._order), self._clock.monotonic() + seconds)
        self._insert(request)
        return request

    def leave(self, request: WaitingShard) -> None:
        """Withdraw ``request``, and wake those behind it."""
        request.withdrawn = True
        self._queues[self.bucket(request.shard_id)].remove(request)
        self.wake(self.bucket(request.shard_id))

    def before(self, request: WaitingShard) -> int:
        """Return how many requests are ahead of ``request``."""
        return bisect_left(self._queues[self.bucket(request.shard_id)], request.rank, key=_rank)

    def send_away(self, shard_id: int, seconds: float) -> None:
        """Keep the place of a shard that comes back in ``seconds``."""
        self._away[shard_id] = self._clock.monotonic() + seconds

    def coming_back_before(self, shard_id: int) -> int:
        """Return how many shards that were sent away will be ahead of ``shard_id`` when they come back."""
        overdue, bucket = self._clock.monotonic() - OVERDUE, self.bucket(shard_id)
        for shard in [shard for shard, due in self._away.items() if due <= overdue]:
            del self._away[shard]
        return sum(shard < shard_id and self.bucket(shard) == bucket for shard in self._away)

    async def pause(self, request: WaitingShard, seconds: float) -> None:
        """Return after ``seconds``, or as soon as ``request`` is woken; it clears ``woken`` before it checks anything."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        timer = self._clock.call_later(seconds, request.woken.set)
        try:
            await request.woken.wait()
        finally:
            timer.cancel()

    def wake(self, bucket: int) -> None:
        """Wake the requests of ``bucket``: something has changed for them."""
        _wake(self._queues.get(bucket, ()))

    def wake_all(self) -> None:
        """Wake every request."""
        for queue in self._queues.values():
            _wake(queue)

    def _insert(self, request: WaitingShard) -> None:
        insort(self._queues.setdefault(self.bucket(request.shard_id), []), request, key=_rank)


def _rank(request: WaitingShard) -> tuple[int, int]:
    return request.rank


def _wake(requests: Iterable[WaitingShard]) -> None:
    for request in requests:
        request.woken.set()
