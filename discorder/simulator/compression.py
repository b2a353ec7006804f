"""Turn gateway messages into websocket frames: plain or compressed (docs/protocol.md#compression).

One encoder serves one connection, from its first byte on.
"""

from __future__ import annotations

import importlib
import zlib
from types import ModuleType
from typing import NamedTuple, Protocol

ZLIB_SUFFIX = b"\x00\x00\xff\xff"  # what Z_SYNC_FLUSH ends with; shows a client that the message is complete
PAYLOAD_COMPRESSION_FROM = 1024  # bytes; smaller frames stay text (docs/protocol.md#payload-compression)


class WireFrame(NamedTuple):
    """One websocket frame: BINARY or TEXT."""

    data: bytes
    binary: bool


class Encoder(Protocol):
    """Turns one gateway message into the frames that carry it."""

    def encode(self, payload: bytes) -> list[WireFrame]: ...


class PlainText:
    """No compression: TEXT."""

    def encode(self, payload: bytes) -> list[WireFrame]:
        return [WireFrame(payload, binary=False)]


class PayloadCompression:
    """Each larger message is a zlib stream of its own (docs/protocol.md#payload-compression)."""

    def encode(self, payload: bytes) -> list[WireFrame]:
        if len(payload) < PAYLOAD_COMPRESSION_FROM:
            return [WireFrame(payload, binary=False)]
        return [WireFrame(zlib.compress(payload), binary=True)]


class ZlibStream:
    """One zlib context for the connection, flushed after each message, in ``split`` frames (docs/protocol.md#zlib-stream)."""

    def __init__(self, split: int = 1) -> None:
        self._compressor = zlib.compressobj()
        self._split = split

    def encode(self, payload: bytes) -> list[WireFrame]:
        data = self._compressor.compress(payload) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return [WireFrame(part, binary=True) for part in cut(data, self._split)]


class ZstdStream:
    """One endless zstd frame, flushed after each message; one websocket frame each (docs/protocol.md#zstd-stream)."""

    def __init__(self, zstd: ModuleType) -> None:
        self._compressor = zstd.ZstdCompressor()
        self._flush_block = zstd.ZstdCompressor.FLUSH_BLOCK

    def encode(self, payload: bytes) -> list[WireFrame]:
        data: bytes = self._compressor.compress(payload) + self._compressor.flush(self._flush_block)
        return [WireFrame(data, binary=True)]


def cut(data: bytes, parts: int) -> list[bytes]:
    """Cut ``data`` into at most ``parts`` pieces, none of which but the last ends like a whole message."""
    pieces = []
    start = 0
    for left in range(parts, 1, -1):
        end = start + max(1, (len(data) - start) // left)
        while end < len(data) and data[:end].endswith(ZLIB_SUFFIX):
            end += 1
        if end >= len(data):
            break
        pieces.append(data[start:end])
        start = end
    pieces.append(data[start:])
    return pieces


def load_zstd() -> ModuleType | None:
    """Return the standard library's zstd (Python 3.14) or its backport, None without either."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def choose_encoder(compress: str | None, zlib_split: int) -> Encoder | None:
    """Return the encoder for the query parameter ``compress``, None for one that is unknown or not installed."""
    if compress in {None, ""}:
        return PlainText()
    if compress == "zlib-stream":
        return ZlibStream(zlib_split)
    if compress == "zstd-stream" and (zstd := load_zstd()) is not None:
        return ZstdStream(zstd)
    return None
