"""Publish events to a Redis or Valkey server.

A batch is one transaction, and accepted once the server has carried it out. After a failure the next connection asks each
stream for its last id and sends only what comes after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError

from discorder.errors import ConfigError, PublisherError, PublisherUnreachable
from discorder.publishers.options import EventSelection
from discorder.publishers.redis.connection import FAILURES, Connection, connect
from discorder.publishers.redis.options import RedisOptions
from discorder.publishers.redis.server import ask_keeping, weaknesses
from discorder.publishers.redis.streams import Entry, Shard, ShardStreams, StreamId, commands_of, read_streams
from discorder.records import LossKind, LostEvents, gap_record
from discorder.redis_access import DEFAULT_URL, ServerAccess, check_prefix
from discorder.wire import Event

SMALL_BATCH = 64  # events: below it, the next one waits until
PAUSE = 0.005  # seconds after this one began; a batch costs as much as eight events
TOO_LATE = "equal or smaller"  # in the server's refusal of an id
LOST = "the Redis server came back without events that it had accepted"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Accepted:
    """The last event of a shard that the server accepted from this process, and how many of its session."""

    session: str
    id: StreamId
    first_at: datetime
    last_at: datetime
    count: int


class RedisPublisher:
    """Publish to the server at ``url``, under ``prefix`` ("" = ``discord:`` and the id of the bot).

    Each shard has a stream of events and one of records, of about ``maxlen`` entries each. ``durable``: refuse a server that may
    lose accepted events in a crash. ``gets_all``: it is offered every event, so a sequence that is not in the stream is lost.

    Raises ConfigError for an invalid prefix, URL or file, and for an unencrypted connection to another host unless ``insecure``.
    """

    Options = RedisOptions

    def __init__(
        self,
        url: str = DEFAULT_URL,
        name: str = "redis",
        *,
        maxlen: int,
        durable: bool = True,
        prefix: str = "",
        tls_ca_file: str = "",
        tls_cert_file: str = "",
        tls_key_file: str = "",
        insecure: bool = False,
        gets_all: bool = True,
    ) -> None:
        self.name = name
        self.durable = durable
        self.dropped = self.gaps = 0  # accepted events that the server lost; at most so many
        self._key = f"publishers.{name}"
        check_prefix(self._key, prefix)
        self._access = ServerAccess(self._key, url, tls_ca_file, tls_cert_file, tls_key_file, insecure)
        self._access.check()
        self._prefix = prefix
        self._gets_all = gets_all
        self._maxlen = maxlen
        self._is_open = False
        self._was_open = False
        self._connection: Connection | None = None
        self._states: dict[Shard, ShardStreams] = {}  # as known on this connection
        self._accepted: dict[Shard, _Accepted] = {}
        self._adopted: dict[Shard, _Accepted] = {}  # by an earlier process; the start of the session is not known
        self._losses: list[Event] = []  # gap records that are not stored yet
        self._record_ids: dict[bytes, StreamId] = {}  # by document: of records that were sent and not acknowledged
        self._refused: set[tuple[Shard, str | None, int | None]] = set()  # events of the batch that is tried again

    @classmethod
    def from_options(cls, name: str, options: RedisOptions) -> RedisPublisher:
        """Return the publisher that the table describes; what is required must survive a crash of the server."""
        return cls(
            options.url,
            name,
            maxlen=options.maxlen,
            durable=options.required,
            prefix=options.prefix,
            tls_ca_file=options.tls_ca_file,
            tls_cert_file=options.tls_cert_file,
            tls_key_file=options.tls_key_file,
            insecure=options.insecure,
            gets_all=options.events == EventSelection(),
        )

    def belongs_to(self, bot_id: int | None) -> None:
        """See `BotAwarePublisher`."""
        if not self._prefix and bot_id is not None:
            self._prefix = f"discord:{bot_id}"

    def goes_on(self, shard: Shard, session: str, seq: int) -> None:
        """See `ContinuingPublisher`: an earlier process has stored the events up to ``seq``."""
        now = datetime.now(UTC)
        self._adopted[shard] = _Accepted(session, StreamId(0, seq), now, now, 0)

    async def open(self) -> None:
        """Connect, and check that the server keeps what it accepts. Raises ConfigError, or PublisherUnreachable without one."""
        if self._is_open:
            msg = f"publisher {self.name} is open already"
            raise PublisherError(msg)
        self._check_prefix()
        self._connection = await self._connect()
        self._is_open = self._was_open = True

    async def publish(self, events: Sequence[Event]) -> None:
        """Return once the server has stored the batch. Raises PublisherError.

        After a small batch it returns at most `PAUSE` later than that, so that more events are in the next one.
        """
        if not self._is_open:
            msg = f"publisher {self.name} is not open"
            raise PublisherError(msg)
        clock = asyncio.get_running_loop().time
        began = clock()
        connection = self._connection
        if connection is None or connection.is_lost:
            await self._drop_connection()
            connection = self._connection = await self._connect()
        try:
            await self._store(connection, events)
        except FAILURES as error:
            await self._drop_connection()
            msg = f"Redis: {str(error) or 'no answer in time'}"
            raise PublisherError(msg) from error
        except BaseException:  # nobody knows what the server has
            await self._drop_connection()
            raise
        if len(events) < SMALL_BATCH and (rest := began + PAUSE - clock()) > 0:
            await asyncio.sleep(rest)

    async def close(self) -> None:
        """Close the connection."""
        self._is_open = False
        await self._drop_connection()

    async def examine(self) -> list[tuple[str, str]]:
        """See `ExaminedPublisher`."""
        self._check_prefix()
        connection = await connect(self._access)
        try:
            found = await self._weaknesses(connection)
        except FAILURES as error:
            raise self._no_answer(error) from error
        finally:
            await connection.close()
        if found and self.durable:
            raise self._refusal(found[0])
        return [(text, remedy) for text, _, remedy in (weakness.partition("; ") for weakness in found)]

    def _check_prefix(self) -> None:
        if not self._prefix:
            msg = f"{self._key}.prefix: the bot token does not contain the id of the bot; set a prefix such as discord:mybot"
            raise ConfigError(msg)

    # ---------------------------------------------------------------- connection

    async def _connect(self) -> Connection:
        connection = await connect(self._access)
        try:
            await self._check(connection)
        except FAILURES as error:
            await connection.close()
            raise self._no_answer(error) from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _check(self, connection: Connection) -> None:
        """Refuse a server that may lose events, unless it was accepted once or need not keep them: then log it."""
        for weakness in await self._weaknesses(connection):
            if self.durable and not self._was_open:
                raise self._refusal(weakness)
            if self.durable or not self._was_open:
                logger.warning("Publisher %s: %s", self.name, weakness)

    async def _weaknesses(self, connection: Connection) -> list[str]:
        return list(weaknesses(await ask_keeping(connection)))

    def _refusal(self, weakness: str) -> ConfigError:
        return ConfigError(
            f"{self._key}.required: {weakness}; or set {self._key}.required = false, and accept the loss"
        )

    def _no_answer(self, error: Exception) -> PublisherUnreachable:
        return PublisherUnreachable(
            f"{self._key}: the Redis server does not answer: {str(error) or 'no answer in time'}"
        )

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        self._states.clear()
        if connection is not None:
            await connection.close()

    # ---------------------------------------------------------------- entries

    async def _store(self, connection: Connection, events: Sequence[Event]) -> None:
        """Store ``events`` without those that the streams have already. Raises PublisherError if the server refused any."""
        await self._read_streams(connection, events)
        batch = [*self._losses, *events]
        self._refused &= {(event.shard, event.session, event.seq) for event in events}
        entries = await self._entries(connection, batch)
        if entries:
            answers = await connection.transact(commands_of(entries, self._states, self._maxlen))
            await self._check_answers(connection, entries, answers[-len(entries) :])
        self._losses.clear()
        self._record_ids.clear()
        self._refused.clear()
        for entry in entries:
            if entry.event.seq is not None:
                self._note_accepted(entry)

    async def _read_streams(self, connection: Connection, events: Sequence[Event]) -> None:
        """Ask the server for the streams of which this connection knows nothing yet, and note what they have lost."""
        shards = {event.shard for event in events} - self._states.keys()
        if not shards:
            return
        shards |= (self._accepted.keys() | self._adopted.keys()) - self._states.keys()
        self._states |= await read_streams(connection, self._prefix, sorted(shards))
        lost = [shard for shard in sorted(shards) if self._find_loss(shard)]
        if lost:
            shown = ", ".join(str(shard) for shard, _ in lost)
            logger.warning("Publisher %s: %s; gap records tell them (shards %s)", self.name, LOST, shown)

    async def _entries(self, connection: Connection, events: Sequence[Event]) -> list[Entry]:
        stored = await self._stored_records(connection, events)
        entries = []
        for event in events:
            state = self._states[event.shard]
            if event.seq is None:
                if event.document not in stored:
                    entry = state.add_record(event, self._record_ids.get(event.document))
                    self._record_ids[event.document] = entry.id
                    entries.append(entry)
            else:
                again = (event.shard, event.session, event.seq) in self._refused
                if (new := state.add(event, again=again)) is not None:
                    entries.append(new)
        return entries

    async def _stored_records(self, connection: Connection, events: Sequence[Event]) -> set[bytes]:
        """Return the documents of the records among ``events`` that an earlier attempt stored."""
        sent = [event for event in events if event.seq is None and event.document in self._record_ids]
        if not sent:
            return set()
        found = await _find(
            connection, [(self._states[one.shard].records, self._record_ids[one.document]) for one in sent]
        )
        return {event.document for event, is_there in zip(sent, found, strict=True) if is_there}

    async def _check_answers(self, connection: Connection, entries: Sequence[Entry], answers: Sequence[Any]) -> None:
        """Raise PublisherError if the server refused an entry that it does not have."""
        failed = [
            (entry, answer) for entry, answer in zip(entries, answers, strict=True) if isinstance(answer, ResponseError)
        ]
        late = [entry for entry, answer in failed if TOO_LATE in str(answer)]
        found = await _find(connection, [(entry.key, entry.id) for entry in late]) if late else []
        repeats = [entry for entry, is_there in zip(late, found, strict=True) if is_there]
        refused = [(entry, answer) for entry, answer in failed if entry not in repeats]
        if refused:
            self._refused.update((entry.event.shard, entry.event.session, entry.event.seq) for entry, _ in refused)
            entry, answer = refused[0]
            msg = (
                f"Redis refused {len(refused)} of {len(entries)} entries, the first one {entry.id} in {entry.key}: {answer}; "
                "is there another program that writes to this key? They are sent again with later ids"
            )
            raise PublisherError(msg)

    # ---------------------------------------------------------------- losses

    def _note_accepted(self, entry: Entry) -> None:
        event = entry.event
        last = self._accepted.get(event.shard)
        if last is None or last.session != event.session:
            self._accepted[event.shard] = _Accepted(
                event.session or "", entry.id, event.received_at, event.received_at, 1
            )
        else:
            last.id, last.last_at = entry.id, event.received_at
            last.count += 1

    def _find_loss(self, shard: Shard) -> bool:
        """Note what the streams of ``shard`` lack; return whether that is something."""
        state = self._states[shard]
        adopted, accepted = self._adopted.pop(shard, None), self._accepted.get(shard)
        if accepted is not None:
            state.floor = accepted.id.ms
            if state.top < accepted.id:
                first = state.top.seq + 1 if state.top.ms == accepted.id.ms else 1
                self._note_loss(shard, self._accepted.pop(shard), first)
                return True
        elif adopted is not None:
            seen = state.seen if state.session == adopted.session else 0
            if seen < adopted.id.seq and (self._gets_all or not seen):
                self._note_loss(shard, adopted, seen + 1)
                return True
        return False

    def _note_loss(self, shard: Shard, accepted: _Accepted, first: int) -> None:
        lost = LostEvents(
            LossKind.PUBLISHER, self.name, first, accepted.id.seq, LOST, accepted.first_at, accepted.last_at
        )
        self._losses.append(gap_record(shard, accepted.session, accepted.last_at, lost))
        self.gaps += 1
        self.dropped += min(accepted.count, accepted.id.seq - first + 1)


async def _find(connection: Connection, places: Sequence[tuple[str, StreamId]]) -> list[bool]:
    """Return for each key and id whether the stream has the entry."""
    answers = await connection.ask([("XRANGE", key, str(at), str(at)) for key, at in places])
    return [bool(answer) and not isinstance(answer, ResponseError) for answer in answers]
