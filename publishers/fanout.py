"""Hands every event to every publisher, so that none can hold up, break or even notice another.

It belongs to the loop: other threads come in through the tracker. Its lanes do the waiting (`discorder.publishers.lane`), and
each shard asks its `ShardDelivery` how far they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from discorder.clock import Clock, within
from discorder.publishers.blocking import BlockingLane
from discorder.publishers.delivery import ShardDelivery
from discorder.publishers.dropping import DroppingLane
from discorder.publishers.health import PublisherHealth, PublisherState
from discorder.publishers.lane import Lane
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.publishers.protocol import Publisher
from discorder.publishers.registry import check_delivery
from discorder.wire import Event

__all__ = ["DeliveryOptions", "FanOut", "PublisherHealth", "PublisherState"]

REMOVAL_DRAIN = 1.0  # seconds in which a publisher that is removed still gets what waits for it
DEFAULT_OPTIONS = DeliveryOptions()

logger = logging.getLogger(__name__)


class FanOut:
    """The publishers of one control plane. They live as long as it does, whatever happens to connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._offers: tuple[Lane, ...] = ()  # what the hot path walks through
        self._shards: dict[int, ShardDelivery] = {}
        self._removals: set[asyncio.Task[None]] = set()
        self._opened = False

    @property
    def publishers(self) -> tuple[Publisher, ...]:
        """All publishers, in the order in which they were added."""
        return tuple(lane.publisher for lane in self._offers)

    @property
    def health(self) -> tuple[PublisherHealth, ...]:
        """State, queue, counts and last error of each publisher, in the order in which they were added."""
        return tuple(lane.health for lane in self._offers)

    async def open(self) -> None:
        """Open what was added so far, in order. The first failure closes those that were opened, and is raised."""
        try:
            for lane in self._offers:
                await lane.open()
        except BaseException:
            await self._close_lanes()
            raise
        self._opened = True

    def add(self, publisher: Publisher, options: DeliveryOptions = DEFAULT_OPTIONS, *, name: str | None = None) -> None:
        """Hand every event from now on to ``publisher`` as well, under ``name`` (default: its own).

        Before `open` it is opened by it; later in the background, where failures are retried and show in `health`.
        Raises ValueError for a name or publisher that is there already, TypeError for what is no publisher, and
        ConfigError for options that contradict each other or the publisher.
        """
        _check_is_publisher(publisher)
        name = name or publisher.name
        if name in self._lanes:
            msg = f"there is a publisher named {name!r} already; pass another name="
            raise ValueError(msg)
        if publisher in self.publishers:
            msg = f"this {type(publisher).__name__} was added already"
            raise ValueError(msg)
        check_delivery(publisher, options, f"publishers.{name}")
        lane = self._lane(publisher, name, options)
        self._lanes[name] = lane
        self._offers = tuple(self._lanes.values())
        if self._opened:
            lane.open_in_background()

    def remove(self, name: str) -> None:
        """Hand nothing more to ``name``, and close it once it has what waits for it, or after a second.

        Raises ValueError for an unknown name, listing the known.
        """
        lane = self._lanes.pop(name, None)
        if lane is None:
            msg = f"there is no publisher named {name!r}; there are: {', '.join(self._lanes) or 'none'}"
            raise ValueError(msg)
        self._offers = tuple(self._lanes.values())
        if self._opened:
            removal = asyncio.create_task(self._retire(lane), name=f"removing publisher {name}")
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

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
        self._opened = False
        for removal in self._removals:
            removal.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)
        await self._close_lanes()

    def _lane(self, publisher: Publisher, name: str, options: DeliveryOptions) -> Lane:
        if options.policy is not Overflow.BLOCK:
            return DroppingLane(publisher, name, options, self._clock)
        return BlockingLane(
            publisher, name, options, self._clock, congested=lambda shard: self.shard(shard).congested(name)
        )

    async def _wait_until_idle(self) -> None:
        for lane in self._offers:
            await lane.wait_until_idle()

    async def _close_lanes(self) -> None:
        await asyncio.gather(*(lane.close() for lane in self._offers))

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
