"""Decompress the messages of a connection (docs/protocol.md#compression), each up to `MAX_MESSAGE_BYTES`.

Only the server compresses. Each connection has its own decompressor.
"""

from __future__ import annotations

import importlib
import zlib
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from yarl import URL

from discorder.errors import ConfigError, ConnectFailed, ProtocolBreach
from discorder.transport.address import parse_address
from discorder.transport.protocol import MAX_MESSAGE_BYTES
from discorder.wire import API_VERSION

ZLIB_SUFFIX = b"\x00\x00\xff\xff"  # Z_SYNC_FLUSH ends each message with it (docs/protocol.md#zlib-stream)
DICTIONARY = 0x20  # flag of a stream with a preset dictionary, which no gateway uses (RFC 1950 §2.2)
ZLIB_MAGIC = 0x78  # first byte of a zlib stream (RFC 1950); no JSON text starts with it ("x")
# First byte of a gateway's JSON. No message of a stream begins with it: its lowest bit would end the zlib stream
# (RFC 1951 §3.2.3: BFINAL), or the zstd frame with a run of one byte (RFC 8878 §3.1.1.2).
PLAIN = ord("{")
ZSTD_WINDOW_LOG = 23  # 8 MiB: RFC 8878 §3.1.1.1.2 requires it of every decoder; Discord uses 18


class Compression(StrEnum):
    """Name the modes of compression (docs/protocol.md#compression). The values are those of the key ``gateway.compress``."""

    ZLIB_STREAM = "zlib-stream"
    ZSTD_STREAM = "zstd-stream"
    PAYLOAD = "payload"
    NONE = "none"


def available_modes() -> tuple[Compression, ...]:
    """Return the modes that this installation supports; zstd-stream needs Python 3.14 or the extra ``zstd``."""
    return tuple(mode for mode in Compression if mode is not Compression.ZSTD_STREAM or _zstd_module() is not None)


def library_of(mode: str) -> str:
    """Return the name of the library that decompresses ``mode``, "" without compression."""
    match Compression(mode):
        case Compression.NONE:
            return ""
        case Compression.ZSTD_STREAM:
            return getattr(_zstd_module(), "__name__", "")
        case _:
            return str(_zlib_module().__name__.partition(".")[0])


def choose_compression(setting: str) -> Compression:
    """Return the mode for a setting of ``gateway.compress``; ``"auto"`` is the best one installed.

    Raises `ConfigError` for an unknown mode, and for zstd-stream without its library.
    """
    if setting == "auto":
        available = available_modes()
        return Compression.ZSTD_STREAM if Compression.ZSTD_STREAM in available else Compression.ZLIB_STREAM
    try:
        chosen = Compression(setting)
    except ValueError:
        allowed = ", ".join(f'"{mode.value}"' for mode in Compression)
        msg = f'gateway.compress: {setting!r} is not a mode; allowed: "auto", {allowed}'
        raise ConfigError(msg) from None
    if chosen not in available_modes():
        msg = 'gateway.compress: "zstd-stream" needs the extra: pip install "discorder[zstd]"'
        raise ConfigError(msg)
    return chosen


def gateway_query(mode: str) -> dict[str, str]:
    """Return the query parameters of the gateway's URL (docs/protocol.md#connection). IDENTIFY requests payload compression."""
    query = {"v": str(API_VERSION), "encoding": "json"}
    if Compression(mode) in (Compression.ZLIB_STREAM, Compression.ZSTD_STREAM):
        query["compress"] = str(mode)
    return query


def gateway_url(host_url: str, mode: str) -> str:
    """Return ``host_url`` (with or without path and query) with the parameters of `gateway_query`, which replace its own.

    Raises `ConnectFailed` for an invalid URL, since READY may have named it: the caller tries another host.
    """
    try:
        url = URL(parse_address(host_url).url)
    except ValueError as error:
        msg = f"the gateway's URL cannot be dialled: it is {error}"
        raise ConnectFailed(msg) from None
    kept = {key: value for key, value in url.query.items() if key != "compress"}
    return str(url.with_query(kept | gateway_query(mode)))


class Inflater(Protocol):
    """Decompress the messages of one connection."""

    def feed(self, frame: bytes) -> bytes | None:
        """Return the gateway message that ``frame`` completes, None if it completes none. Raises `ProtocolBreach`."""
        ...


def inflater(mode: str, *, limit: int = MAX_MESSAGE_BYTES) -> Inflater | None:
    """Return a decompressor for one connection, None without compression. ``limit``: bytes of a message."""
    match Compression(mode):
        case Compression.ZLIB_STREAM:
            return _ZlibStream(limit)
        case Compression.ZSTD_STREAM:
            return _ZstdStream(limit)
        case Compression.PAYLOAD:
            return _Payload(limit)
        case Compression.NONE:
            return None


class _ZlibStream:
    """Decompress with one zlib context per connection. A message ends with the flush suffix (docs/protocol.md#zlib-stream).

    Also accepts plain JSON from servers that ignore the query parameter. Checks the header here and inflates the rest as raw
    deflate: an endless stream has no checksum to compare, and computing it would cost a twentieth of the time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._library = _zlib_module()
        self._context = self._library.decompressobj(wbits=-zlib.MAX_WBITS)
        self._has_header = True  # the next bytes are the header of the stream
        self._pending = bytearray()

    def feed(self, frame: bytes) -> bytes | None:
        if not self._pending and frame and frame[0] == PLAIN:
            return frame
        data: bytes | bytearray = frame
        if self._pending or not frame.endswith(ZLIB_SUFFIX):
            if len(self._pending) + len(frame) > self._limit:
                raise _too_large(Compression.ZLIB_STREAM, "compressed data without a flush", self._limit)
            self._pending += frame
            if not self._pending.endswith(ZLIB_SUFFIX):  # checked in the buffer: two frames may share the suffix
                return None
            data, self._pending = self._pending, bytearray()
        if self._has_header:
            data, self._has_header = _without_header(data), False
        try:
            message: bytes = self._context.decompress(data, self._limit + 1)
        except self._library.error as error:
            raise _corrupt(Compression.ZLIB_STREAM, error) from error
        if len(message) > self._limit:
            raise _too_large(Compression.ZLIB_STREAM, "a message", self._limit)
        if self._context.eof:
            msg = "zlib-stream: the stream ended, which a gateway's never does"
            raise ProtocolBreach(msg)
        return message


class _Payload:
    """Decompress frames that are complete: plain JSON, or one whole zlib stream (docs/protocol.md#payload-compression)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._library = _zlib_module()

    def feed(self, frame: bytes) -> bytes | None:
        if not frame or frame[0] != ZLIB_MAGIC:
            return frame
        context = self._library.decompressobj()
        try:
            message: bytes = context.decompress(frame, self._limit + 1)
        except self._library.error as error:
            raise _corrupt(Compression.PAYLOAD, error) from error
        if len(message) > self._limit:
            raise _too_large(Compression.PAYLOAD, "a message", self._limit)
        if not context.eof:
            msg = f"payload compression: a frame of {len(frame)} bytes is truncated"
            raise ProtocolBreach(msg)
        return message


class _ZstdStream:
    """Decompress one endless zstd frame per connection. A websocket message is a gateway message (docs/protocol.md#zstd-stream).

    Also accepts one frame per message, and plain JSON, from servers other than Discord's.
    """

    def __init__(self, limit: int) -> None:
        zstd = _zstd_module()
        if zstd is None:
            msg = 'gateway.compress: "zstd-stream" needs the extra: pip install "discorder[zstd]"'
            raise ConfigError(msg)
        self._limit = limit
        self._error: type[Exception] = zstd.ZstdError
        window = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._new_context = partial(zstd.ZstdDecompressor, options=window)
        self._context = self._new_context()

    def feed(self, frame: bytes) -> bytes | None:
        if frame and frame[0] == PLAIN:
            return frame
        try:
            message = self._drain(frame)
        except self._error as error:
            raise _corrupt(Compression.ZSTD_STREAM, error) from error
        if self._context.eof:
            if self._context.unused_data:
                msg = "zstd-stream: the frame ended in the middle of a message"
                raise ProtocolBreach(msg)
            self._context = self._new_context()
        return message

    def _drain(self, frame: bytes) -> bytes:
        """Decompress all of ``frame``: the first call may leave output in the decoder."""
        message: bytes = self._context.decompress(frame, self._limit + 1)
        while len(message) <= self._limit and not (self._context.needs_input or self._context.eof):
            more = self._context.decompress(b"", self._limit + 1 - len(message))
            if not more:
                break
            message += more
        if len(message) > self._limit:
            raise _too_large(Compression.ZSTD_STREAM, "a message", self._limit)
        return message


def _without_header(data: bytes | bytearray) -> bytes | bytearray:
    """Return a zlib stream without the two bytes of its header (RFC 1950 §2.2)."""
    method, flags = data[0], data[1]
    if method & 0x0F != zlib.DEFLATED or (method << 8 | flags) % 31 or flags & DICTIONARY:
        raise _corrupt(Compression.ZLIB_STREAM, "it does not begin as a zlib stream does")
    return data[2:]


def _corrupt(mode: Compression, what: object) -> ProtocolBreach:
    return ProtocolBreach(f"{mode.value} compression: corrupt data: {what}")


def _too_large(mode: Compression, what: str, limit: int) -> ProtocolBreach:
    return ProtocolBreach(f"{mode.value} compression: {what} is larger than {limit} bytes")


def _zlib_module() -> Any:
    """Return zlib-ng (the extra ``speed``), which inflates a fifth faster, or zlib of the standard library (same interface)."""
    return _first_installed("zlib_ng.zlib_ng") or zlib


def _zstd_module() -> Any:
    """Return ``compression.zstd`` of Python 3.14 or its backport, which has the same interface; None without either."""
    return _first_installed("compression.zstd", "backports.zstd")


def _first_installed(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
