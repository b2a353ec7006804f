"""What both kinds of readers share: the connection, found and made again, and the entries that wait for the bot."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque

import msgspec
from nats.aio.msg import Msg

from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.link import FAILURES, ApiError, Link, dial
from discorder.bot.nats.streams import EventStream, find_stream
from discorder.bot.stream_subscription import Entry
from discorder.errors import ConfigError, PublisherUnreachable, SubscriptionFailed

FIRST_PAUSE = 0.1  # seconds before the next attempt to connect; doubled after each
LONGEST_PAUSE = 2.0
LOOK_EVERY = 0.5  # seconds between two looks for a stream
SAY_AFTER = 2.0  # seconds without a server or a stream after which the log says so
OVERDUE = 5.0  # seconds after its end in which the server must end a pull request
ACK = "$JS.ACK."  # how the reply subject of a stored message begins

logger = logging.getLogger(__name__)


class Broken(Exception):
    """Reading cannot go on with this connection or consumer; the next ones are made."""


class Pull:
    """The pull requests of one consumer, one at a time. ``left``: messages that the server may still send for it."""

    def __init__(self, link: Link, stream: str, consumer: str, inbox: str) -> None:
        self.left = 0
        self.overdue_at = 0.0
        self._link = link
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = inbox
        self._number = 0

    async def request(self, batch: int, seconds: float, **fields: str) -> None:
        """Request ``batch`` messages, for at most so long."""
        self._number += 1
        self.left, self.overdue_at = batch, time.monotonic() + seconds + OVERDUE
        wanted = {"batch": batch, "expires": round(seconds * 1e9), **fields}
        await self._link.client.publish(self._subject, msgspec.json.encode(wanted), f"{self._inbox}.{self._number}")

    def end(self, status: Msg) -> str:
        """Process the end of a request and return its status. Raises `Broken` if the consumer is gone."""
        headers = status.headers or {}
        code, why = headers.get("Status", ""), str(dict(headers))
        if code == "503" or "Consumer Deleted" in why or "Stream Deleted" in why:
            msg = "the consumer is gone"
            raise Broken(msg)
        if status.subject == f"{self._inbox}.{self._number}":
            self.left = 0
        return code

    def check(self) -> None:
        """Raise `Broken` if the server has not ended a request in time."""
        if self.left and time.monotonic() >= self.overdue_at:
            msg = "the server does not end a pull request"
            raise Broken(msg)


class NatsSource(ABC):
    """The entries of one stream. See `StreamSource` for the methods without a docstring of their own."""

    def __init__(self, address: NatsAddress, types: frozenset[str] | None) -> None:
        self._address = address
        self._types = types
        self._entries: deque[Entry] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()  # for the task
        self._is_closed = False
        self._is_attached = self._was_attached = False  # to a stream, now and at any time

    @abstractmethod
    async def _read(self, link: Link, stream: EventStream) -> None:
        """Read until the connection ends. Raises `Broken`, `ApiError`, `SubscriptionFailed` and those of `FAILURES`."""

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
            self._task = asyncio.create_task(self._run(), name="nats reader")
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

    # ---------------------------------------------------------------- the connection

    async def _run(self) -> None:
        reason, pause = "", FIRST_PAUSE
        lost_at = time.monotonic()
        while self._failure is None:
            why = ""
            try:
                await self._connect_and_read(reason)
            except (PublisherUnreachable, ApiError, Broken, *FAILURES) as error:
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
            if why != reason and time.monotonic() - lost_at >= SAY_AFTER:
                logger.warning("NATS: %s; trying again", why)
                reason = why
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        self._wake_reader()

    async def _connect_and_read(self, said: str) -> None:
        """Read until the connection ends. ``said``: what the log said is missing."""
        link = await dial(self._address.access, self._woken.set)
        try:
            stream = await self._find(link)
            if said:
                logger.info("NATS: the events of %s can be read", self._address.shown)
            self._was_attached = self._is_attached = True
            await self._read(link, stream)
        finally:
            await self._leave(link)

    async def _leave(self, link: Link) -> None:
        await link.close()

    async def _find(self, link: Link) -> EventStream:
        """Return the stream, once there is one."""
        began, said = time.monotonic(), False
        while (stream := await find_stream(link, self._address)) is None:
            if not said and time.monotonic() - began >= SAY_AFTER:
                logger.warning("NATS: %s; waiting for it", missing(self._address))
                said = True
            await self._rest(LOOK_EVERY, link)
        if said:
            logger.info("NATS: the events of %s can be read", self._address.shown)
        return stream

    async def _rest(self, seconds: float, link: Link) -> None:
        """Wait until the task is woken, or for ``seconds``. Raises `Broken` if the connection is lost."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
        if link.client.is_closed:
            msg = f"the connection to {self._address.shown} was lost ({link.error or 'closed by the server'})"
            raise Broken(msg)


def missing(address: NatsAddress) -> str:
    """Say that there is no stream yet, as a sentence."""
    if address.stream:
        return f"{address.shown} has no stream {address.stream} yet"
    wanted = f" with the prefix {address.prefix}" if address.prefix else ""
    return f"{address.shown} has no stream of a control plane{wanted} yet"


def stream_seq(reply: str) -> tuple[str, int, int]:
    """Return the consumer, the sequence in the stream, and how many messages follow, of the reply subject of a message.

    Servers use two forms, with and without the domain (ADR-15 of NATS).
    """
    words = reply.split(".")
    if len(words) > 9:  # with domain and account
        del words[2:4]
    return words[3], int(words[5]), int(words[8])


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
