"""The events that the benchmarks send: a mix of sample payloads, encoded as Discord encodes them."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Iterator
from importlib import resources
from typing import Any, Protocol

# Shares by name: mostly messages, as on a busy bot. The mean is about 900 bytes of JSON.
MIX = {
    "MESSAGE_CREATE": 30,
    "MESSAGE_CREATE.webhook": 6,
    "MESSAGE_CREATE.dm": 4,
    "MESSAGE_UPDATE": 6,
    "MESSAGE_DELETE": 6,
    "MESSAGE_REACTION_ADD.dm": 10,
    "MESSAGE_REACTION_ADD": 5,
    "PRESENCE_UPDATE": 12,
    "PRESENCE_UPDATE.offline": 6,
    "TYPING_START.dm": 5,
    "TYPING_START": 3,
    "GUILD_MEMBER_UPDATE": 4,
    "VOICE_STATE_UPDATE": 3,
}
VARIANTS = 400  # different payloads in a round; a compressor must not learn them by heart
SMALL, MEDIUM = 126, 65_536  # lengths from which a websocket frame needs two and eight more bytes


class Encoder(Protocol):
    """Compresses the messages of one connection, one after the other."""

    def encode(self, message: bytes) -> bytes:
        """Return the payload of the websocket message."""
        ...


class Plain:
    """No compression: text frames."""

    opcode = 1

    def encode(self, message: bytes) -> bytes:
        """Return ``message``."""
        return message


class Zlib:
    """zlib-stream: one context per connection, a sync flush per message."""

    opcode = 2

    def __init__(self) -> None:
        self._context = zlib.compressobj(level=6)

    def encode(self, message: bytes) -> bytes:
        """Compress ``message`` and flush."""
        return self._context.compress(message) + self._context.flush(zlib.Z_SYNC_FLUSH)


class Zstd:
    """zstd-stream: one frame per connection, a block flush per message."""

    opcode = 2

    def __init__(self) -> None:
        from backports import zstd  # noqa: PLC0415  # only where this compression is measured

        # Window log 18 is what Discord's own streams use.
        self._context = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 18})

    def encode(self, message: bytes) -> bytes:
        """Compress ``message`` and flush."""
        return bytes(self._context.compress(message, self._context.FLUSH_BLOCK))


ENCODERS: dict[str, type[Plain | Zlib | Zstd]] = {"none": Plain, "zlib-stream": Zlib, "zstd-stream": Zstd}


def websocket_frame(payload: bytes, opcode: int) -> bytes:
    """Return one unmasked, final frame (RFC 6455 §5.2)."""
    head, size = 0x80 | opcode, len(payload)
    if size < SMALL:
        return bytes((head, size)) + payload
    if size < MEDIUM:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


def dispatches(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, ``d`` as JSON) for ever, ids and contents drawn from ``seed``."""
    rng = random.Random(seed)
    samples = {name: _sample(name) for name in MIX}
    drawn = rng.choices(list(MIX), weights=list(MIX.values()), k=VARIANTS)
    variants = [
        (name.partition(".")[0], json.dumps(_varied(samples[name], rng), separators=(",", ":"))) for name in drawn
    ]
    encoded = [(name, data.encode()) for name, data in variants]
    while True:
        yield from encoded


def dispatch(name: str, seq: int, data: bytes) -> bytes:
    """Return a dispatch with its keys in Discord's order."""
    return b'{"t":"%b","s":%d,"op":0,"d":%b}' % (name.encode(), seq, data)


def _sample(name: str) -> Any:
    text = resources.files("discorder.simulator").joinpath(f"payloads/{name}.json").read_text()
    document = json.loads(text)
    return document.get("d", document)


def _varied(value: Any, rng: random.Random) -> Any:
    """A copy in which every id and every text is another one of the same length."""
    if isinstance(value, dict):
        return {key: _varied(item, rng) for key, item in value.items()}
    if isinstance(value, list):
        return [_varied(item, rng) for item in value]
    if isinstance(value, str) and len(value) >= 17 and value.isdecimal():  # digits of a snowflake
        return str(rng.randrange(10 ** (len(value) - 1), 10 ** len(value)))
    if isinstance(value, str) and " " in value:
        return " ".join("".join(rng.choices("etaoinshrdlu", k=len(word))) for word in value.split(" "))
    return value
