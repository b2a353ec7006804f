"""Write into the stream each event once, and tell which events the server has lost.

After a failure the next connection asks the stream for its last event of each shard and sends only what comes after it; the id of
each message is the second guard against an event that is stored twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nats.aio.client import Client

from discorder.errors import PublisherError
from discorder.publishers.nats.connection import (
    DUPLICATE,
    INCOMPLETE,
    MOST_ATOMIC,
    NO_STREAM_HAS_IT,
    Connection,
    Refusal,
)
from discorder.publishers.nats.kept import KeptEvents, KeptRange, Shard
from discorder.publishers.nats.messages import Message, message_of
from discorder.publishers.nats.stream import StreamSettings, end_of, last_event, make_or_check
from discorder.wire import StreamPosition

MOST_NAMED = 20  # sessions in a line of the log

logger = logging.getLogger(__name__)


class StreamWriter:
    """Store messages of the publisher ``name`` over one connection after the other; `begin` each of them.

    ``dropped`` and ``gaps``: events that this process had stored and the server has lost, and the gap records about them.
    """

    _settings: StreamSettings  # by `begin`

    def __init__(self, name: str, max_age: float) -> None:
        self.dropped = self.gaps = 0
        self._name = name
        self._kept = KeptEvents(max_age)
        self._made_stream = False
        # By shard: the last event in the stream when this connection began; None if it does not matter.
        self._last: dict[Shard, StreamPosition | None] = {}
        self._stored: set[str] = set()  # ids of the batch that is tried again
        self._refused: set[str] = set()
        self._untold: list[Message] = []  # gap records of events that the server has lost

    def adopt(self, shard: Shard, session: str, seq: int) -> None:
        """Note that an earlier process has stored the events of ``session`` up to ``seq``."""
        self._kept.adopt(shard, session, seq)

    async def begin(self, client: Client, settings: StreamSettings, *, first: bool) -> None:
        """Make or check the stream on a new connection, and note what it has lost since the last one. See `make_or_check`."""
        self._settings = settings
        self._last.clear()
        stored = self._kept.end
        end = await make_or_check(client, settings, first=first)
        self._made_stream = self._made_stream or end is None
        if end is not None and end < stored:
            end = await end_of(client, settings, stored)
        if (end or 0) >= stored:
            self._kept.end = end or 0
            return
        self._stored.clear()  # what was acknowledged of a batch that failed may be lost, too
        self._refused.clear()

        async def find(shard: Shard) -> StreamPosition | None:
            found = await last_event(client.jetstream(), settings.name, settings.prefix, shard)
            return None if found is None else found[0]

        self._note_lost(await self._kept.lost_after(end or 0, find))

    def _note_lost(self, lost: Sequence[KeptRange]) -> None:
        """Prepare a gap record for each range of events that the stream had and has no more."""
        if not lost:
            return
        self.dropped += sum(one.count for one in lost)
        self.gaps += len(lost)
        self._untold += [message_of(one.gap(self._name), self._settings.prefix) for one in lost]
        logger.warning(
            "Publisher %s: the NATS server has lost events that the stream %s had: %s%s. Gap records in it tell the readers",
            *(self._name, self._settings.name, ", ".join(map(str, lost[:MOST_NAMED]))),
            f", and of {len(lost) - MOST_NAMED} other sessions" if len(lost) > MOST_NAMED else "",
        )

    async def store(self, connection: Connection, messages: Sequence[Message]) -> None:
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
                connection.is_given_up = True
            msg = f"NATS refused {len(refused)} of {len(messages)} messages: {'; '.join(sorted(reasons))}"
            raise PublisherError(msg)
        self._stored.clear()
        self._refused.clear()
        self._untold.clear()
        self._last.update(dict.fromkeys(shards))  # what comes is later
        self._kept.add(messages)

    async def _send(self, connection: Connection, messages: Sequence[Message]) -> list[tuple[Message, Refusal]]:
        """Send ``messages``; return those that are refused. With durability "sync" a batch is stored and synced as a whole."""
        if not self._settings.atomic:
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

    async def _ask_stream(self, connection: Connection, shards: set[Shard]) -> None:
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
