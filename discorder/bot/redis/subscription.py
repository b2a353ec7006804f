"""Opens the subscription to the streams of Redis that `subscribe` was asked for."""

from __future__ import annotations

from typing import Any

from discorder.bot.brokers import BrokerRequest
from discorder.bot.progress import open_cursor
from discorder.bot.redis.address import RedisAddress
from discorder.bot.redis.reader import RedisPlace, RedisReader
from discorder.bot.redis.worker import RedisWorker
from discorder.bot.stream_subscription import Lane, StreamCursor, StreamSubscription


def open_redis(request: BrokerRequest) -> StreamSubscription[Any]:
    """Return the subscription. Raises ValueError for an address or arguments that do not fit, OSError and `CursorInUse`."""
    address = RedisAddress.parse(request.address)
    if request.group is not None:
        worker = RedisWorker(address, request.types, request.group, oldest=request.oldest)
        return StreamSubscription(address.shown, request.types, worker, decode=request.decode)
    cursor = None if request.cursor is None else StreamCursor(request.cursor, RedisPlace)
    saved = None if cursor is None else open_cursor(cursor)
    lane = Lane(request.types, saved)
    reader = RedisReader(address, request.types, lane, cursor, oldest=request.oldest, live_only=request.live_only)
    return StreamSubscription(address.shown, request.types, reader, decode=request.decode, cursor=cursor, lane=lane)
