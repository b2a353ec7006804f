"""Hands every event to every publisher, so that none can hold up, break or even notice another.

It belongs to the loop; only `FanOut.add`, `FanOut.remove` and what it tells may be used from any thread. Its lanes do the waiting
(`discorder.publishers.lane`), and each shard asks its `ShardDelivery` how far they are.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from discorder.clock import Clock, within
from discorder.errors import NotRunning
from discorder.publishers.blocking import BlockingLane
from discorder.publishers.delivery import ShardDelivery
from discorder.publishers.dropping import DroppingLane
from discorder.publishers.health import PublisherHealth, PublisherState
from discorder.publishers.lane import Lane
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.publishers.protocol import AnsweringPublisher, Desk, Publisher
from discorder.publishers.registry import check_delivery
from discorder.wire import Event

__all__ = ["DeliveryOptions", "FanOut", "PublisherHealth", "PublisherState"]

REMOVAL_DRAIN = 1.0  # seconds in which a publisher that is removed still gets what waits for it
DEFAULT_OPTIONS = DeliveryOptions()

logger = logging.getLogger(__name__)


class FanOut:
    """The publishers of one control plane. They live as long as it does, whatever happens to connections."""

    def __init__(self, clock: Clock, desk: Desk | None = None) -> None:
        """``desk``: whom publishers may ask for their readers."""
        self._clock = clock
        self._desk = desk
        self._lanes: dict[str, Lane] = {}
        self._offers: tuple[Lane, ...] = ()  # what the hot path walks through
        self._shards: dict[int, ShardDelivery] = {}
        self._removals: dict[asyncio.Task[None], Lane] = {}
        self._dropped_by_removed = self._gaps_of_removed = 0
        self._lock = threading.Lock()  # of all that `add` and `remove` change
        self._loop: asyncio.AbstractEventLoop | None = None  # once it is open
        self._closed = False

    @property
    def publishers(self) -> tuple[Publisher, ...]:
        """All publishers, in the order in which they were added."""
        return tuple(lane.publisher for lane in self._offers)

    @property
    def health(self) -> tuple[PublisherHealth, ...]:
        """State, queue, counts and last error of each publisher, in the order in which they were added."""
        return tuple(lane.health for lane in self._offers)

    @property
    def dropped(self) -> int:
        """Events that were dropped since the start, by publishers that were removed as well."""
        lanes = (*self._offers, *tuple(self._removals.values()))
        return self._dropped_by_removed + sum(lane.health.dropped for lane in lanes)

    @property
    def gaps(self) -> int:
        """Gaps of both kinds since the start: lost sessions, and runs of events that a publisher dropped."""
        lanes = (*self._offers, *tuple(self._removals.values()))
        lost_sessions = sum(shard.lost_sessions for shard in tuple(self._shards.values()))
        return lost_sessions + self._gaps_of_removed + sum(lane.health.gaps for lane in lanes)

    async def open(self) -> None:
        """Open what was added so far, in order. The first failure closes those that were opened, and is raised."""
        lanes = self._offers
        try:
            for lane in lanes:
                await lane.open()
        except BaseException:
            await self._close_lanes(dict.fromkeys((*lanes, *self._offers)))
            raise
        with self._lock:
            self._loop = asyncio.get_running_loop()
            late = [lane for lane in self._offers if lane not in lanes]
            left = [lane for lane in lanes if lane not in self._offers]
        for lane in late:
            lane.open_in_background()
        for lane in left:
            self._begin_removal(lane)

    def add(self, publisher: Publisher, options: DeliveryOptions = DEFAULT_OPTIONS, *, name: str | None = None) -> None:
        """Hand every event from now on to ``publisher`` as well, under ``name`` (default: its own).

        Before `open` it is opened by it; later in the background, where failures are retried and show in `health`. From
        any thread. Raises ValueError for a name or publisher that is there already, TypeError for what is no publisher,
        ConfigError for options that contradict each other or the publisher, and NotRunning after `close`.
        """
        _check_is_publisher(publisher)
        name = name or publisher.name
        check_delivery(publisher, options, f"publishers.{name}")
        if self._desk is not None and isinstance(publisher, AnsweringPublisher):
            publisher.answer_from(self._desk)
        with self._lock:
            self._refuse_taken(publisher, name)
            lane = self._lanes[name] = self._lane(publisher, name, options)
            self._offers = tuple(self._lanes.values())
            self._if_open(lane.open_in_background)

    def remove(self, name: str) -> None:
        """Hand nothing more to ``name``, and close it once it has what waits for it, or after a second. From any thread.

        Raises ValueError for an unknown name, listing the known, and NotRunning after `close`.
        """
        with self._lock:
            self._refuse_when_closed()
            lane = self._lanes.pop(name, None)
            if lane is None:
                msg = f"there is no publisher named {name!r}; there are: {', '.join(self._lanes) or 'none'}"
                raise ValueError(msg)
            self._offers = tuple(self._lanes.values())
            self._if_open(lambda: self._begin_removal(lane))

    def shard(self, shard_id: int) -> ShardDelivery:
        """The side of the fan-out that one shard sees; the same one at every call."""
        if shard_id not in self._shards:
            self._shards[shard_id] = ShardDelivery(shard_id, hand_over=self.hand_over, lanes=lambda: self._offers)
        return self._shards[shard_id]

    def hand_over(self, events: Sequence[Event]) -> None:
        """Offer a batch, not empty, of one connection to every publisher, leaving out what a publisher was handed before.

        Never blocks, and never raises because of a publisher.
        """
        batch = tuple(events)  # shared by all of them, so none may change it
        for lane in self._offers:
            lane.offer(batch)

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until nothing waits for a publisher; parked ones are not waited for."""
        try:
            await within(self._clock, timeout, self._wait_until_idle())
        except TimeoutError:
            left = {health.name: health.queued_events + health.in_flight for health in self.health}
            behind = ", ".join(f"{name} ({count} events)" for name, count in left.items() if count)
            logger.warning("Publishers did not catch up within %g s: %s", timeout, behind)

    async def close(self) -> None:
        """Close all publishers, side by side, in bounded time; idempotent."""
        with self._lock:
            self._closed = True
        await asyncio.sleep(0)  # what another thread has just asked for comes first
        removals = dict(self._removals)
        await self._close_lanes((*removals.values(), *self._offers))
        await asyncio.gather(*removals)  # they wait for nothing any more

    def _refuse_taken(self, publisher: Publisher, name: str) -> None:
        self._refuse_when_closed()
        if name in self._lanes:
            msg = f"there is a publisher named {name!r} already; pass another name="
            raise ValueError(msg)
        if publisher in self.publishers:
            msg = f"this {type(publisher).__name__} was added already"
            raise ValueError(msg)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            msg = "the control plane has ended"
            raise NotRunning(msg)

    def _if_open(self, act: Callable[[], None]) -> None:
        """Call ``act`` on the loop, if that is there yet: now when it is this one, else soon."""
        loop = self._loop
        if loop is None:
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            act()
        else:
            loop.call_soon_threadsafe(act)

    def _lane(self, publisher: Publisher, name: str, options: DeliveryOptions) -> Lane:
        if options.policy is not Overflow.BLOCK:
            return DroppingLane(publisher, name, options, self._clock)
        return BlockingLane(
            publisher, name, options, self._clock, congested=lambda shard: self.shard(shard).congested(name)
        )

    async def _wait_until_idle(self) -> None:
        for lane in self._offers:
            await lane.wait_until_idle()

    async def _close_lanes(self, lanes: Iterable[Lane]) -> None:
        await asyncio.gather(*(lane.close() for lane in lanes))

    def _begin_removal(self, lane: Lane) -> None:
        lane.retire()
        removal = asyncio.create_task(self._retire(lane), name=f"removing publisher {lane.name}")
        self._removals[removal] = lane
        removal.add_done_callback(self._forget_removed)

    def _forget_removed(self, removal: asyncio.Task[None]) -> None:
        health = self._removals.pop(removal).health
        self._dropped_by_removed += health.dropped
        self._gaps_of_removed += health.gaps

    async def _retire(self, lane: Lane) -> None:
        try:
            await within(self._clock, REMOVAL_DRAIN, lane.wait_until_idle())
        except TimeoutError:
            logger.warning("Publisher %s was removed with events still waiting for it", lane.name)
        finally:
            await lane.close()


def _check_is_publisher(publisher: object) -> None:
    missing = [part for part in ("name", "durable", "open", "publish", "close") if not hasattr(publisher, part)]
    if missing:
        msg = f"{type(publisher).__name__} is no publisher: it has no {', '.join(missing)}"
        raise TypeError(msg)
