"""Offer every event to every publisher, so that no publisher can delay or break another.

Runs on the loop; only `FanOut.add`, `FanOut.remove` and the properties are thread-safe. The delivery queues do the waiting
(`discorder.publishers.delivery.queue`); a shard reads their progress from its `ShardDelivery`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from discorder.clock import Clock, within
from discorder.errors import NotRunning
from discorder.publishers.delivery.best_effort import BestEffortQueue
from discorder.publishers.delivery.health import PublisherHealth, PublisherState
from discorder.publishers.delivery.isolation import describe
from discorder.publishers.delivery.lossless import LosslessQueue
from discorder.publishers.delivery.queue import DeliveryQueue
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.publishers.options import DeliveryOptions, Overflow
from discorder.publishers.protocol import AnsweringPublisher, BotAwarePublisher, BusApi, Publisher
from discorder.publishers.registry import check_delivery

__all__ = ["DeliveryOptions", "FanOut", "PublisherHealth", "PublisherState"]

REMOVAL_DRAIN = 1.0  # seconds in which a removed publisher still gets the queued events
DEFAULT_OPTIONS = DeliveryOptions()

logger = logging.getLogger(__name__)


class FanOut:
    """Manage the publishers of one control plane, which stay open through every reconnect."""

    def __init__(self, clock: Clock, bus_api: BusApi | None = None, bot_id: int | None = None) -> None:
        """Create a fan-out for the bot ``bot_id``; ``bus_api`` answers the requests that readers send through a publisher."""
        self._clock = clock
        self._bot_id = bot_id
        self._bus_api = bus_api
        self._queues: dict[str, DeliveryQueue] = {}
        self._offers: tuple[DeliveryQueue, ...] = ()  # a snapshot for the shards, in order
        self._shards: dict[int, ShardDelivery] = {}
        self._removals: dict[asyncio.Task[None], DeliveryQueue] = {}
        self._leaving: set[DeliveryQueue] = set()  # from `remove` until the removal has ended
        self._dropped_by_removed = self._gaps_of_removed = 0
        self._gaps_of_forgotten = 0  # of shards that have left
        self._lock = threading.Lock()  # protects the state that `add` and `remove` change
        self._loop: asyncio.AbstractEventLoop | None = None  # None before `open`
        self._closed = False

    @property
    def publishers(self) -> tuple[Publisher, ...]:
        """Return all publishers, in the order in which they were added."""
        return tuple(queue.publisher for queue in self._offers)

    @property
    def health(self) -> tuple[PublisherHealth, ...]:
        """Return state, queue, counts and last error of each publisher, in the order in which they were added."""
        return tuple(queue.health for queue in self._offers)

    @property
    def dropped(self) -> int:
        """Return the number of events that were dropped since the start, including removed publishers."""
        return self._dropped_by_removed + sum(queue.health.dropped for queue in self._counted())

    @property
    def gaps(self) -> int:
        """Return the number of gaps since the start: lost sessions, and runs of events that one publisher or all of them miss."""
        return self.gaps_for_all + self._gaps_of_removed + sum(queue.health.gaps for queue in self._counted())

    @property
    def gaps_for_all(self) -> int:
        """Return the number of gaps that every publisher has: lost sessions, and events that did not come from the gateway."""
        return self._gaps_of_forgotten + sum(shard.gaps for shard in tuple(self._shards.values()))

    async def open(self) -> None:
        """Open the publishers that were added so far, in order. On the first failure, close the opened ones and raise."""
        queues = self._offers
        try:
            for queue in queues:
                await queue.open()
        except BaseException:
            await self._close_queues(dict.fromkeys((*queues, *self._offers)))
            raise
        with self._lock:
            self._loop = asyncio.get_running_loop()
            late = [queue for queue in self._offers if queue not in queues]
            left = [queue for queue in queues if queue not in self._offers]
        for queue in late:
            queue.open_in_background()
        for queue in left:
            self._begin_removal(queue)

    def add(self, publisher: Publisher, options: DeliveryOptions = DEFAULT_OPTIONS, *, name: str | None = None) -> None:
        """Deliver every event from now on to ``publisher`` as well, under ``name`` (default: its own).

        If added before `open`, the publisher is opened by `open`; later in the background, where failures are retried and shown
        in `health`. Thread-safe. Raises ValueError if the name or the publisher exists already, TypeError if it is not a
        publisher, ConfigError for options that contradict each other or the publisher, and NotRunning after `close`.
        """
        _check_is_publisher(publisher)
        name = name or publisher.name
        check_delivery(publisher, options, f"publishers.{name}")
        if self._bus_api is not None and isinstance(publisher, AnsweringPublisher):
            publisher.answer_from(self._bus_api)
        if isinstance(publisher, BotAwarePublisher):
            publisher.belongs_to(self._bot_id)
        with self._lock:
            self._refuse_taken(publisher, name)
            queue = self._queues[name] = self._new_queue(publisher, name, options)
            self._offers = tuple(self._queues.values())
            self._if_open(queue.open_in_background)

    def remove(self, name: str) -> None:
        """Deliver no more events to ``name``. Close it when its queue is empty, or after a second. Thread-safe.

        Raises ValueError for an unknown name, with the known names, and NotRunning after `close`.
        """
        with self._lock:
            self._refuse_when_closed()
            queue = self._queues.pop(name, None)
            if queue is None:
                msg = f"there is no publisher named {name!r}; there are: {', '.join(self._queues) or 'none'}"
                raise ValueError(msg)
            self._leaving.add(queue)
            self._offers = tuple(self._queues.values())
            self._if_open(lambda: self._begin_removal(queue))

    def shard(self, shard_id: int) -> ShardDelivery:
        """Return the delivery of one shard, the same object at each call."""
        if shard_id not in self._shards:
            self._shards[shard_id] = ShardDelivery(shard_id, lambda: self._offers)
        return self._shards[shard_id]

    def forget(self, shard_id: int) -> None:
        """Drop what is kept for a shard that has left. What a best-effort publisher has yet to get of it is still delivered."""
        for queue in self._offers:
            if isinstance(queue, LosslessQueue) or not queue.is_behind(shard_id):
                queue.release(shard_id)
        shard = self._shards.pop(shard_id, None)
        if shard is not None:
            self._gaps_of_forgotten += shard.gaps

    async def drain(self, timeout: float, shard: int | None = None) -> None:
        """Wait up to ``timeout`` seconds until no item of ``shard`` (None: of any) is queued, except for parked publishers."""
        try:
            await within(self._clock, timeout, self._wait_until_idle(shard))
        except TimeoutError:
            left = {health.name: health.queued_events + health.in_flight for health in self.health}
            behind = ", ".join(f"{name} ({count} events)" for name, count in left.items() if count)
            logger.warning("Publishers did not catch up within %g s: %s", timeout, behind)

    async def close(self) -> None:
        """Close all publishers concurrently, in bounded time. Idempotent."""
        with self._lock:
            self._closed = True
        await asyncio.sleep(0)  # run the calls that other threads have scheduled
        removals = dict(self._removals)
        await self._close_queues((*removals.values(), *self._offers))
        await asyncio.gather(*removals)  # these close their publishers

    def _refuse_taken(self, publisher: Publisher, name: str) -> None:
        self._refuse_when_closed()
        if name in self._queues:
            msg = f"there is a publisher named {name!r} already; pass another name="
            raise ValueError(msg)
        if any(publisher is other for other in self.publishers):  # not ==, which a publisher may define
            msg = f"this {type(publisher).__name__} was added already"
            raise ValueError(msg)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            msg = "the control plane has ended"
            raise NotRunning(msg)

    def _if_open(self, act: Callable[[], None]) -> None:
        """Call ``act`` on the loop if it is open: at once in the loop's thread, otherwise soon."""
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

    def _new_queue(self, publisher: Publisher, name: str, options: DeliveryOptions) -> DeliveryQueue:
        if options.policy is not Overflow.BLOCK:
            return BestEffortQueue(publisher, name, options, self._clock)
        return LosslessQueue(
            publisher,
            name,
            options,
            self._clock,
            congested=lambda shard: self.shard(shard).congested(name),
            accepted=self._moved,
        )

    def _counted(self) -> set[DeliveryQueue]:
        """Return the queues whose counts are not in ``_dropped_by_removed`` and ``_gaps_of_removed`` yet."""
        return {*self._offers, *tuple(self._leaving)}

    def _moved(self, shard_id: int) -> None:
        shard = self._shards.get(shard_id)
        if shard is not None:  # it has not left while its last batch was published
            shard.moved()

    async def _wait_until_idle(self, shard: int | None) -> None:
        for queue in self._offers:
            await queue.wait_until_idle(shard)

    async def _close_queues(self, queues: Iterable[DeliveryQueue]) -> None:
        await asyncio.gather(*(queue.close() for queue in queues))

    def _begin_removal(self, queue: DeliveryQueue) -> None:
        queue.retire()
        removal = asyncio.create_task(self._retire(queue), name=f"removing publisher {queue.name}")
        self._removals[removal] = queue
        removal.add_done_callback(self._forget_removed)

    def _forget_removed(self, removal: asyncio.Task[None]) -> None:
        queue = self._removals.pop(removal)
        self._leaving.discard(queue)
        if not removal.cancelled() and (error := removal.exception()) is not None:
            logger.error("Publisher %s was not removed cleanly: %s", queue.name, describe(error))
        health = queue.health
        self._dropped_by_removed += health.dropped
        self._gaps_of_removed += health.gaps

    async def _retire(self, queue: DeliveryQueue) -> None:
        try:
            await within(self._clock, REMOVAL_DRAIN, queue.wait_until_idle())
        except TimeoutError:
            logger.warning("Publisher %s was removed with events still waiting for it", queue.name)
        finally:
            await queue.close()


def _check_is_publisher(publisher: Any) -> None:
    missing = [part for part in ("name", "durable", "open", "publish", "close") if not hasattr(publisher, part)]
    if missing:
        msg = f"{type(publisher).__name__} is no publisher: it has no {', '.join(missing)}"
        raise TypeError(msg)
    if not (isinstance(publisher.name, str) and publisher.name and isinstance(publisher.durable, bool)):
        msg = f"{type(publisher).__name__} is no publisher: name must be a string that is not empty, durable True or False"
        raise TypeError(msg)
