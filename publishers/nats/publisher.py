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
from discorder.nats_access import DEFAULT_SERVER, ServerAccess, check_names, listed
from discorder.publishers.nats.connection import FAILURES, NO_STREAM_HAS_IT, Connection, connect
from discorder.publishers.nats.messages import Message, gap_instead, message_of, size_of
from discorder.publishers.nats.options import DUPLICATE_WINDOW, STREAM_BYTES, STREAM_SECONDS, Mode, NatsOptions
from discorder.publishers.nats.stream import StreamSettings, last_position, make_or_check
from discorder.wire import Event, StreamPosition

ENOUGH_PAYLOAD = 8_388_608  # bytes; GUILD_CREATE of a large guild has several megabytes

logger = logging.getLogger(__name__)


class NatsPublisher:
    """Publish to the first of ``servers`` that can be reached, under ``prefix`` ("" = ``discord.`` and the id of the bot).

    ``mode``: "jetstream" stores each event once, in order per shard, in ``stream`` ("" = the prefix with ``_`` for each dot),
    which keeps at most ``stream_bytes`` and ``stream_seconds`` on ``replicas`` servers; "core" sends to the subscribers of the
    moment. ``duplicate_window`` (seconds): how long the server knows the ids of stored messages.

    Raises ConfigError for an invalid name, URL or file, and for an unencrypted connection to another host unless ``insecure``.
    """

    Options = NatsOptions

    def __init__(
        self,
        servers: str | Sequence[str] = DEFAULT_SERVER,
        name: str = "nats",
        *,
        mode: Mode = "jetstream",
        prefix: str = "",
        stream: str = "",
        stream_bytes: int = STREAM_BYTES,
        stream_seconds: float = STREAM_SECONDS,
        duplicate_window: float = DUPLICATE_WINDOW,
        replicas: int = 1,
        credentials_file: str = "",
        tls_ca_file: str = "",
        tls_cert_file: str = "",
        tls_key_file: str = "",
        insecure: bool = False,
    ) -> None:
        self.name = name
        self.durable = mode == "jetstream"
        self.dropped = self.gaps = 0  # events that were too large for the server
        self._key = f"publishers.{name}"
        check_names(self._key, prefix, stream)
        if duplicate_window > stream_seconds:
            msg = f"{self._key}.duplicate_window: {duplicate_window:g} is more than stream_seconds ({stream_seconds:g}); set less"
            raise ConfigError(msg)
        self._access = ServerAccess(
            self._key, listed(servers), credentials_file, tls_ca_file, tls_cert_file, tls_key_file, insecure
        )
        self._access.check()
        self._prefix = prefix
        self._stream = stream
        self._limits = (stream_bytes, stream_seconds, duplicate_window, replicas)
        self._is_open = False
        self._was_open = False
        self._connection: Connection | None = None
        self._last: dict[
            tuple[int, int], StreamPosition | None
        ] = {}  # by shard: in the stream when this connection began
        self._stored: set[str] = set()  # ids of the batch that is tried again
        self._refused: set[str] = set()

    def belongs_to(self, bot_id: int | None) -> None:
        """See `BotAwarePublisher`."""
        if not self._prefix and bot_id is not None:
            self._prefix = f"discord.{bot_id}"

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

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the server has stored the batch (mode "core": received it). Raises PublisherError."""
        if not self._is_open:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        connection = self._connection
        if connection is None or connection.is_spent:
            await self._drop_connection()
            connection = self._connection = await self._connect()
        messages = [self._fitting(message_of(event, self._prefix), connection) for event in events]
        try:
            await (self._store(connection, messages) if self.durable else connection.send(messages))
        except FAILURES as error:
            await self._drop_connection()
            msg = f"NATS: {error}"
            raise PublisherError(msg) from error
        except asyncio.CancelledError:
            connection.is_cancelled = True
            raise
        replaced = sum(message.replaces for message in messages)
        self.dropped += replaced
        self.gaps += replaced

    async def close(self) -> None:
        """Close the connection."""
        self._is_open = False
        await self._drop_connection()

    # ---------------------------------------------------------------- connection

    async def _connect(self) -> Connection:
        connection = await connect(self._access)
        try:
            if self.durable:
                await make_or_check(connection.client, self._settings, first=not self._was_open)
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

    # ---------------------------------------------------------------- messages

    def _fitting(self, message: Message, connection: Connection) -> Message:
        limit = connection.client.max_payload
        if size_of(message) <= limit:
            return message
        return gap_instead(message, self._prefix, self.name, limit)

    async def _store(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Store ``messages`` without those that the stream has already. Raises PublisherError if the server refused any."""
        ids = {message.id for message in messages}
        self._stored &= ids
        self._refused &= ids
        await self._ask_stream(connection, messages)
        refused = await connection.store([one for one in messages if not self._is_stored(one)], self._stored)
        if refused:
            self._refused.update(message.id for message, _ in refused)
            reasons = {reason for _, reason in refused}
            if NO_STREAM_HAS_IT in reasons:  # the next connection makes it again
                await self._drop_connection()
            msg = f"NATS refused {len(refused)} of {len(messages)} messages: {'; '.join(sorted(reasons))}"
            raise PublisherError(msg)
        self._stored.clear()
        self._refused.clear()

    async def _ask_stream(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Ask the stream for its last event of each shard of which this connection has sent nothing yet."""
        shards = {message.event.shard for message in messages} - self._last.keys()
        if shards:
            stream, settings = connection.client.jetstream(), self._settings
            for shard in shards:
                self._last[shard] = await last_position(stream, settings.name, settings.prefix, shard)

    def _is_stored(self, message: Message) -> bool:
        """Return whether the stream has ``message``: it was acknowledged, or lies before the last event of its shard.

        What the server refused does not: later events of the same batch may be stored before it.
        """
        if message.id in self._stored:
            return True
        position, last = message.position, self._last[message.event.shard]
        if position is None or last is None or message.id in self._refused:
            return False
        return position.session == last.session and position.seq <= last.seq
