"""What ``GET /gateway/bot`` says, strictly decoded (gateway-protocol.md §1). Must not: ask for it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from discorder.errors import RestError

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
WebsocketURL = Annotated[str, msgspec.Meta(pattern=r"^wss?://[^/?#\s]+[^\s]*$")]


class SessionStartLimit(msgspec.Struct, frozen=True):
    """The identify budget: ``remaining`` of ``total`` until ``reset_after_ms`` milliseconds from the answer."""

    total: Count
    remaining: Count
    reset_after_ms: Count = msgspec.field(name="reset_after")
    max_concurrency: Positive


class GatewayInfo(msgspec.Struct, frozen=True):
    """Where to dial, with how many shards, and what may be spent on it. ``url`` may end in a slash."""

    url: WebsocketURL
    shards: Positive
    session_start_limit: SessionStartLimit


def decode_gateway_info(document: object) -> GatewayInfo:
    """Raises RestError naming what is missing or wrong."""
    try:
        return msgspec.convert(document, GatewayInfo)
    except msgspec.ValidationError as error:
        msg = f"GET /gateway/bot: not the answer that Discord documents: {error}"
        raise RestError(msg) from error
