"""Publish events to a NATS server.

In JetStream mode a batch is accepted once the server has stored each of its messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from discorder.errors import ConfigError, PublisherError, PublisherUnreachable
from discorder.nats_access import DEFAULT_SERVER, ServerAccess, check_names, listed
from discorder.publishers.nats.commands import CommandListener
from discorder.publishers.nats.connection import FAILURES, Connection, connect
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
from discorder.publishers.nats.stream import StreamSettings
from discorder.publishers.nats.writer import StreamWriter
from discorder.publishers.protocol import BusApi
from discorder.wire import Event

ENOUGH_PAYLOAD = 8_388_608  # bytes; GUILD_CREATE of a large guild has several megabytes
SMALL_BATCH = 64  # events: below it, the next one waits until
PAUSE = 0.005  # seconds after this one began: a batch costs as much CPU as several events

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
        self._replaced = 0  # events that were too large for the server
        self._key = f"publishers.{name}"
        check_names(self._key, prefix, stream)
        check_durability(self._key, mode, durability)
        if duplicate_window > stream_seconds:
            msg = f"{self._key}.duplicate_window: {duplicate_window:g} is more than stream_seconds ({stream_seconds:g}); set less"
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
        self._writer = StreamWriter(name, stream_seconds)

    @property
    def dropped(self) -> int:
        """Return the number of events that were too large for the server, or that it has lost."""
        return self._replaced + self._writer.dropped

    @property
    def gaps(self) -> int:
        """Return the number of gap records about them."""
        return self._replaced + self._writer.gaps

    def belongs_to(self, bot_id: int | None) -> None:
        """See `BotAwarePublisher`."""
        if not self._prefix and bot_id is not None:
            self._prefix = f"discord.{bot_id}"

    def answer_from(self, bus_api: BusApi) -> None:
        """See `AnsweringPublisher`."""
        self._bus_api = bus_api

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """See `AnsweringPublisher`: the stream should have what came before."""
        self._writer.adopt(shard, session, seq)

    async def open(self) -> None:
        """Connect, and make or check the stream. Raises ConfigError, or PublisherUnreachable without a server."""
        if self._is_open:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        if not self._prefix:
            msg = f"{self._key}.prefix: the bot token does not contain the id of the bot; set a prefix such as discord.mybot"
            raise ConfigError(msg)
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
            await (self._writer.store(connection, messages) if self.durable else connection.send(messages))
        except FAILURES as error:
            await self._drop_connection()
            msg = f"NATS: {error}"
            raise PublisherError(msg) from error
        except asyncio.CancelledError:
            connection.is_given_up = True
            raise
        self._replaced += replaced
        if len(events) < SMALL_BATCH and (rest := began + PAUSE - clock()) > 0:
            await asyncio.sleep(rest)

    async def close(self) -> None:
        """Close the connections."""
        self._is_open = False
        listener, self._listener = self._listener, None
        stopping = [] if listener is None else [listener.stop()]
        await asyncio.gather(self._drop_connection(), *stopping)

    # ---------------------------------------------------------------- connection

    async def _connect(self) -> Connection:
        connection = await connect(self._access)
        try:
            if self.durable:
                await self._writer.begin(connection.client, self._settings, first=not self._was_open)
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
        if connection is not None:
            await connection.close()

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
