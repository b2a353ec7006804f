"""Encode and decode the records of a journal: one for each event, framed by its length and a checksum.

A segment is a header and then records. All numbers are little-endian.

header: magic (20 bytes), number of the first record (8), CRC32 of both (4)
record: length of what follows the frame (4), its CRC32 (4); then seq (8, -1 = none), seconds since the epoch (8), flags (1),
shard id and count (4 each), length of the label (1) and of the type (2), label, type, data
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from discorder.errors import DiscorderError
from discorder.wire import Event

MAGIC = b"discorder journal 1\n"
MAGIC_OF_ANY = b"discorder journal "
COMPRESSED = 1  # flag: data is compressed with zlib
NO_SEQ = -1
COMPRESSED_TYPE = "GUILD_CREATE"  # the only large events that come in numbers

_HEADER = Struct("<Q")
_CHECKSUM = Struct("<I")
_FRAME = Struct("<II")
_FIXED = Struct("<qdB")
_NAMES = Struct("<IIBH")
FRAME_BYTES = _FRAME.size
HEADER_BYTES = len(MAGIC) + _HEADER.size + _CHECKSUM.size
_SHORTEST = _FIXED.size + _NAMES.size
_LONGEST_LABEL = 255
_LONGEST_TYPE = 65_535


class Damaged(DiscorderError):
    """A file of the journal does not hold what was written to it."""


class Foreign(DiscorderError):
    """A file in the place of a segment was not written by this version of the journal."""


class Record(NamedTuple):
    """One record with its place in the segment. ``start`` and ``end``: bytes; ``data``: where the data begins."""

    shard: tuple[int, int]
    session: str
    seq: int | None
    type: str
    received_at: float
    is_compressed: bool
    start: int
    data: int
    end: int

    def read(self, segment: bytes, base: int = 0) -> bytes:
        """Return the data of the event out of the bytes of its segment, which begin at ``base``."""
        data = segment[self.data - base : self.end - base]
        return zlib.decompress(data) if self.is_compressed else data


def encode_header(first: int) -> bytes:
    """Return the header of a segment whose first record has the number ``first``."""
    head = MAGIC + _HEADER.pack(first)
    return head + _CHECKSUM.pack(zlib.crc32(head))


def decode_header(head: bytes) -> int | None:
    """Return the number of the first record; None for a header that a crash has torn. Raises `Foreign`."""
    if not head.startswith(MAGIC):
        if MAGIC.startswith(head) or not head.strip(b"\0"):
            return None
        newer = head.startswith(MAGIC_OF_ANY)
        reason = "was written by another version of Discorder" if newer else "is not a segment of a journal"
        raise Foreign(reason)
    if len(head) < HEADER_BYTES or zlib.crc32(head[: -_CHECKSUM.size]) != _CHECKSUM.unpack(head[-_CHECKSUM.size :])[0]:
        return None
    number: int = _HEADER.unpack_from(head, len(MAGIC))[0]
    return number


class Encoder:
    """Encode events. Remembers the parts that events of one type and session share."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str | None, tuple[int, int]], bytes] = {}

    def encode(self, event: Event, received_at: float) -> tuple[bytes, bytes]:
        """Return head and data of a record; its bytes are those of both."""
        key = (event.type, event.session, event.shard)
        names = self._names.get(key)
        if names is None:
            names = self._encode_names(key)
        seq, data, flags = event.seq, event.data, 0
        if event.type == COMPRESSED_TYPE:
            data, flags = zlib.compress(data, 1), COMPRESSED
        fixed = _FIXED.pack(NO_SEQ if seq is None else seq, received_at, flags) + names
        return _FRAME.pack(len(fixed) + len(data), zlib.crc32(data, zlib.crc32(fixed))) + fixed, data

    def _encode_names(self, key: tuple[str, str | None, tuple[int, int]]) -> bytes:
        kind, label = key[0].encode()[:_LONGEST_TYPE], (key[1] or "").encode()[:_LONGEST_LABEL]
        if len(self._names) > 10_000:  # a peer that invents types must not fill the memory
            self._names.clear()
        names = self._names[key] = _NAMES.pack(*key[2], len(label), len(kind)) + label + kind
        return names


class Decoder:
    """Decode records. Remembers the names that they share."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}

    def decode(self, segment: bytes, start: int, base: int = 0) -> Record | None:
        """Return the record at ``start``; None if it is torn or damaged. ``segment`` begins at ``base``."""
        place = start - base
        if place + FRAME_BYTES + _SHORTEST > len(segment):
            return None
        length, checksum = _FRAME.unpack_from(segment, place)
        body, end = place + FRAME_BYTES, place + FRAME_BYTES + length
        if length < _SHORTEST or end > len(segment) or zlib.crc32(memoryview(segment)[body:end]) != checksum:
            return None
        seq, received_at, flags = _FIXED.unpack_from(segment, body)
        shard_id, count, label_bytes, type_bytes = _NAMES.unpack_from(segment, body + _FIXED.size)
        label_at = body + _SHORTEST
        type_at = label_at + label_bytes
        label, kind = segment[label_at:type_at], segment[type_at : type_at + type_bytes]
        names = self._names
        return Record(
            (shard_id, count),
            names[label] if label in names else self._name(label),
            None if seq == NO_SEQ else seq,
            names[kind] if kind in names else self._name(kind),
            received_at,
            bool(flags & COMPRESSED),
            start,
            type_at + type_bytes + base,
            end + base,
        )

    def scan(self, segment: bytes) -> Iterator[Record]:
        """Yield the records of a whole segment, up to the first one that is torn or damaged."""
        start = HEADER_BYTES
        while (record := self.decode(segment, start)) is not None:
            yield record
            start = record.end

    def _name(self, text: bytes) -> str:
        name = self._names[text] = text.decode(errors="replace")
        return name
