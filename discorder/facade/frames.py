"""Write the frames that a bot gets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from discorder.lenient_json import split_object
from discorder.wire import Op

ACK = b'{"t":null,"s":null,"op":11,"d":null}'
RECONNECT = b'{"t":null,"s":null,"op":7,"d":null}'
INVALID_SESSION = b'{"t":null,"s":null,"op":9,"d":false}'
RESUMED = b'{"_trace":["discorder"]}'  # an object: discord.py writes a key into it

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def hello(seconds: float) -> bytes:
    """Return op 10, with the seconds between two heartbeats."""
    return b'{"t":null,"s":null,"op":%d,"d":{"heartbeat_interval":%d,"_trace":["discorder"]}}' % (
        Op.HELLO,
        round(seconds * 1000),
    )


def dispatch(seq: int, kind: str, data: bytes) -> bytes:
    """Return an event; ``data`` is its ``d``, unchanged."""
    return b'%b%d,"op":0,"d":%b}' % (_head(kind), seq, data)


@lru_cache(maxsize=1024)
def _head(kind: str) -> bytes:
    return b'{"t":%b,"s":' % msgspec.json.encode(kind)


def ready(stored: bytes, *, session_id: str, url: str, shard: tuple[int, int], guild_ids: Sequence[int]) -> bytes:
    """Return ``d`` of READY: Discord's, with our session, address, shard, and all guilds as unavailable."""
    encode = msgspec.json.encode
    own = {
        "session_id": encode(session_id),
        "resume_gateway_url": encode(url),
        "shard": encode(shard),
        "guilds": b"[%b]" % b",".join(b'{"id":"%d","unavailable":true}' % guild for guild in guild_ids),
    }
    try:
        members = {encode(name): bytes(value) for name, value in _members(stored).items()}
    except msgspec.DecodeError:  # text that is valid JSON and that strict parsers refuse
        members = split_object(stored)
    members |= {encode(name): value for name, value in own.items()}
    return b"{%b}" % b",".join(b"%b:%b" % member for member in members.items())
