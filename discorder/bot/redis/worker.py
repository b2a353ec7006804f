"""Reads as one worker of a group: each event goes to one of them, and what a dead one left behind goes to another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from discorder.bot.broker_source import Broken
from discorder.bot.redis.address import RedisAddress
from discorder.bot.redis.group import PassingDetector, gap_in, unread_loss
from discorder.bot.redis.merge import StreamEntry, parse_id
from discorder.bot.redis.source import (
    BLOCK,
    LOOK_EVERY,
    RedisSource,
    entries_of,
    places_of,
    stream_entries,
)
from discorder.bot.stream_subscription import Entry, Lane
from discorder.redis_access import events_key, records_key
from discorder.wire import Event

BATCH = 16  # entries of each stream in one read: a dead worker leaves no more behind
MOST_WAITING = 64  # entries that wait for the bot
DEAD_AFTER = 30_000  # milliseconds without a sign of a worker, after which its entries go to others
CLAIM_EVERY = 2.0  # seconds
SIGN_EVERY = 5.0  # seconds between two signs that the bot still works on its entries
ACK_EVERY = 0.02  # seconds
FORGOTTEN_AFTER = 3_600_000  # milliseconds after which a worker without entries is removed from the group
CLOSE_TIMEOUT = 1.0  # seconds

logger = logging.getLogger(__name__)

Place = tuple[str, str]  # key of a stream, id


class RedisWorker(RedisSource):
    """One consumer of ``group``. ``oldest``: where a group begins that does not exist yet."""

    def __init__(self, address: RedisAddress, types: frozenset[str] | None, group: str, *, oldest: bool) -> None:
        super().__init__(address, types)
        self._group = group
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._oldest = oldest
        self._lane = Lane(types)
        self._lane.detector = PassingDetector(types, replay=False, saved=None)
        self._keys: list[str] = []
        self._places: dict[str, str] = {}  # of the streams of events, by key
        self._unchecked: set[str] = set()  # those that may have dropped events before the group read them
        self._held: set[Place] = set()  # delivered to this worker and not acknowledged
        self._processed: list[Place] = []  # to be acknowledged
        self._noted = asyncio.Event()  # there are such
        self._acknowledged = asyncio.Event()

    def take(self) -> Entry | None:
        """See `StreamSource`."""
        entry = super().take()
        if len(self._entries) == MOST_WAITING // 2:
            self._woken.set()
        return entry

    def done(self, entry: Entry) -> None:
        """See `StreamSource`."""
        if entry.place is not None:
            self._acknowledge(entry.place)

    async def flush(self) -> None:
        """See `StreamSource`."""
        while self._processed and not self._is_closed and self._failure is None:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def close(self) -> None:
        """See `StreamSource`. What the bot has not processed goes to another worker at once."""
        await super().close()
        self._acknowledged.set()
        if not self._was_attached:
            return
        client = self._client()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._leave(client)
        except self.failures:  # the others wait until this one counts as dead
            logger.info("Redis: what this worker has not processed goes to another one in %d s", DEAD_AFTER // 1_000)
        finally:
            with contextlib.suppress(*self.failures):
                await client.aclose()

    async def _read(self, client: Any, prefix: str) -> None:
        """Fetch, acknowledge and keep, each on a connection of its own: to fetch is to wait."""
        others = [self._client(), self._client()]
        self._keys = []  # a server that was emptied has lost the groups
        self._unchecked.clear()
        try:
            await self._find_streams(client, prefix)
            await self._fetch_own(client, prefix)
            self._note_attached()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fetch(client, prefix))
                tasks.create_task(self._send_acknowledgements(others[0]))
                tasks.create_task(self._keep(others[1], prefix))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            for other in others:
                await other.aclose()

    # ---------------------------------------------------------------- entries in

    async def _find_streams(self, client: Any, prefix: str) -> None:
        """Make the group in each stream of a shard that is new."""
        start = "0" if self._has_looked or self._oldest else "$"
        places = await places_of(client, prefix)
        keys = [key for place in places for key in (events_key(prefix, place), records_key(prefix, place))]
        known = set(self._keys)
        self._places = {events_key(prefix, place): place for place in places}
        self._unchecked |= self._places.keys() - known
        for key in keys:
            if key not in self._keys:
                try:
                    await client.xgroup_create(key, self._group, id=start, mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):  # another worker has made it
                        raise
        self._keys = keys
        self._has_looked = True

    async def _fetch_own(self, client: Any, prefix: str) -> None:
        """Fetch what the server delivered to this worker on an earlier connection, and what did not arrive."""
        if self._keys:
            found = await client.xreadgroup(self._group, self._name, dict.fromkeys(self._keys, "0"), count=1_000)
            for key, entries in entries_of(found).items():
                await self._report_dropped(client, prefix, key, _without_fields(entries))
                self._hand_over(entries)

    async def _fetch(self, client: Any, prefix: str) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time() + LOOK_EVERY
        while True:
            if loop.time() >= look_at:
                await self._find_streams(client, prefix)
                look_at = loop.time() + LOOK_EVERY
            if not self._keys or len(self._entries) > MOST_WAITING // 2:
                await self._pause(BLOCK / 1_000)
                continue
            new = dict.fromkeys(self._keys, ">")
            while self._unchecked:
                await self._look_for_loss(client, prefix, self._unchecked.pop())
            try:
                found = await client.xreadgroup(self._group, self._name, new, count=BATCH, block=BLOCK)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                msg = f"{self._shown} has lost the group {self._group}, which is made again"
                raise Broken(msg) from error
            for key, entries in entries_of(found or ()).items():
                self._hand_over(entries)
                if len(entries) == BATCH and key in self._places:
                    self._unchecked.add(key)

    async def _look_for_loss(self, client: Any, prefix: str, key: str) -> None:
        record = await unread_loss(client, prefix, self._places[key], self._group)
        if record is not None:
            self._tell(record)

    def _tell(self, record: Event) -> None:
        self._entries.append(Entry(self._lane, record.document, None))
        self._wake_reader()

    def _hand_over(self, entries: Sequence[StreamEntry]) -> None:
        for entry in entries:
            place = entry.key, entry.id
            if place in self._held:
                continue
            self._held.add(place)
            if not entry.fields or not self._wants(entry):
                self._acknowledge(place)
            else:
                self._entries.append(Entry(self._lane, entry.fields.get(b"document", b""), place))
        if self._entries:
            self._wake_reader()

    # ---------------------------------------------------------------- signs to the server

    def _acknowledge(self, place: Place) -> None:
        self._processed.append(place)
        self._noted.set()

    async def _send_acknowledgements(self, client: Any) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            try:
                await self._acknowledge_all(client)
            except BaseException:
                self._noted.set()
                raise
            self._acknowledged.set()
            await asyncio.sleep(ACK_EVERY)

    async def _acknowledge_all(self, client: Any) -> None:
        places = tuple(self._processed)
        for key, ids in _by_key(places).items():
            await client.xack(key, self._group, *ids)
        del self._processed[: len(places)]
        self._held.difference_update(places)

    async def _keep(self, client: Any, prefix: str) -> None:
        """Show that this worker lives, and take over what a dead one left behind."""
        loop = asyncio.get_running_loop()
        sign_at = loop.time() + SIGN_EVERY
        while True:
            for key in tuple(self._keys):
                if len(self._entries) <= MOST_WAITING // 2:
                    await self._take_over(client, prefix, key)
            await asyncio.sleep(CLAIM_EVERY)
            if loop.time() >= sign_at:
                sign_at = loop.time() + SIGN_EVERY
                for key, ids in _by_key(tuple(self._held)).items():
                    await client.xclaim(key, self._group, self._name, 0, ids, justid=True)
                await self._forget_the_dead(client)

    async def _take_over(self, client: Any, prefix: str, key: str) -> None:
        try:
            _, entries, *rest = await client.xautoclaim(key, self._group, self._name, DEAD_AFTER, count=BATCH)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            return  # `_fetch` makes it again
        found = stream_entries(key, entries)
        await self._report_dropped(client, prefix, key, [at.decode() for at in (rest[0] if rest else ())])
        await self._report_dropped(client, prefix, key, _without_fields(found))  # so they come from Redis 6
        self._hand_over(found)

    async def _report_dropped(self, client: Any, prefix: str, key: str, ids: Sequence[str]) -> None:
        """Report a gap for each event that the stream dropped after it had been delivered to a worker."""
        if (place := self._places.get(key)) is not None:
            for at in map(parse_id, ids):
                self._tell(await gap_in(client, prefix, place, at, at[1]))

    async def _forget_the_dead(self, client: Any) -> None:
        """Remove workers that left nothing behind, or each start of a worker would leave a name in the group."""
        for key in tuple(self._keys):
            for consumer in await client.xinfo_consumers(key, self._group):
                if not consumer["pending"] and consumer["idle"] > FORGOTTEN_AFTER:
                    await client.xgroup_delconsumer(key, self._group, consumer["name"])

    async def _leave(self, client: Any) -> None:
        await self._acknowledge_all(client)
        for key, ids in _by_key(tuple(self._held)).items():
            await client.xclaim(key, self._group, self._name, 0, ids, idle=2 * DEAD_AFTER, justid=True)
        kept = _by_key(tuple(self._held))
        for key in self._keys:
            if key not in kept:
                await client.xgroup_delconsumer(key, self._group, self._name)


def _by_key(places: Sequence[Place]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, at in places:
        found.setdefault(key, []).append(at)
    return found


def _without_fields(entries: Sequence[StreamEntry]) -> list[str]:
    return [entry.id for entry in entries if not entry.fields]
