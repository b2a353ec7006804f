"""What the readers of all brokers share: the entries that wait for the bot, and a task that connects and connects again."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import ClassVar

from discorder.bot.stream_subscription import Entry
from discorder.errors import ConfigError, PublisherUnreachable, SubscriptionFailed

FIRST_PAUSE = 0.1  # seconds before the next attempt to connect; doubled after each
LONGEST_PAUSE = 2.0
SAY_AFTER = 2.0  # seconds without a server or its events after which the log says so

logger = logging.getLogger(__name__)


class Broken(Exception):
    """Reading cannot go on with this connection; the next one is made."""


class BrokerSource(ABC):
    """The entries of one broker. See `StreamSource` for the methods without a docstring of their own.

    ``shown``: the address without logins. A subclass names the broker, and the errors after which the next connection is made.
    """

    broker: ClassVar[str]
    failures: ClassVar[tuple[type[Exception], ...]]

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._entries: deque[Entry] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()  # for the task
        self._is_closed = False
        self._is_attached = self._was_attached = False  # to the events, now and at any time
        self._logged: set[str] = set()  # the reasons of this outage that the log has

    @abstractmethod
    async def _connect_and_read(self) -> None:
        """Connect, call `_note_attached` once the events can be read, and read them until the connection ends."""

    def take(self) -> Entry | None:
        """See `StreamSource`."""
        if self._entries:
            return self._entries.popleft()
        if self._failure is not None:
            raise self._failure
        return None

    async def wait(self, seconds: float | None) -> None:
        """See `StreamSource`."""
        if self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._run(), name=f"{self.broker.lower()} reader")
        if self._entries or self._is_closed or self._failure is not None:
            return
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _end, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    @abstractmethod
    async def flush(self) -> None:
        """See `StreamSource`."""

    async def close(self) -> None:
        """See `StreamSource`."""
        self._is_closed = True
        self._wake_reader()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def release(self) -> None:
        """See `StreamSource`."""
        self._is_closed = True
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    def _wake_reader(self) -> None:
        if self._waiting is not None:
            _end(self._waiting)

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        passing: tuple[type[Exception], ...] = (PublisherUnreachable, Broken, *self.failures)
        lost_at = time.monotonic()
        while self._failure is None:
            why = ""
            try:
                await self._connect_and_read()
            except passing as error:
                why = str(error) or "no answer in time"
            except ConfigError as error:
                why = str(error)
                if not self._was_attached:
                    self._failure = SubscriptionFailed(why)
            except Exception as error:  # noqa: BLE001  # raised where the bot iterates
                self._failure = error
            if self._failure is not None:
                break
            if self._is_attached:
                self._is_attached, lost_at, pause = False, time.monotonic(), FIRST_PAUSE
            self._log_outage(f"{why}; trying again", lost_at)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._wake_reader()

    async def _pause(self, seconds: float) -> None:
        """Wait until the task is woken, or for ``seconds``."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

    def _log_outage(self, why: str, since: float) -> None:
        """Log why the events cannot be read, once in an outage. ``since``: when it began; a short one is not logged."""
        if why not in self._logged and time.monotonic() - since >= SAY_AFTER:
            logger.warning("%s: %s", self.broker, why)
            self._logged.add(why)

    def _note_attached(self) -> None:
        """Note that the events can be read, which ends an outage."""
        if self._logged:
            logger.info("%s: the events of %s can be read", self.broker, self._shown)
            self._logged.clear()
        self._was_attached = self._is_attached = True


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
