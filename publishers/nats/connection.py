"""Hold one connection to a NATS server and publish over it.

A connection is never repaired: after a failure the publisher closes it and makes a new one, so that no buffer of the client
library sends a message late or twice.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from discorder.nats_access import ServerAccess
from discorder.publishers.nats.messages import ID_HEADER, Message

CONNECT_TIMEOUT = 2.0  # seconds for each server
PING_EVERY = 2  # seconds; the connection ends when two in a row are not answered
CLOSE_TIMEOUT = 0.2  # seconds; the delivery queue waits for 0.3
ANSWER_TIMEOUT = 5.0  # seconds for the acknowledgements of a batch, or one other answer
NO_STREAM = "503"  # the status of "no responders"
NO_STREAM_HAS_IT = "no stream has the subject of the message"

FAILURES = (Error, OSError, TimeoutError)  # of the client library


class _Refusal(msgspec.Struct):
    description: str = ""


class _Ack(msgspec.Struct):
    """The server's answer to a message; without ``error`` it is stored, by this message or by an earlier one with its id."""

    error: _Refusal | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Connection:
    """A connection to one server. ``client`` is that of the library."""

    def __init__(self) -> None:
        self.client = Client()
        self.is_cancelled = False  # a batch was cancelled: nobody knows which of its messages the server has
        self._last_error: Exception | None = None
        self._inbox = ""
        self._numbered = 0  # messages that asked for an acknowledgement
        self._waiting: dict[int, Message] = {}  # sent and not answered, of the running `store`, as are the following
        self._refused: list[tuple[Message, str]] = []
        self._stored: set[str] = set()
        self._answered = asyncio.Event()  # all are answered
        self._limit: asyncio.Timeout | None = None

    @property
    def is_spent(self) -> bool:
        """Return whether no more messages can be sent on this connection."""
        return self.is_cancelled or self.client.is_closed

    async def open(self, server: str, credentials: str | None, tls: ssl.SSLContext | None) -> None:
        """Connect and log in with a file of ``credentials``. Raises one of `FAILURES`; call `close` then."""
        try:
            await self.client.connect(
                servers=[server],
                name="discorder",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(CONNECT_TIMEOUT),
                ping_interval=PING_EVERY,
                max_outstanding_pings=2,
                error_cb=self._note_error,
                closed_cb=self._lost,
                tls=tls,
                user_credentials=credentials,
                pending_size=-1,  # a full buffer would wait for the server, and the library swallows a cancellation there
            )
        except Error as error:
            raise self._last_error or error from error  # the library's own says only that there is no server
        self._inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self._inbox}.*", cb=self._take_answer)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send ``messages`` and return once the server has received them. Raises one of `FAILURES`.

        A message to ourselves follows them. The library's own flush does not tell: its ping overtakes what is not sent yet.
        """
        if not messages:
            return
        (number,) = self._expect_answers(messages[-1:], set())
        async with self._in_time():
            for message in messages:
                await self.client.publish(message.subject, message.event.document, headers={ID_HEADER: message.id})
            await self.client.publish(f"{self._inbox}.{number}", b"{}")
            await self._answered.wait()

    async def store(self, messages: Sequence[Message], stored: set[str]) -> list[tuple[Message, str]]:
        """Send ``messages`` and wait for the answer to each; add the ids of those that are stored to ``stored`` as they come.

        Return those that the server refused, each with its reason. Raises one of `FAILURES` if an answer is missing.
        """
        if not messages:
            return []
        numbers = self._expect_answers(messages, stored)
        async with self._in_time():
            for number, message in zip(numbers, messages, strict=True):
                reply, headers = f"{self._inbox}.{number}", {ID_HEADER: message.id}
                await self.client.publish(message.subject, message.event.document, reply, headers)
            await self._answered.wait()
        return self._refused

    async def close(self) -> None:
        """Close the connection in bounded time, also if the server does not answer. Drops what is not acknowledged."""
        client = self.client
        client._pending, client._pending_data_size = [], 0  # noqa: SLF001  # the library would wait until the server reads it
        writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001
        if writer is not None:
            writer.transport.abort()
        with suppress(*FAILURES):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await client.close()

    def _expect_answers(self, messages: Sequence[Message], stored: set[str]) -> range:
        """Return the number of each of ``messages``, for its answer."""
        numbers = range(self._numbered, self._numbered + len(messages))
        self._numbered = numbers.stop
        self._waiting, self._refused, self._stored = dict(zip(numbers, messages, strict=True)), [], stored
        self._answered.clear()
        self._last_error = None
        return numbers

    async def _take_answer(self, answer: Msg) -> None:
        message = self._waiting.pop(int(answer.subject.rpartition(".")[2]), None)
        if message is None:  # of a batch that was given up
            return
        if (reason := _refusal(answer)) is None:
            self._stored.add(message.id)
        else:
            self._refused.append((message, reason))
        if not self._waiting:
            self._answered.set()

    async def _note_error(self, error: Exception) -> None:
        self._last_error = error

    async def _lost(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)  # there will be no answer

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Limit the work to `ANSWER_TIMEOUT`; end it when the connection is lost. Raises ConnectionError then."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT) as self._limit:
                yield
        except TimeoutError:
            what = "the connection was lost" if self.client.is_closed else "the server did not answer in time"
            raise ConnectionError(f"{what}: {self._last_error}" if self._last_error else what) from None
        finally:
            self._limit = None


def _refusal(answer: Msg) -> str | None:
    """Return why a message was not stored, None if it was."""
    if (answer.header or {}).get("Status") == NO_STREAM:
        return NO_STREAM_HAS_IT
    try:
        ack = _decode_ack(answer.data)
    except msgspec.DecodeError as error:
        return f"an answer that is no acknowledgement of JetStream: {error}"
    return None if ack.error is None else ack.error.description or "no reason given"


async def connect(access: ServerAccess) -> Connection:
    """Return a connection to the first server that can be reached, in the order of the configuration.

    Raises PublisherUnreachable, or ConfigError if a server refused the login or has a certificate that is not trusted, and for
    a file that cannot be used.
    """
    credentials, tls = access.credentials(), access.tls()
    failures = []
    for server in access.servers:
        connection = Connection()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.open(server, credentials, tls)
        except FAILURES as error:
            await connection.close()
            failures.append((server, error))
        except BaseException:
            await connection.close()
            raise
        else:
            return connection
    raise access.failure(failures)
