"""Opens the subscription to a NATS stream that `subscribe` was asked for."""

from __future__ import annotations

import re
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
        return _open_worker(request, address, request.group)
    cursor = None if request.cursor is None else StreamCursor(request.cursor, NatsPlace)
    saved = None if cursor is None else open_cursor(cursor)
    lane = Lane(request.types, saved)
    reader = NatsReader(address, request.types, lane, cursor, oldest=request.oldest, live_only=request.live_only)
    return StreamSubscription(address.shown, request.types, reader, decode=request.decode, cursor=cursor, lane=lane)


def _open_worker(request: BrokerRequest, address: NatsAddress, group: str) -> StreamSubscription[Any]:
    if not re.fullmatch(r"[\w-]{1,64}", group, re.ASCII):
        msg = f'group is {group!r}, and must be 1 to 64 characters of A-Z, a-z, 0-9, "_" and "-"'
        raise ValueError(msg)
    if request.cursor is not None:
        msg = "cursor: the server keeps the position of a group; leave out cursor"
        raise ValueError(msg)
    if request.live_only:
        msg = "live_only: a group gets every event; leave out live_only, or group"
        raise ValueError(msg)
    worker = NatsWorker(address, request.types, group, oldest=request.oldest)
    return StreamSubscription(address.shown, request.types, worker, decode=request.decode)
