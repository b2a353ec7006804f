"""Publish events to a NATS server.

In JetStream mode a batch is accepted once the server has stored each of its messages. After a failure the next connection asks
the stream for its last event of each shard and sends only what comes after it; the id of each message is the second guard
against an event that is stored twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from discorder.errors import ConfigError, PublisherError, PublisherUnreachable
from discorder.nats_access import DEFAULT_SERVER, ServerAccess, check_names, exact, listed
from discorder.nats_client import FAILURES
from discorder.publishers.nats.commands import CommandListener
from discorder.publishers.nats.connection import (
    DUPLICATE,
    ENOUGH_PAYLOAD,
    INCOMPLETE,
    MOST_ATOMIC,
    NO_STREAM_HAS_IT,
    Connection,
    Refusal,
    connect,
)
from discorder.publishers.nats.examination import examine
from discorder.publishers.nats.kept import KeptEvents, KeptRange
from discorder.publishers.nats.messages import ATOMIC_HEADER_BYTES, Message, gap_instead, message_of, size_of
from discorder.publishers.nats.options import (
    DUPLICATE_WINDOW,
    STREAM_BYTES,
    STREAM_SECONDS,
    Durability,
    Mode,
    NatsOptions,
    check_durability,
)
from discorder.publishers.nats.stream import StreamSettings, end_of, last_event, make_or_check
from discorder.publishers.protocol import BusApi
from discorder.wire import Event, StreamPosition

SMALL_BATCH = 64  # events: below it, the next one waits until
PAUSE = 0.005  # seconds after this one began: a batch costs as much CPU as several events

MOST_NAMED = 20  # sessions in a line of the log

logger = logging.getLogger(__name__)


class NatsPublisher:
    """Publish to the first of ``servers`` that can be reached, under ``prefix`` ("" = ``discord.`` and the id of the bot).

    ``mode``: "jetstream" stores each event once, in order per shard, in ``stream`` ("" = the prefix with ``_`` for each dot),
    which keeps at most ``stream_bytes`` and ``stream_seconds`` on ``replicas`` servers; "core" sends to the subscribers of the
    moment. ``durability``: "acks" accepts what the server has stored, "sync" what it has synced to its disk as well.
    ``duplicate_window`` (seconds): how long the server knows the ids of stored messages. ``commands``: whether bots may
    send commands to Discord, as requests to ``PREFIX.command``.

    Raises ConfigError for an invalid name, URL or file, and for an unencrypted connection to another host unless ``insecure``.
    """

    Options = NatsOptions

    def __init__(
        self,
        servers: str | Sequence[str] = DEFAULT_SERVER,
        name: str = "nats",
        *,
        mode: Mode = "jetstream",
        durability: Durability = "acks",
        prefix: str = "",
        stream: str = "",
        stream_bytes: int = STREAM_BYTES,
        stream_seconds: float = STREAM_SECONDS,
        duplicate_window: float = DUPLICATE_WINDOW,
        replicas: int = 1,
        commands: bool = False,
        credentials_file: str = "",
        tls_ca_file: str = "",
        tls_cert_file: str = "",
        tls_key_file: str = "",
        insecure: bool = False,
    ) -> None:
        self.name = name
        self.durable = mode == "jetstream"
        self.dropped = self.gaps = 0  # events that were too large for the server, or lost with the stream
        self._key = f"publishers.{name}"
        check_names(self._key, prefix, stream)
        check_durability(self._key, mode, durability)
        if duplicate_window > stream_seconds:
            msg = (
                f"{self._key}.duplicate_window: {exact(duplicate_window)} is more than stream_seconds ({exact(stream_seconds)}); "
                "set less"
            )
            raise ConfigError(msg)
        self._access = ServerAccess(
            self._key, listed(servers), credentials_file, tls_ca_file, tls_cert_file, tls_key_file, insecure
        )
        self._access.check()
        self._prefix = prefix
        self._stream = stream
        self._atomic = durability == "sync"
        self._limits = (stream_bytes, stream_seconds, duplicate_window, replicas, self._atomic)
        self._takes_commands = commands
        self._bus_api: BusApi | None = None
        self._listener: CommandListener | None = None
        self._is_open = False
        self._was_open = False
        self._connection: Connection | None = None
        self._last: dict[
            tuple[int, int], StreamPosition | None
        ] = {}  # by shard: in the stream when this connection began; None = irrelevant
        self._stored: set[str] = set()  # ids of the batch that is tried again
        self._refused: set[str] = set()
        self._kept = KeptEvents(stream_seconds)
        self._made_stream = False
        self._untold: list[Message] = []  # gap records of events that the server has lost

    def belongs_to(self, bot_id: int | None) -> None:
        """See `BotAwarePublisher`."""
        if not self._prefix and bot_id is not None:
            self._prefix = f"discord.{bot_id}"

    def answer_from(self, bus_api: BusApi) -> None:
        """See `AnsweringPublisher`."""
        self._bus_api = bus_api

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """See `AnsweringPublisher`: the stream should have what came before."""
        self._kept.adopt(shard, session, seq)

    async def open(self) -> None:
        """Connect, and make or check the stream. Raises ConfigError, or PublisherUnreachable without a server."""
        if self._is_open:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        self._check_prefix()
        self._connection = await self._connect()
        self._is_open = self._was_open = True
        if self._takes_commands and self._bus_api is not None:
            self._listener = CommandListener(self._access, self._prefix, self._bus_api)
            self._listener.start()

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the server has stored the batch (mode "core": received it). Raises PublisherError.

        After a small batch it returns at most `PAUSE` later than that, so that more events are in the next one.
        """
        if not self._is_open:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        clock = asyncio.get_running_loop().time
        began = clock()
        connection = self._connection
        if connection is None or connection.is_spent:
            await self._drop_connection()
            connection = self._connection = await self._connect()
        messages, replaced = self._messages_of(events, connection)
        try:
            await (self._store(connection, messages) if self.durable else connection.send(messages))
        except FAILURES as error:
            await self._drop_connection()
            msg = f"NATS: {error}"
            raise PublisherError(msg) from error
        except asyncio.CancelledError:
            connection.is_cancelled = True
            raise
        self.dropped += replaced
        self.gaps += replaced
        if len(events) < SMALL_BATCH and (rest := began + PAUSE - clock()) > 0:
            await asyncio.sleep(rest)

    async def close(self) -> None:
        """Close the connections."""
        self._is_open = False
        listener, self._listener = self._listener, None
        stopping = [] if listener is None else [listener.stop()]
        await asyncio.gather(self._drop_connection(), *stopping)

    async def examine(self) -> list[tuple[str, str]]:
        """See `ExaminedPublisher`."""
        self._check_prefix()
        return await examine(self._access, self._settings if self.durable else None)

    def _check_prefix(self) -> None:
        if not self._prefix:
            msg = f"{self._key}.prefix: the bot token does not contain the id of the bot; set a prefix such as discord.mybot"
            raise ConfigError(msg)

    # ---------------------------------------------------------------- connection

    async def _connect(self) -> Connection:
        connection = await connect(self._access)
        try:
            if self.durable:
                await self._find_stream(connection)
        except FAILURES as error:
            await connection.close()
            msg = f"{self._key}: the NATS server does not answer: {error}"
            raise PublisherUnreachable(msg) from error
        except BaseException:
            await connection.close()
            raise
        limit = connection.client.max_payload
        if limit < ENOUGH_PAYLOAD and not self._was_open:
            logger.warning(
                "Publisher %s: the NATS server takes messages of at most %d bytes; a larger event becomes a gap record. "
                "Set max_payload: 8MB in its configuration",
                *(self.name, limit),
            )
        return connection

    @property
    def _settings(self) -> StreamSettings:
        return StreamSettings(self._key, self._stream or self._prefix.replace(".", "_"), self._prefix, *self._limits)

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        self._last.clear()
        if connection is not None:
            await connection.close()

    async def _find_stream(self, connection: Connection) -> None:
        """Make or check the stream, and note what it has lost since the last connection."""
        client, settings, stored = connection.client, self._settings, self._kept.end
        end = await make_or_check(client, settings, first=not self._was_open)
        self._made_stream = self._made_stream or end is None
        if end is not None and end < stored:
            end = await end_of(client, settings, stored)
        if (end or 0) >= stored:
            self._kept.end = end or 0
            return
        self._stored.clear()  # what was acknowledged of a batch that failed may be lost, too
        self._refused.clear()

        async def find(shard: tuple[int, int]) -> StreamPosition | None:
            found = await last_event(client.jetstream(), settings.name, settings.prefix, shard)
            return None if found is None else found[0]

        self._note_lost(await self._kept.lost_after(end or 0, find))

    def _note_lost(self, lost: Sequence[KeptRange]) -> None:
        """Prepare a gap record for each range of events that the stream had and has no more."""
        if not lost:
            return
        self.dropped += sum(one.count for one in lost)
        self.gaps += len(lost)
        self._untold += [message_of(one.gap(self.name), self._prefix) for one in lost]
        logger.warning(
            "Publisher %s: the NATS server has lost events that the stream %s had: %s%s. Gap records in it tell the readers",
            *(self.name, self._settings.name, ", ".join(map(str, lost[:MOST_NAMED]))),
            f", and of {len(lost) - MOST_NAMED} other sessions" if len(lost) > MOST_NAMED else "",
        )

    # ---------------------------------------------------------------- messages

    def _messages_of(self, events: Sequence[Event], connection: Connection) -> tuple[Sequence[Message], int]:
        """Return what to send for ``events``, and how many of them are gap records because the event is too large."""
        prefix, replaced = self._prefix, 0
        limit = connection.client.max_payload
        most = limit - ATOMIC_HEADER_BYTES if self._atomic else limit
        messages = [message_of(event, prefix) for event in events]
        for place, message in enumerate(messages):
            if size_of(message) > most:
                messages[place] = gap_instead(message, prefix, self.name, limit)
                replaced += 1
        return messages, replaced

    async def _store(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Store ``messages`` without those that the stream has already. Raises PublisherError if the server refused any."""
        shards = {message.event.shard for message in messages}
        await self._ask_stream(connection, shards)
        messages = [*self._untold, *messages]
        unsettled = messages
        if self._stored or self._refused or any(self._last[shard] for shard in shards):
            ids = {message.id for message in messages}
            self._stored &= ids
            self._refused &= ids
            unsettled = [one for one in messages if not self._is_stored(one)]
        try:
            refused = await self._send(connection, unsettled)
        finally:
            self._kept.note_numbers(messages)
        if refused:
            self._refused.update(message.id for message, _ in refused)
            reasons = {str(refusal) for _, refusal in refused}
            if NO_STREAM_HAS_IT in reasons:  # the next connection makes it again
                await self._drop_connection()
            msg = f"NATS refused {len(refused)} of {len(messages)} messages: {'; '.join(sorted(reasons))}"
            raise PublisherError(msg)
        self._stored.clear()
        self._refused.clear()
        self._untold.clear()
        self._last.update(dict.fromkeys(shards))  # what comes is later
        self._kept.add(messages)

    async def _send(self, connection: Connection, messages: Sequence[Message]) -> list[tuple[Message, Refusal]]:
        """Send ``messages``; return those that are refused. With durability "sync" a batch is stored and synced as a whole."""
        if not self._atomic:
            return await connection.store(messages, self._stored)
        for start in range(0, len(messages), MOST_ATOMIC):
            batch = messages[start : start + MOST_ATOMIC]
            refusal = await connection.store_atomically(batch)
            if refusal is not None and refusal.err_code in {DUPLICATE, INCOMPLETE}:  # which one, and why, is not said
                refusal = await self._send_each(connection, batch)
            if refusal is not None:
                return [(message, refusal) for message in batch if message.id not in self._stored]
            self._stored.update(message.id for message in batch)
        return []

    async def _send_each(self, connection: Connection, messages: Sequence[Message]) -> Refusal | None:
        """Send each message by itself, in order, synced as well. Return why one was refused, unless the stream has it."""
        for message in messages:
            refusal = await connection.store_atomically([message])
            if refusal is not None and refusal.err_code != DUPLICATE:
                return refusal
            self._stored.add(message.id)
        return None

    async def _ask_stream(self, connection: Connection, shards: set[tuple[int, int]]) -> None:
        """Ask the stream for its last event of each of ``shards`` of which this connection has sent nothing yet."""
        unknown = shards - self._last.keys()
        if unknown:
            stream, settings = connection.client.jetstream(), self._settings
            for shard in unknown:
                found = await last_event(stream, settings.name, settings.prefix, shard)
                last = self._last[shard] = None if found is None else found[0]
                self._note_lost(self._kept.missing(shard, last, new=self._made_stream))
                if found is not None:
                    self._kept.found(shard, *found)

    def _is_stored(self, message: Message) -> bool:
        """Return whether the stream has ``message``: it was acknowledged, or lies before the last event of its shard.

        What the server refused does not: later events of the same batch may be stored before it.
        """
        if message.id in self._stored:
            return True
        position, last = message.position, self._last.get(message.event.shard)
        if position is None or last is None or message.id in self._refused:
            return False
        return position.session == last.session and position.seq <= last.seq
