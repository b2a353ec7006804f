"""Write and read the snapshot of a journal: the guilds of each shard, and the number of the record that they are at.

The file is a magic text and then chunks, each framed by its length: a header in JSON, for each of its shards as many chunks as it
names, and last a checksum of all before it. It is replaced as a whole.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct

import msgspec

from discorder.publishers.journal.records import Damaged

NAME = "snapshot"
NEW_NAME = "snapshot.new"
MAGIC = b"discorder snapshot 1\n"
_LENGTH = Struct("<Q")
_CHECKSUM = Struct("<I")
_WRITE_BYTES = 1_048_576


class ShardHeader(msgspec.Struct, frozen=True):
    """Where one shard was. ``shard`` is (id, count)."""

    shard: tuple[int, int]
    session: str
    seq: int


class Header(msgspec.Struct, frozen=True):
    """What a snapshot contains. ``at``: the number of the first record after it."""

    at: int
    shards: tuple[ShardHeader, ...]


def write(directory: Path, header: Header, packed: Sequence[Iterable[bytes]]) -> None:
    """Write a snapshot and replace the one before. ``packed``: the chunks of each shard. Raises OSError. Blocks."""
    new = directory / NEW_NAME
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        checksum, waiting = 0, bytearray()
        for part in _parts(header, packed):
            checksum = zlib.crc32(part, checksum)
            waiting += part
            if len(waiting) >= _WRITE_BYTES:
                _write_all(descriptor, waiting)
                waiting = bytearray()
        _write_all(descriptor, waiting + _CHECKSUM.pack(checksum))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(directory / NAME)
    _sync(directory)


def _parts(header: Header, packed: Sequence[Iterable[bytes]]) -> Iterator[bytes]:
    yield MAGIC
    yield from _framed(msgspec.json.encode(header))
    for chunks in packed:
        for chunk in chunks:
            yield from _framed(chunk)
        yield _LENGTH.pack(0)  # no chunk is empty


def _framed(chunk: bytes) -> tuple[bytes, bytes]:
    return _LENGTH.pack(len(chunk)), chunk


def _write_all(descriptor: int, content: bytearray) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(directory: Path) -> tuple[Header, list[list[bytes]]] | None:
    """Return the snapshot and the chunks of each shard; None if there is none. Raises OSError, and `Damaged` with a reason."""
    try:
        content = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    body = len(content) - _CHECKSUM.size
    if not content.startswith(MAGIC):
        reason = "it is not a snapshot of this version of Discorder"
        raise Damaged(reason)
    if body < len(MAGIC) or zlib.crc32(memoryview(content)[:body]) != _CHECKSUM.unpack_from(content, body)[0]:
        reason = "its checksum is wrong"
        raise Damaged(reason)
    chunks = _chunks(content, len(MAGIC), body)
    try:
        header = msgspec.json.decode(next(chunks), type=Header)
        return header, [list(iter(lambda: next(chunks), b"")) for _ in header.shards]
    except (msgspec.DecodeError, StopIteration) as error:
        reason = "it does not hold what its header says"
        raise Damaged(reason) from error


def _chunks(content: bytes, place: int, end: int) -> Iterator[bytes]:
    while place < end:
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size
        yield content[place : place + length]
        place += length
