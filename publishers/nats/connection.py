"""Hold one connection to a NATS server and publish over it.

A connection is never repaired: after a failure the publisher closes it and makes a new one, so that no buffer of the client
library sends a message late or twice.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from discorder.nats_access import ServerAccess
from discorder.nats_client import CONNECT_TIMEOUT, FAILURES, open_client
from discorder.publishers.nats.messages import ID_HEADER, Message

ANSWER_TIMEOUT = 5.0  # seconds for the acknowledgements of a batch, or one other answer
CLOSE_TIMEOUT, ABORT_TIMEOUT = 0.05, 0.15  # seconds; the delivery queue waits for 0.3
NO_STREAM = "503"  # the status of "no responders"
NO_STREAM_HAS_IT = "no stream has the subject of the message"
DUPLICATE = 10_201  # JetStream's error codes: an atomic batch contains a message with a known id
INCOMPLETE = 10_176  # or one that was refused
ENOUGH_PAYLOAD = 8_388_608  # bytes; GUILD_CREATE of a large guild has several megabytes
MOST_ATOMIC = 1_000  # messages in an atomic batch, by the server


class Refusal(msgspec.Struct, frozen=True):
    """Why the server did not store a message. ``err_code``: that of JetStream."""

    description: str = ""
    err_code: int = 0

    def __str__(self) -> str:
        return self.description or "no reason given"


class _Ack(msgspec.Struct):
    """The server's answer to a message; without ``error`` it is stored, by this message or by an earlier one with its id."""

    error: Refusal | None = None
    seq: int = 0


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Connection:
    """A connection to one server. ``client`` is that of the library."""

    def __init__(self) -> None:
        self.client = Client()
        self.is_cancelled = False  # a batch was cancelled: nobody knows which of its messages the server has
        self._last_error: Exception | None = None
        self._inbox = ""
        self._numbered = 0  # messages and batches that asked for an answer
        self._waiting: dict[
            str, Message
        ] = {}  # sent and not answered, by reply subject; of the running batch, as are the following
        self._refused: list[tuple[Message, Refusal]] = []
        self._stored: set[str] = set()
        self._answered: asyncio.Future[None] | None = None  # done when all are answered

    @property
    def is_spent(self) -> bool:
        """Return whether no more messages can be sent on this connection."""
        return self.is_cancelled or self.client.is_closed

    async def open(
        self, access: ServerAccess, server: str, credentials: str | None, tls: ssl.SSLContext | None
    ) -> None:
        """Connect and log in with a file of ``credentials``. Raises one of `FAILURES`; call `close` then."""
        await open_client(
            self.client,
            access,
            server,
            tls=tls,
            failed=self._note_error,
            closed=self._lost,
            name="discorder",
            user_credentials=credentials,
        )
        self._inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self._inbox}.*", cb=self._take_answer)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send ``messages`` and return once the server has received them. Raises one of `FAILURES`.

        A message to ourselves follows them. The library's own flush does not tell: its ping overtakes what is not sent yet.
        """
        if not messages:
            return
        (reply,) = self._expect(messages[-1:], set())
        publish = self.client.publish
        for message in messages:
            await publish(message.subject, message.event.document, headers={ID_HEADER: message.id})
        await publish(reply, b"{}")
        await self._wait_for_answers()

    async def store(self, messages: Sequence[Message], stored: set[str]) -> list[tuple[Message, Refusal]]:
        """Send ``messages`` and wait for the answer to each; add the ids of those that are stored to ``stored`` as they come.

        Return those that the server refused, each with its reason. Raises one of `FAILURES` if an answer is missing.
        """
        if not messages:
            return []
        publish = self.client.publish
        for reply, message in zip(self._expect(messages, stored), messages, strict=True):
            await publish(message.subject, message.event.document, reply, {ID_HEADER: message.id})
        await self._wait_for_answers()
        return self._refused

    async def store_atomically(self, messages: Sequence[Message]) -> Refusal | None:
        """Store all of ``messages``, 1 to `MOST_ATOMIC`, or none. The server syncs its files before it answers.

        Return why the server refused them, None if it did not. Raises one of `FAILURES` if the answer is missing.
        """
        (reply,) = self._expect(messages[-1:], set())
        publish, batch, last = self.client.publish, reply.rpartition(".")[2] + self._inbox[-22:], len(messages)
        for number, message in enumerate(messages, start=1):
            headers = {ID_HEADER: message.id, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number == last:
                headers["Nats-Batch-Commit"] = "1"
            await publish(message.subject, message.event.document, reply if number == last else "", headers)
        await self._wait_for_answers()
        return self._refused[0][1] if self._refused else None

    async def close(self) -> None:
        """Close the connection in bounded time, also if the server does not answer. Drops what is not acknowledged."""
        closing = asyncio.create_task(self.client.close())
        if not (await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT))[0]:
            # nats-py 2.16 has no abort: `Client.close` and its `Transport.close` wait until the server has read what is buffered
            writer = getattr(self.client._transport, "_io_writer", None)  # noqa: SLF001
            if writer is not None:
                writer.transport.abort()
            await asyncio.wait({closing}, timeout=ABORT_TIMEOUT)
        if not closing.cancel() and not closing.cancelled():
            closing.exception()  # the end of a lost connection is no news

    def _expect(self, messages: Sequence[Message], stored: set[str]) -> Sequence[str]:
        """Return a subject for the answer to each of ``messages``."""
        first = self._numbered
        self._numbered = first + len(messages)
        prefix = f"{self._inbox}."
        replies = [prefix + str(number) for number in range(first, self._numbered)]
        self._waiting, self._refused, self._stored = dict(zip(replies, messages, strict=True)), [], stored
        self._last_error = None
        return replies

    async def _wait_for_answers(self) -> None:
        """Return when all are there. Raises ConnectionError after `ANSWER_TIMEOUT`, and when the connection is lost."""
        loop = asyncio.get_running_loop()
        answered = self._answered = loop.create_future()
        timer = loop.call_later(ANSWER_TIMEOUT, self._give_up, "the server did not answer in time")
        try:
            if self._waiting:
                await answered
        finally:
            timer.cancel()
            self._answered = None

    async def _take_answer(self, answer: Msg) -> None:
        message = self._waiting.pop(answer.subject, None)
        if message is None:  # of a batch that was given up
            return
        ack = _read(answer)
        if ack.error is None:
            self._stored.add(message.id)
            message.number = ack.seq
        else:
            self._refused.append((message, ack.error))
        if not self._waiting and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _note_error(self, error: Exception) -> None:
        self._last_error = error

    async def _lost(self) -> None:
        self._give_up("the connection was lost")

    def _give_up(self, what: str) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError(f"{what}: {self._last_error}" if self._last_error else what))


def _read(answer: Msg) -> _Ack:
    if answer.headers is not None and answer.headers.get("Status") == NO_STREAM:
        return _Ack(Refusal(NO_STREAM_HAS_IT))
    try:
        return _decode_ack(answer.data)
    except msgspec.DecodeError as error:
        return _Ack(Refusal(f"an answer that is no acknowledgement of JetStream: {error}"))


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
                await connection.open(access, server, credentials, tls)
        except FAILURES as error:
            await connection.close()
            failures.append((server, error))
        except BaseException:
            await connection.close()
            raise
        else:
            return connection
    raise access.failure(failures)
