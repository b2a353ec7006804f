"""Name the streams of a shard and number their entries. Sends nothing.

The id of an event is ``START-SEQ``: the start of its session in milliseconds, which rises with each session, and Discord's
sequence. So the server refuses an event that it has, and one that comes too late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from discorder.errors import PublisherError
from discorder.publishers.redis.connection import Command, Connection
from discorder.redis_access import events_key, records_key, session_key, shards_key
from discorder.wire import Event

Shard = tuple[int, int]  # id, count

LARGEST_SEQ = 2**64 - 1  # of an id
NO_KEY = "no such key"


class StreamId(NamedTuple):
    """An id of a stream entry."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


NOTHING = StreamId(0, 0)


class Entry(NamedTuple):
    """An entry to be written, of an event or a record. ``is_first``: its session begins in the stream."""

    key: str
    id: StreamId
    event: Event
    after: StreamId | None = None
    is_first: bool = False


@dataclass(slots=True)
class ShardStreams:
    """Hold what the server has of one shard: the last ids of both streams, and the session whose events are written.

    ``seen``: the last sequence of ``session`` in the stream. ``floor``: the next start must be later. A session gets another
    start when its next id would be too late, because another program wrote to the stream.
    """

    events: str  # the keys
    records: str
    session_key: str
    shards_key: str
    place: str  # COUNT:SHARD
    top: StreamId = NOTHING
    record_top: StreamId = NOTHING
    session: str = ""
    start: int = 0
    seen: int = 0
    floor: int = 0

    @classmethod
    def of(cls, prefix: str, shard: Shard) -> ShardStreams:
        """Return the streams of ``shard``, empty."""
        place = f"{shard[1]}:{shard[0]}"
        return cls(
            events_key(prefix, place),
            records_key(prefix, place),
            session_key(prefix, place),
            shards_key(prefix),
            place,
        )

    def add(self, event: Event, *, again: bool) -> Entry | None:
        """Return the entry of an event; None if the stream has it. ``again``: the server refused it under an earlier id."""
        assert event.seq is not None  # noqa: S101  # a record goes to `add_record`
        session = event.session or ""
        is_new = session != self.session
        if not is_new and event.seq <= self.seen and not again:
            return None
        is_first = is_new or self.top >= (self.start, event.seq)
        if is_first:
            self.start = max(_milliseconds(event.received_at), self.top.ms + 1, self.floor + 1)
            self.session = session
        self.seen = event.seq if is_new else max(self.seen, event.seq)
        self.top = StreamId(self.start, event.seq)
        return Entry(self.events, self.top, event, is_first=is_first)

    def add_record(self, record: Event, stored: StreamId | None) -> Entry:
        """Return the entry of a record. ``stored``: the id that an earlier attempt gave it."""
        if stored is None or stored <= self.record_top:
            ms = max(_milliseconds(record.received_at), self.record_top.ms)
            stored = StreamId(ms, self.record_top.seq + 1 if ms == self.record_top.ms else 0)
        self.record_top = stored
        return Entry(self.records, stored, record, after=self.top)


def commands_of(entries: Sequence[Entry], states: Mapping[Shard, ShardStreams], maxlen: int) -> list[Command]:
    """Return the commands that write ``entries``, in order; those that store what is known of a shard come first."""
    sessions: list[Command] = []
    for entry in entries:
        if entry.is_first:
            state, session = states[entry.event.shard], entry.event.session or ""
            sessions += [
                ("HSET", state.session_key, "session", session, "start", entry.id.ms),
                ("SADD", state.shards_key, state.place),
            ]
    return sessions + [_addition(entry, maxlen) for entry in entries]


def _addition(entry: Entry, maxlen: int) -> Command:
    after = () if entry.after is None else ("after", str(entry.after))
    event = entry.event
    return (
        *("XADD", entry.key, "MAXLEN", "~", maxlen, str(entry.id)),
        *("type", event.type, "document", event.document, *after),
    )


async def read_streams(connection: Connection, prefix: str, shards: Sequence[Shard]) -> dict[Shard, ShardStreams]:
    """Ask the server what it has of ``shards``. Raises PublisherError, or one of `connection.FAILURES`."""
    found = {shard: ShardStreams.of(prefix, shard) for shard in shards}
    commands: list[Command] = []
    for state in found.values():
        commands += [
            ("XINFO", "STREAM", state.events),
            ("XINFO", "STREAM", state.records),
            ("HMGET", state.session_key, "session", "start"),
        ]
    answers = await connection.ask(commands)
    for number, state in enumerate(found.values()):
        events, records, session = answers[3 * number : 3 * number + 3]
        state.top = _last_id(events, state.events)
        state.record_top = _last_id(records, state.records)
        if isinstance(session, ResponseError):
            raise _unusable(session, state.session_key)
        if None not in session:
            state.session, state.start = session[0].decode(), int(session[1])
    await _find_last_of_session(connection, found.values())
    return found


async def _find_last_of_session(connection: Connection, states: Any) -> None:
    """Set `seen`, also where another program wrote later ids."""
    for state in states:
        if not state.session:
            continue
        if state.top.ms == state.start:
            state.seen = state.top.seq
        elif state.top.ms > state.start:
            last = StreamId(state.start, LARGEST_SEQ), StreamId(state.start, 0)
            (found,) = await connection.ask([("XREVRANGE", state.events, *map(str, last), "COUNT", 1)])
            if found and not isinstance(found, ResponseError):
                state.seen = parse_id(found[0][0]).seq


def parse_id(text: bytes) -> StreamId:
    """Return the id that the server wrote as ``text``."""
    ms, _, seq = text.partition(b"-")
    return StreamId(int(ms), int(seq))


def _last_id(answer: Any, key: str) -> StreamId:
    """Return the last id that the stream has or had, out of an answer to XINFO STREAM."""
    if isinstance(answer, ResponseError):
        if NO_KEY in str(answer):
            return NOTHING
        raise _unusable(answer, key)
    return parse_id(answer[answer.index(b"last-generated-id") + 1])


def _unusable(error: ResponseError, key: str) -> PublisherError:
    return PublisherError(
        f"Redis: the key {key} cannot be used ({error}); delete it if it is of another program, set another prefix, or allow "
        "the user its commands"
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)
