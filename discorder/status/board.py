"""Keep the status document of one control plane up to date.

Reads the tracker and acts on nothing. Without a reader of events it costs one sample of the counters a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from discorder.clock import Clock
from discorder.logs.tail import LogTail
from discorder.publishers.delivery.keep_running import keep_running
from discorder.status.describer import Describer
from discorder.status.document import StatusDocument
from discorder.status.feed import StatusFeed, encode
from discorder.status.listener import Listener
from discorder.tracking.shard_tracker import ShardTracker, Transition
from discorder.tracking.tracker import GatewayTracker

SAMPLE_EVERY = 1.0  # seconds


class Board:
    """The status of the control plane of ``tracker``. Call all methods on the plane's loop, the first time before the first dial.

    Between `start` and `close` it samples the counters once a second and keeps the newest log records.
    """

    def __init__(self, tracker: GatewayTracker, clock: Clock) -> None:
        self._tracker = tracker
        self._clock = clock
        self._log = LogTail()
        self._describer = Describer(tracker, clock, self._log)
        self._feed = StatusFeed(self._describer, clock, self._log)
        self._sampler: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to sample, and to note transitions and log records."""
        self._log.open()
        self._unwatch = self._tracker.watch(self._transitioned)
        self._sampler = asyncio.create_task(keep_running("status", self._run, self._clock), name="status")

    def close(self) -> None:
        """End the sampling, and the events of every reader. Idempotent."""
        self._unwatch()
        if self._sampler is not None:
            self._sampler.cancel()
            self._sampler = None
        self._feed.close()
        self._log.close()

    def status(self) -> StatusDocument:
        """Return the whole document, now."""
        return self._describer.status()

    def encoded(self) -> bytes:
        """Return the whole document, now, as JSON."""
        return encode(self.status())

    def listen(self) -> Listener:
        """Return an iterator of events for one reader: first the whole document, then what changes. See `Listener`."""
        return self._feed.listen()

    def _transitioned(self, shard: ShardTracker, step: Transition) -> None:
        self._feed.transitioned(shard, self._describer.transitioned(shard, step))

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(SAMPLE_EVERY)
            self._feed.sampled(self._describer.sample())
