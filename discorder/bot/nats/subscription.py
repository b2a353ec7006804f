"""Opens the subscription to a NATS stream that `subscribe` was asked for."""

from __future__ import annotations

from typing import Any

from discorder.bot.brokers import BrokerRequest
from discorder.bot.nats.address import NatsAddress
from discorder.bot.nats.reader import NatsPlace, NatsReader
from discorder.bot.nats.worker import NatsWorker
from discorder.bot.progress import open_cursor
from discorder.bot.stream_subscription import Lane, StreamCursor, StreamSubscription


def open_nats(request: BrokerRequest) -> StreamSubscription[Any]:
    """Return the subscription. Raises ValueError for an address or arguments that do not fit, OSError and `CursorInUse`."""
    address = NatsAddress.parse(request.address)
    if request.group is not None:
        worker = NatsWorker(address, request.types, request.group, oldest=request.oldest)
        return StreamSubscription(address.shown, request.types, worker, decode=request.decode)
    cursor = None if request.cursor is None else StreamCursor(request.cursor, NatsPlace)
    saved = None if cursor is None else open_cursor(cursor)
    lane = Lane(request.types, saved)
    reader = NatsReader(address, request.types, lane, cursor, oldest=request.oldest, live_only=request.live_only)
    return StreamSubscription(address.shown, request.types, reader, decode=request.decode, cursor=cursor, lane=lane)
