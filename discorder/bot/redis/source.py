"""What both kinds of readers share: the connection, and the streams that the publisher lists on the server."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from discorder.bot.broker_source import BrokerSource
from discorder.bot.positions import GAP_RECORD, Shard
from discorder.bot.redis.address import RedisAddress
from discorder.bot.redis.merge import StreamEntry
from discorder.errors import SubscriptionFailed
from discorder.redis_access import shards_key

ANSWER_TIMEOUT = 5.0  # seconds
BLOCK = 1_000  # milliseconds that the server waits for the next entry
BEGINNING = "0-0"  # the id before every other
LOOK_EVERY = 0.5  # seconds between two looks for streams


class _Client(Redis):
    """A client that limits the time of each command. The library's own limit swallows cancellations on Python 3.11."""

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


class RedisSource(BrokerSource):
    """The entries of the streams of one control plane."""

    broker = "Redis"
    failures = (RedisError, OSError, TimeoutError)

    def __init__(self, address: RedisAddress, types: frozenset[str] | None) -> None:
        super().__init__(address.shown)
        self._address = address
        self._types = types
        self._has_looked = False  # for streams: what is new from then on is read from its beginning

    @abstractmethod
    async def _read(self, client: Any, prefix: str) -> None:
        """Read until the connection ends. Call `_note_attached` once that works.

        Raises one of `failures`, `Broken` or `SubscriptionFailed`.
        """

    async def _connect_and_read(self) -> None:
        client = self._client()
        try:
            try:
                await client.ping()
            except self.failures as error:
                refused = isinstance(error, AuthenticationError)
                raise self._address.access.failure(error, refused=refused) from error
            prefix = await self._find_prefix(client)
            await self._read(client, prefix)
        finally:
            await client.aclose()

    def _client(self) -> Any:
        """Return a client with one connection. Its types name answers that the server does not give here."""
        access = self._address.access
        settings = {**access.settings(), "ssl": access.address().is_encrypted, "socket_timeout": None}
        return _Client(**settings, single_connection_client=True, retry=Retry(NoBackoff(), 0))

    async def _find_prefix(self, client: Any) -> str:
        """Return the prefix of the address, or that of the only control plane on the server, once it has streams."""
        began, wanted = time.monotonic(), self._address.prefix
        while not (found := await _prefixes(client, wanted)):
            self._has_looked = True
            under = f" with the prefix {wanted}" if wanted else ""
            self._log_outage(f"{self._shown} has no streams of a control plane{under} yet; waiting for them", began)
            await self._pause(LOOK_EVERY)
        if len(found) > 1:
            msg = (
                f"{self._shown} has the streams of several control planes: {', '.join(found)}. Choose one: add ?prefix=PREFIX "
                "to the address"
            )
            raise SubscriptionFailed(msg)
        return found[0]

    def _wants(self, entry: StreamEntry) -> bool:
        """Return whether the bot wants ``entry``, or may learn from it what is missing."""
        name = entry.fields.get(b"type")
        return self._types is None or name is None or name.decode() in self._types or name.decode() == GAP_RECORD


async def places_of(client: Any, prefix: str) -> list[str]:
    """Return ``COUNT:SHARD`` of each shard."""
    return sorted(place.decode() for place in await client.smembers(shards_key(prefix)))


def shard_of(place: str) -> Shard:
    """Return the shard (id, count) of ``COUNT:SHARD``."""
    count, _, shard = place.partition(":")
    return int(shard), int(count)


def entries_of(answer: Sequence[Any]) -> dict[str, list[StreamEntry]]:
    """Return the entries in an answer to XREAD or XREADGROUP, by the key of the stream."""
    return {key.decode(): stream_entries(key.decode(), entries) for key, entries in answer}


def stream_entries(key: str, entries: Sequence[Any]) -> list[StreamEntry]:
    """Return the entries of one stream; one that the server has dropped meanwhile has no fields."""
    return [StreamEntry(key, at.decode(), fields or {}) for at, fields in entries if at is not None]


async def _prefixes(client: Any, wanted: str) -> list[str]:
    """Return the prefixes under which there are streams: ``wanted`` if there are any; "": all."""
    if wanted:
        return [wanted] if await places_of(client, wanted) else []
    ending = shards_key("")
    return sorted([key.decode().removesuffix(ending) async for key in client.scan_iter(shards_key(), 1_000, "set")])
