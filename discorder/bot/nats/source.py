"""What both kinds of readers share: the connection, found and made again, and the entries that wait for the bot."""

from __future__ import annotations

import re
import time
from abc import abstractmethod

import msgspec
from nats.aio.msg import Msg

from discorder.bot.broker_source import Broken, BrokerSource
from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.link import FAILURES, ApiError, Link, dial
from discorder.bot.nats.streams import EventStream, find_stream

LOOK_EVERY = 0.5  # seconds between two looks for a stream
OVERDUE = 5.0  # seconds after its end in which the server must end a pull request
OWN_CONSUMER = "discorder_"  # how the name of a consumer of one connection begins, before 16 random digits
ACK = "$JS.ACK."  # how the reply subject of a stored message begins

_OWN_CONSUMER = re.compile(rf"(?<={OWN_CONSUMER})[0-9a-f]{{16}}")


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


class NatsSource(BrokerSource):
    """The entries of one stream."""

    broker = "NATS"
    failures = (ApiError, *FAILURES)

    def __init__(self, address: NatsAddress, types: frozenset[str] | None) -> None:
        super().__init__(address.shown)
        self._address = address
        self._types = types

    @abstractmethod
    async def _read(self, link: Link, stream: EventStream) -> None:
        """Read until the connection ends. Call `_note_attached` once that works.

        Raises `Broken`, `SubscriptionFailed` and one of `failures`.
        """

    async def _connect_and_read(self) -> None:
        link = await dial(self._address.access, self._woken.set)
        try:
            await self._read(link, await self._find(link))
        except FAILURES as error:
            if link.error is None or link.error is error:
                raise
            refusal = _OWN_CONSUMER.sub("*", str(link.error))  # one reason, whatever the name
            msg = f"{error} ({refusal})"
            raise Broken(msg) from error
        finally:
            await self._leave(link)

    async def _leave(self, link: Link) -> None:
        await link.close()

    async def _find(self, link: Link) -> EventStream:
        """Return the stream, once there is one."""
        began = time.monotonic()
        while (stream := await find_stream(link, self._address)) is None:
            self._log_outage(f"{missing(self._address)}; waiting for it", began)
            await self._rest(LOOK_EVERY, link)
        return stream

    async def _rest(self, seconds: float, link: Link) -> None:
        """Wait until the task is woken, or for ``seconds``. Raises `Broken` if the connection is lost."""
        await self._pause(seconds)
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
