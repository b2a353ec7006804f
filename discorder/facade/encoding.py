"""Encode gateway messages for a bot: as text, or in stored blocks, which are valid compressed streams at no cost."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

ZLIB_HEADER = b"\x78\x01"  # a window of 32 KiB, the lowest level (RFC 1950 §2.2)
ZLIB_FLUSH = b"\x00\x00\x00\xff\xff"  # an empty stored block; its last four bytes end each message
ZLIB_MOST = 65_535  # bytes of one stored block (RFC 1951 §3.2.4)
ZSTD_HEADER = b"\x28\xb5\x2f\xfd\x00\x38"  # magic number, no options, a window of 128 KiB (RFC 8878 §3.1.1)
ZSTD_MOST = 131_072  # bytes of one raw block: the window (RFC 8878 §3.1.1.2.4)

Encode = Callable[[bytes], tuple[bytes, bool]]
"""Returns the payload of one websocket frame, and whether it is binary."""


def as_text(message: bytes) -> tuple[bytes, bool]:
    """Return ``message`` without compression."""
    return message, False


class StoredZlib:
    """One zlib stream for a connection (docs/protocol.md#zlib-stream)."""

    def __init__(self) -> None:
        self._header = ZLIB_HEADER

    def __call__(self, message: bytes) -> tuple[bytes, bool]:
        """Return ``message`` as stored blocks."""
        parts, self._header = [self._header], b""
        for block in _cut(message, ZLIB_MOST):
            parts += (struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block)
        return b"".join((*parts, ZLIB_FLUSH)), True


class StoredZstd:
    """One zstd frame without an end for a connection (docs/protocol.md#zstd-stream)."""

    def __init__(self) -> None:
        self._header = ZSTD_HEADER

    def __call__(self, message: bytes) -> tuple[bytes, bool]:
        """Return ``message`` as raw blocks."""
        parts, self._header = [self._header], b""
        for block in _cut(message, ZSTD_MOST):
            parts += ((len(block) << 3).to_bytes(3, "little"), block)
        return b"".join(parts), True


def choose_encoding(compress: str | None) -> Encode | None:
    """Return the encoding for the query parameter ``compress``; None for an unknown one."""
    match compress:
        case None | "":
            return as_text
        case "zlib-stream":
            return StoredZlib()
        case "zstd-stream":
            return StoredZstd()
        case _:
            return None


def _cut(message: bytes, most: int) -> Iterator[bytes]:
    return (message[at : at + most] for at in range(0, len(message), most))
