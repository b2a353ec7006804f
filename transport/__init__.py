"""Connect to a gateway: the `Transport` interface, its live implementation and decompression.

`mock`, `recorded` and `recording` are not imported here: only a recording or a replay needs them. What needs aiohttp is
imported on first use, because it takes longer to load than everything else of a short command.

`protocol` is the interface. `live` dials with `upgrade` (with `dns`, `proxies` and the checks of `address`), then a `websocket`
reads `frames` and `inflate` decompresses. `faulty` injects the faults of `fault_grammar`. `recording` writes a session, without
secrets (`redact`, `json_strings`); `recorded` reads it, and `mock` plays it, one `script` for each connection.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from discorder.transport.address import is_loopback, parse_address
from discorder.transport.inflate import (
    Compression,
    choose_compression,
    gateway_url,
    inflater,
)
from discorder.transport.protocol import Transport

if TYPE_CHECKING:
    from discorder.transport.dns import DaemonResolver
    from discorder.transport.live import AiohttpTransport

_HOMES = {"AiohttpTransport": "live", "DaemonResolver": "dns"}

__all__ = [
    "AiohttpTransport",
    "Compression",
    "DaemonResolver",
    "Transport",
    "choose_compression",
    "gateway_url",
    "inflater",
    "is_loopback",
    "parse_address",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
