"""Reads all events for one bot, which keeps its position in its cursor."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from discorder.bot.redis.address import RedisAddress
from discorder.bot.redis.merge import StreamEntry, merge
from discorder.bot.redis.source import BEGINNING, BLOCK, LOOK_EVERY, RedisSource, entries_of, places_of, shard_of
from discorder.bot.stream_subscription import Entry, Lane, StreamCursor
from discorder.redis_access import events_key, records_key

BATCH = 256  # entries of all streams in one read, but at least
LEAST = 16  # of each


class RedisPlace(msgspec.Struct):
    """The last entry of each stream, by key, that the bot has processed."""

    prefix: str
    streams: dict[str, str]


class RedisReader(RedisSource):
    """All shards in one lane. ``oldest``: where to begin without a place in the cursor."""

    def __init__(
        self,
        address: RedisAddress,
        types: frozenset[str] | None,
        lane: Lane,
        cursor: StreamCursor | None,
        *,
        oldest: bool,
        live_only: bool,
    ) -> None:
        super().__init__(address, types)
        self._lane = lane
        self._cursor = cursor
        self._oldest = oldest
        self._live_only = live_only
        self._place: RedisPlace | None = None if cursor is None else cursor.place
        self._read_to: dict[str, str] = {}  # by key
        self._places: list[str] = []
        self._unchecked: set[str] = set()  # streams that may have lost entries before they were read

    def take(self) -> Entry | None:
        """See `StreamSource`."""
        entry = super().take()
        if len(self._entries) == BATCH // 2:
            self._woken.set()
        return entry

    def done(self, entry: Entry) -> None:
        """See `StreamSource`. The place is one object, since there may be hundreds of streams."""
        key, _, at = entry.reply.rpartition(" ")
        entry.place.streams[key] = at

    async def flush(self) -> None:
        """See `StreamSource`: there is nothing to send."""

    async def _read(self, client: Any, prefix: str) -> None:
        self._begin(prefix)
        look_at = 0.0
        while True:
            if len(self._entries) > BATCH // 2:
                await self._pause(BLOCK / 1_000)
                continue
            if time.monotonic() >= look_at:
                await self._find_streams(client, prefix)
                look_at = time.monotonic() + LOOK_EVERY
            if not self._read_to:
                self._note_attached()
                await self._pause(LOOK_EVERY)
                continue
            before = dict(self._read_to)
            count = max(LEAST, BATCH // len(self._places))
            found = entries_of(await client.xread(before, count=count))
            await self._look_for_loss(client, before, found, count)
            self._note(prefix, found, count)
            self._note_attached()
            if not found:  # an old server answers a wait with the first stream only, so the answer is not used
                await client.xread(self._read_to, count=1, block=BLOCK)

    def _begin(self, prefix: str) -> None:
        """Go on where the last connection, or an earlier run, has ended."""
        if self._place is None or self._place.prefix != prefix:
            if self._place is not None:
                self._entries.append(Entry(self._lane, None, None))
            self._place = RedisPlace(prefix, {})
            if self._cursor is not None:
                self._cursor.place = self._place
        if not self._read_to and not self._live_only:
            self._read_to.update(self._place.streams)
        self._unchecked = {key for key, at in self._read_to.items() if at != BEGINNING}

    async def _find_streams(self, client: Any, prefix: str) -> None:
        """Add the streams of shards that are new. Those that exist at the start begin now, unless older ones are wanted."""
        is_start = not self._has_looked
        places = await places_of(client, prefix)
        starts_now = is_start and (self._live_only or not (self._oldest or self._lane.resumes))
        for place in places:
            for key in (events_key(prefix, place), records_key(prefix, place)):
                if key not in self._read_to:
                    self._read_to[key] = await _last_id(client, key) if starts_now else BEGINNING
        if is_start and self._live_only:
            self._skip()
        self._places = places
        self._has_looked = True

    def _skip(self) -> None:
        """Note which shards have moved on since an earlier run."""
        assert self._place is not None  # noqa: S101  # `_begin` made it
        known = self._place.streams
        if any(self._read_to.get(key, at) != at for key, at in known.items()):
            self._entries.append(Entry(self._lane, None, None))

    async def _look_for_loss(
        self, client: Any, before: dict[str, str], found: dict[str, list[StreamEntry]], count: int
    ) -> None:
        """Note which streams have dropped entries before they were read, or were lost and made again.

        A stream that still has the last entry that was read has lost none since. It is asked on each new connection, and as long
        as it has more entries than are read at once.
        """
        for place in self._places:
            key = events_key(self._prefix, place)
            if key in self._unchecked and before.get(key, BEGINNING) != BEGINNING:
                at = before[key]
                if not await client.xrange(key, at, at):
                    self._entries.append(Entry(self._lane, None, None, shard=shard_of(place)))
            self._unchecked.discard(key)
            if len(found.get(key, ())) == count:
                self._unchecked.add(key)

    @property
    def _prefix(self) -> str:
        assert self._place is not None  # noqa: S101  # `_begin` made it
        return self._place.prefix

    def _note(self, prefix: str, found: dict[str, list[StreamEntry]], count: int) -> None:
        for place in self._places:
            events, records = events_key(prefix, place), records_key(prefix, place)
            entries = merge(found.get(events, []), found.get(records, []), count)
            for entry in entries:
                self._read_to[entry.key] = entry.id
            self._hand_over(entry for entry in entries if self._wants(entry))

    def _hand_over(self, entries: Iterable[StreamEntry]) -> None:
        for entry in entries:
            document = entry.fields.get(b"document", b"")
            self._entries.append(Entry(self._lane, document, self._place, f"{entry.key} {entry.id}"))
        if self._entries:
            self._wake_reader()


async def _last_id(client: Any, key: str) -> str:
    """Return the last id that a stream has or had."""
    try:
        found: bytes = (await client.xinfo_stream(key))["last-generated-id"]
    except ResponseError as error:
        if "no such key" in str(error):
            return BEGINNING
        raise
    return found.decode()
