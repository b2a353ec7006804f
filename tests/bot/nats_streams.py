"""A stream of events on a real NATS server, written by the control plane's publisher, for the tests of readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from discorder.bot.subscription import Subscription
from discorder.errors import PublisherError
from discorder.publishers.nats.publisher import NatsPublisher
from discorder.publishers.protocol import Publisher
from discorder.wire import Event, ReceivedEvent
from tests.publishers.nats_server import NatsServer, connected

WITHIN = 60.0  # seconds
ROOM = 50_000_000  # bytes of a stream
SESSION = "0123456789abcdef"

Make = Callable[..., NatsPublisher]


def event(
    seq: int,
    kind: str = "MESSAGE_CREATE",
    *,
    shard: tuple[int, int] = (0, 2),
    session: str = SESSION,
    prev: int | None = -1,
    data: bytes = b"{}",
) -> Event:
    """One event; unless ``prev`` is given, all events of its session are of its type."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(kind, shard, seq, seq - 1 if prev == -1 else prev, session, moment, data)


def events(first: int, last: int, **how: Any) -> list[Event]:
    return [event(seq, **how) for seq in range(first, last + 1)]


def publisher(server: NatsServer, **settings: Any) -> NatsPublisher:
    return NatsPublisher(**{"servers": server.url, "prefix": "discord.7", "stream_bytes": ROOM, **settings})


async def publish(one: Publisher, batch: Sequence[Event]) -> None:
    """Publish until the stream has all."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                await one.publish(batch)
            except PublisherError:
                await asyncio.sleep(0.01)
            else:
                return


async def take(reading: Subscription[Any], count: int) -> list[Any]:
    """Return the next items."""
    async with asyncio.timeout(WITHIN):
        return [await anext(reading) for _ in range(count)]


async def seqs(reading: Subscription[ReceivedEvent], count: int) -> list[int | None]:
    return [item.seq for item in await take(reading, count)]


async def consumers(server: NatsServer) -> list[dict[str, Any]]:
    """Return what the server says of each consumer of the stream."""
    async with connected(server) as client:
        answer = await client.request("$JS.API.CONSUMER.LIST.discord_7", b"", timeout=20)
        found: list[dict[str, Any]] = json.loads(answer.data)["consumers"] or []
        return found


async def acknowledged(server: NatsServer, upto: int) -> None:
    """Wait until the stream is acknowledged up to here."""
    async with asyncio.timeout(WITHIN):
        while max((one["ack_floor"]["stream_seq"] for one in await consumers(server)), default=0) < upto:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
