"""Decode the answer of ``GET /gateway/bot`` and check every value (docs/protocol.md#connection)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from discorder.errors import RestError
from discorder.transport.address import parse_address

# no bot has as many: the largest serve some ten million guilds, of which one shard takes 2,500 at most
MAX_SHARDS = 100_000
MAX_IDENTIFIES = 10_000_000  # a day: 100 for each of those shards
MAX_CONCURRENCY = 10_000  # identify buckets; Discord's largest have 64
MAX_RESET_MS = 7 * 86_400_000  # the window is a day (docs/protocol.md#identify); a week leaves room for other servers

Identifies = Annotated[int, msgspec.Meta(ge=0, le=MAX_IDENTIFIES)]
ShardCount = Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARDS)]


class SessionStartLimit(msgspec.Struct, frozen=True):
    """The identify budget: ``remaining`` of ``total`` until ``reset_after_ms`` milliseconds from the answer."""

    total: Identifies
    remaining: Identifies
    reset_after_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_RESET_MS)] = msgspec.field(name="reset_after")
    max_concurrency: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONCURRENCY)]


class GatewayInfo(msgspec.Struct, frozen=True):
    """The gateway's URL, the recommended number of shards and the identify budget. ``url`` may end in a slash."""

    url: str
    shards: ShardCount
    session_start_limit: SessionStartLimit


def decode_gateway_info(document: object) -> GatewayInfo:
    """Convert the decoded JSON. Raises RestError naming the missing or wrong value."""
    try:
        info = msgspec.convert(document, GatewayInfo)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        msg = f"GET /gateway/bot: not the answer that Discord documents: {error}"
        raise RestError(msg) from error
    try:
        parse_address(info.url)
    except ValueError as error:
        msg = f"GET /gateway/bot: not the answer that Discord documents: url: {error}"
        raise RestError(msg) from error
    return info
