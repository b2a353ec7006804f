"""What is different where a group shares the events: no order, and a position on the server that may be overtaken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from discorder.bot.gap_detector import GapDetector
from discorder.bot.positions import GAP_RECORD, Gap, GapData, GapKind, Item
from discorder.bot.redis.merge import Id, parse_id
from discorder.bot.redis.source import BEGINNING, shard_of
from discorder.bot.stream_subscription import NOT_STORED
from discorder.redis_access import events_key, session_key
from discorder.wire import Event, ReceivedEvent


class PassingDetector(GapDetector):
    """Passes every event: another worker has those between. A gap is what was recorded as such."""

    def accept(self, event: ReceivedEvent) -> bool:
        return event.seq is not None

    def receive(self, event: ReceivedEvent) -> Iterator[Item]:
        if event.type != GAP_RECORD:
            yield event
            return
        gap = event.decode(GapData)
        yield Gap(
            kind=GapKind(gap.kind),
            shard=event.shard,
            session=event.session,
            from_seq=gap.from_seq,
            to_seq=gap.to_seq,
            types=None,
            cause=gap.cause,
        )


async def unread_loss(client: Any, prefix: str, place: str, group: str) -> Event | None:
    """Return a gap record if the stream of a shard's events has dropped what follows the last one that the group has read."""
    key = events_key(prefix, place)
    last = await _last_read(client, key, group)
    if last == BEGINNING or await client.xrange(key, last, last):
        return None
    info = await client.xinfo_stream(key)
    first = info["first-entry"]
    start, seq = parse_id(last)
    next_start, next_seq = parse_id((info["last-generated-id"] if first is None else first[0]).decode())
    if (next_start, next_seq) <= (start, seq + 1):
        return None
    return await gap_in(client, prefix, place, (start, seq + 1), next_seq - 1 if next_start == start else None)


async def gap_in(client: Any, prefix: str, place: str, first: Id, last_seq: int | None) -> Event:
    """Return a gap record of the events of a shard from the id ``first`` on. Only the session of today has a name."""
    start, seq = first
    session, current = await client.hmget(session_key(prefix, place), "session", "start")
    lost = GapData(GapKind.SUBSCRIBER, seq, last_seq, NOT_STORED)
    label = session.decode() if current is not None and int(current) == start else None
    return Event(GAP_RECORD, shard_of(place), None, None, label, datetime.now(UTC), msgspec.json.encode(lost))


async def _last_read(client: Any, key: str, group: str) -> str:
    """Return the id up to which the group has read a stream."""
    found = (one["last-delivered-id"] for one in await client.xinfo_groups(key) if one["name"] == group.encode())
    return next(found, BEGINNING.encode()).decode()
