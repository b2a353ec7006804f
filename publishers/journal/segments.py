"""Keep the segment files of a journal: append to the newest, read from all, remove the oldest."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from discorder.errors import PublisherError, UnusableFile
from discorder.publishers.journal.records import HEADER_BYTES, Decoder, Foreign, Record, decode_header, encode_header

_NAME = re.compile(r"segment\.(\d{8,})")
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW

logger = logging.getLogger(__name__)


class Segment:
    """One file. ``first`` is the number of its first record, ``end`` that after its last; ``size`` is in bytes.

    ``began_at`` and ``ended_at``: when its first and last events were received, in seconds since the epoch; 0 while it is empty.
    """

    def __init__(self, path: Path, first: int, descriptor: int) -> None:
        self.path = path
        self.first = self.end = first
        self.size = HEADER_BYTES
        self.began_at = self.ended_at = 0.0
        self.descriptor = descriptor

    def note(self, received_at: float, end: int) -> None:
        """Note a record that ends at the byte ``end``."""
        self.end += 1
        self.size = end
        self.began_at = self.began_at or received_at
        self.ended_at = received_at

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to ``end``. Raises OSError."""
        return os.pread(self.descriptor, end - start, start)

    def close(self) -> None:
        """Close the file. Idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def segment_paths(directory: Path) -> list[Path]:
    """Return the segments in ``directory``, oldest first; none if there is no such directory."""
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name)) if directory.is_dir() else []


class Segments:
    """The segments in ``directory``, oldest first. The last one is written to. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._torn = False  # a failed write may have left a part of a batch
        self.all: list[Segment] = []

    @property
    def newest(self) -> Segment:
        """Return the segment that is written to."""
        return self.all[-1]

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""
        return sum(segment.size for segment in self.all)

    # ---------------------------------------------------------------- start

    def open(
        self, state_at: int | None, take: Callable[[Segment, Record, bytes], None], forget: Callable[[], None]
    ) -> None:
        """Read the segments, oldest first, and call ``take`` with each record and the bytes of its segment.

        ``state_at``: the number of the first record that the snapshot does not contain, None without a snapshot. After a power
        cut an older segment may lack its last records although a newer one exists. Records beyond such a hole are removed,
        unless the snapshot is newer than the hole: then those before it are, and ``forget`` is called. Raises `UnusableFile`.
        """
        stop, decoder = False, Decoder()
        for segment in [
            segment for path in segment_paths(self._directory) if (segment := self._open(path)) is not None
        ]:
            if self.all and segment.first != self.newest.end:
                if state_at is not None and segment.first <= state_at:
                    self._remove_all(forget)
                else:
                    stop = True
            if stop or (state_at is not None and not self.all and segment.first > state_at):
                segment.close()
                self._drop(segment.path, "records before it are missing, so its events cannot be used")
                continue
            self.all.append(segment)
            content = segment.read(0, os.fstat(segment.descriptor).st_size)
            for record in decoder.scan(content):
                segment.note(record.received_at, record.end)
                take(segment, record, content)
            self._cut(segment, len(content))
        if self.all and state_at is not None and self.newest.end < state_at:
            self._remove_all(forget)
        if not self.all:
            self.begin(state_at or 0)

    def _remove_all(self, forget: Callable[[], None]) -> None:
        forget()
        for segment in self.all:
            segment.close()
            self._drop(segment.path, "records after it are missing, so its events cannot be replayed")
        self.all.clear()

    def _open(self, path: Path) -> Segment | None:
        """Open one file; remove it if a crash has left it without a header."""
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError as error:
            msg = f"facade.journal: cannot use {path}: {error.strerror or error}"
            raise UnusableFile(msg) from error
        try:
            first = decode_header(os.pread(descriptor, HEADER_BYTES, 0))
        except Foreign as error:
            os.close(descriptor)
            msg = f"facade.journal: {path} {error}; move it away, or name another directory"
            raise UnusableFile(msg) from None
        if first is None:
            os.close(descriptor)
            self._drop(path, "its header is torn")
            return None
        return Segment(path, first, descriptor)

    def _cut(self, segment: Segment, size: int) -> None:
        if size > segment.size:
            os.ftruncate(segment.descriptor, segment.size)
            logger.warning("The journal cut %d bytes of a torn record off %s", size - segment.size, segment.path)

    @staticmethod
    def _drop(path: Path, reason: str) -> None:
        path.unlink()
        logger.warning("The journal removed %s: %s", path, reason)

    # ---------------------------------------------------------------- writing

    def begin(self, first: int) -> Segment:
        """Begin a segment whose first record has the number ``first``. Raises OSError and then leaves nothing behind."""
        numbers = [int(match[1]) for path in segment_paths(self._directory) if (match := _NAME.fullmatch(path.name))]
        path = self._directory / f"segment.{max(numbers, default=0) + 1:08d}"
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, encode_header(first), 0)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
        segment = Segment(path, first, descriptor)
        self.all.append(segment)
        return segment

    def append(self, content: bytes) -> None:
        """Write ``content`` behind the records of the newest segment as a whole, or raise PublisherError and change nothing."""
        segment = self.newest
        try:
            if self._torn:
                os.ftruncate(segment.descriptor, segment.size)
                self._torn = False
            _write_all(segment.descriptor, content, segment.size)
        except OSError as error:
            self._torn = True  # the next write comes to the same place, and the next start cuts the rest off
            msg = f"cannot write to {segment.path}: {error.strerror or error}"
            raise PublisherError(msg) from error

    def drop_oldest(self) -> Segment:
        """Remove the oldest segment and return it."""
        segment = self.all.pop(0)
        segment.close()
        segment.path.unlink(missing_ok=True)
        return segment

    def close(self) -> None:
        """Close all files. Idempotent."""
        for segment in self.all:
            segment.close()
        self.all.clear()


def _write_all(descriptor: int, content: bytes, place: int) -> None:
    """Write ``content`` to ``place``. Raises OSError."""
    written = os.pwrite(descriptor, content, place)
    while written < len(content):
        written += os.pwrite(descriptor, memoryview(content)[written:], place + written)
