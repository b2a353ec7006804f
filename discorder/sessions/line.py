"""The line before the identify gate: one queue per bucket, the lowest shard first (gateway-protocol.md §7).

Must not: pay for a ticket, or know the ledger.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from discorder.clock import Clock

OVERDUE = 60.0  # seconds: who was sent away and is so late is not waited for


@dataclass(slots=True, eq=False)
class Request:
    """A shard that waits until monotonic second ``deadline``. ``order`` tells apart two requests of one shard."""

    shard_id: int
    order: int
    deadline: float
    withdrawn: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def rank(self) -> tuple[int, int]:
        return self.shard_id, self.order


class Line:
    """Who waits in which bucket, and who was sent away and will come back."""

    def __init__(self, clock: Clock) -> None:
        self.is_open = False  # the number of buckets is known
        self._clock = clock
        self._concurrency = 1
        self._queues: dict[int, list[Request]] = {}
        self._away: dict[int, float] = {}  # shard to monotonic second at which it is due back
        self._order = itertools.count()

    @property
    def waiting(self) -> list[int]:
        """The shards that wait, in the order of their ids."""
        return sorted(request.shard_id for queue in self._queues.values() for request in queue)

    def bucket(self, shard_id: int) -> int:
        return shard_id % self._concurrency

    def set_concurrency(self, buckets: int) -> None:
        """``max_concurrency`` as Discord says; everybody lines up anew where it has changed."""
        self.is_open = True
        if buckets != self._concurrency:
            everybody = [request for queue in self._queues.values() for request in queue]
            self._concurrency = buckets
            self._queues = {}
            for request in everybody:
                self._line_up(request)

    def enter(self, shard_id: int, seconds: float) -> Request:
        """Line up for at most ``seconds``."""
        self._away.pop(shard_id, None)
        request = Request(shard_id, next(self._order), self._clock.monotonic() + seconds)
        self._line_up(request)
        return request

    def leave(self, request: Request) -> None:
        """Whoever is behind may go on."""
        request.withdrawn = True
        self._queues[self.bucket(request.shard_id)].remove(request)
        self.wake(self.bucket(request.shard_id))

    def before(self, request: Request) -> int:
        """How many wait in front of ``request``."""
        return bisect_left(self._queues[self.bucket(request.shard_id)], request.rank, key=_rank)

    def send_away(self, shard_id: int, seconds: float) -> None:
        """The shard comes back in ``seconds``; until then its place is kept."""
        self._away[shard_id] = self._clock.monotonic() + seconds

    def coming_back_before(self, shard_id: int) -> int:
        """How many that were sent away will stand in front of ``shard_id``; who is long overdue is not waited for."""
        overdue, bucket = self._clock.monotonic() - OVERDUE, self.bucket(shard_id)
        for shard in [shard for shard, due in self._away.items() if due <= overdue]:
            del self._away[shard]
        return sum(shard < shard_id and self.bucket(shard) == bucket for shard in self._away)

    async def pause(self, request: Request, seconds: float) -> None:
        """Return after ``seconds``, or as soon as something has changed for ``request`` since its ``woken`` was cleared."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        timer = self._clock.call_later(seconds, request.woken.set)
        try:
            await request.woken.wait()
        finally:
            timer.cancel()

    def wake(self, bucket: int) -> None:
        """Something has changed for those who wait in ``bucket``."""
        _wake(self._queues.get(bucket, ()))

    def wake_all(self) -> None:
        """Something has changed for everybody."""
        for queue in self._queues.values():
            _wake(queue)

    def _line_up(self, request: Request) -> None:
        insort(self._queues.setdefault(self.bucket(request.shard_id), []), request, key=_rank)


def _rank(request: Request) -> tuple[int, int]:
    return request.rank


def _wake(requests: Iterable[Request]) -> None:
    for request in requests:
        request.woken.set()
