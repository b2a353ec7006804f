"""Decompression of what a gateway sends, as a wrapper around any transport (gateway-protocol.md §11).

Compression is server to client only. A decompressor lives and dies with its connection, and no message is inflated past
`MAX_MESSAGE_BYTES`. This file must not parse a message; it only finds where each ends.
"""

from __future__ import annotations

import importlib
import zlib
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from yarl import URL

from discorder.errors import ConfigError, ConnectFailed, ProtocolBreach
from discorder.transport.protocol import Transport
from discorder.wire import API_VERSION

MAX_MESSAGE_BYTES = (
    64 * 1024 * 1024
)  # the largest real ones are GUILD_CREATEs of some megabytes; anything above is a bomb
ZLIB_SUFFIX = b"\x00\x00\xff\xff"  # Z_SYNC_FLUSH ends each message with it (§11.3)
ZLIB_MAGIC = 0x78  # first byte of a zlib stream (RFC 1950); no JSON text starts with it ("x")
ZSTD_WINDOW_LOG = 23  # 8 MiB: what RFC 8878 §3.1.1.1.2 asks of every decoder; Discord's own is 18


class Compression(StrEnum):
    """How the server may compress (§11.1). The values are those of the key ``gateway.compress``."""

    ZLIB_STREAM = "zlib-stream"
    ZSTD_STREAM = "zstd-stream"
    PAYLOAD = "payload"
    NONE = "none"


def available_modes() -> tuple[Compression, ...]:
    """The modes that work in this installation; zstd-stream needs Python 3.14 or the extra ``zstd``."""
    return tuple(mode for mode in Compression if mode is not Compression.ZSTD_STREAM or _zstd_module() is not None)


def choose_compression(setting: str) -> Compression:
    """The mode for a setting of ``gateway.compress``; ``"auto"`` is the best one installed.

    Raises `ConfigError` for a word that is no mode, and for zstd-stream without its library.
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
    """The query parameters with which the gateway is dialled (§1). Payload compression is asked for by IDENTIFY instead."""
    query = {"v": str(API_VERSION), "encoding": "json"}
    if Compression(mode) in (Compression.ZLIB_STREAM, Compression.ZSTD_STREAM):
        query["compress"] = str(mode)
    return query


def gateway_url(host_url: str, mode: str) -> str:
    """``host_url`` (with or without a path, a slash, a query) with `gateway_query` put in; ours win over what is there.

    Raises `ConnectFailed` for what is no websocket URL, since it may come out of READY: one host to give up, not a bug.
    """
    try:
        url = URL(host_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("ws", "wss") or not url.host:
        msg = "the gateway handed out a URL that is not ws:// or wss://"
        raise ConnectFailed(msg)
    kept = {key: value for key, value in url.query.items() if key != "compress"}
    return str(url.with_query(kept | gateway_query(mode)))


def decompressing(inner: Transport, mode: str) -> Transport:
    """``inner``, wrapped if ``mode`` needs it."""
    return inner if Compression(mode) is Compression.NONE else InflatingTransport(inner, mode)


class InflatingTransport:
    """A transport whose messages are the inflated ones of ``inner``.

    `receive` raises `ProtocolBreach` for compressed data that is corrupt or too large, after the whole messages before it; the
    socket stays open, for the caller to close.
    """

    def __init__(self, inner: Transport, mode: str, *, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._inner = inner
        self._inflater = _inflater(Compression(mode), limit)
        self._breach: ProtocolBreach | None = None

    @property
    def closed(self) -> bool:
        return self._inner.closed

    async def connect(self, url: str) -> None:
        await self._inner.connect(url)

    async def receive(self) -> list[bytes]:
        messages: list[bytes] = []
        while not messages:
            if self._breach is not None:
                raise self._breach
            for frame in await self._inner.receive():
                try:
                    message = self._inflater.feed(frame)
                except ProtocolBreach as breach:
                    self._breach = breach
                    break
                if message:
                    messages.append(message)
        return messages

    async def send(self, data: bytes) -> None:
        await self._inner.send(data)

    async def close(self, code: int) -> None:
        await self._inner.close(code)

    def abort(self) -> None:
        self._inner.abort()


class _Inflater(Protocol):
    """One connection's decompressor."""

    def feed(self, frame: bytes) -> bytes | None:
        """The gateway message that ``frame`` completes, if it does. Raises `ProtocolBreach`."""
        ...


def _inflater(mode: Compression, limit: int) -> _Inflater:
    match mode:
        case Compression.ZLIB_STREAM:
            return _ZlibStream(limit)
        case Compression.ZSTD_STREAM:
            return _ZstdStream(limit)
        case Compression.PAYLOAD:
            return _Payload(limit)
        case Compression.NONE:
            msg = "mode none has nothing to inflate; use decompressing()"
            raise ValueError(msg)


class _ZlibStream:
    """One zlib context per connection; a message ends where a frame ends with the flush suffix (§11.3)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._context = zlib.decompressobj()
        self._pending = bytearray()

    def feed(self, frame: bytes) -> bytes | None:
        data: bytes | bytearray = frame
        if self._pending or not frame.endswith(ZLIB_SUFFIX):
            if len(self._pending) + len(frame) > self._limit:
                raise _too_large(Compression.ZLIB_STREAM, "compressed data without a flush", self._limit)
            self._pending += frame
            if not self._pending.endswith(ZLIB_SUFFIX):  # of the buffer: the suffix itself may be cut in two
                return None
            data, self._pending = self._pending, bytearray()
        message = _inflate(self._context, data, self._limit, Compression.ZLIB_STREAM)
        if self._context.eof:
            msg = "zlib-stream: the stream ended, which a gateway's never does (gateway-protocol.md §11.3)"
            raise ProtocolBreach(msg)
        return message


class _Payload:
    """Frames by themselves: plain JSON, or one whole zlib stream (§11.2)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def feed(self, frame: bytes) -> bytes | None:
        if not frame or frame[0] != ZLIB_MAGIC:
            return frame
        context = zlib.decompressobj()
        message = _inflate(context, frame, self._limit, Compression.PAYLOAD)
        if not context.eof:
            msg = f"payload compression: a frame of {len(frame)} bytes is truncated"
            raise ProtocolBreach(msg)
        return message


class _ZstdStream:
    """One endless zstd frame per connection; one websocket message is one gateway message (§11.4).

    Other servers than Discord's end the frame with each message; the format is a sequence of frames, so that is understood too.
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
        try:
            message = self._drain(frame)
        except self._error as error:
            msg = f"zstd-stream: corrupt data: {error}"
            raise ProtocolBreach(msg) from error
        if self._context.eof:
            if self._context.unused_data:
                msg = "zstd-stream: the frame ended in the middle of a message (gateway-protocol.md §11.4)"
                raise ProtocolBreach(msg)
            self._context = self._new_context()
        return message

    def _drain(self, frame: bytes) -> bytes:
        """All that ``frame`` inflates to: the decoder may hold back output for which the first call had no room."""
        message: bytes = self._context.decompress(frame, self._limit + 1)
        while len(message) <= self._limit and not (self._context.needs_input or self._context.eof):
            more = self._context.decompress(b"", self._limit + 1 - len(message))
            if not more:
                break
            message += more
        if len(message) > self._limit:
            raise _too_large(Compression.ZSTD_STREAM, "a message", self._limit)
        return message


def _inflate(context: Any, data: bytes | bytearray, limit: int, mode: Compression) -> bytes:
    """``data`` inflated by a ``zlib.decompressobj``, never past ``limit`` + 1 bytes."""
    try:
        message: bytes = context.decompress(data, limit + 1)
    except zlib.error as error:
        msg = f"{mode.value} compression: corrupt data: {error}"
        raise ProtocolBreach(msg) from error
    if len(message) > limit:
        raise _too_large(mode, "a message", limit)
    return message


def _too_large(mode: Compression, what: str, limit: int) -> ProtocolBreach:
    return ProtocolBreach(f"{mode.value} compression: {what} is larger than {limit} bytes")


def _zstd_module() -> Any:
    """``compression.zstd`` of Python 3.14, or its backport, which has the same interface; None without either."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
