"""Append batches of rows to a file, each batch as a whole or not at all.

Blocking: call it from one worker thread. Written rows are in the operating system, never in a buffer of this process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path

from discorder.errors import ConfigError, DiscorderError, PublisherError, UnusableFile
from discorder.publishers.csv_format import HEAD_BYTES, RowFormat

READ_BACK = 65_536  # bytes per step in search of the last line break
# opening a FIFO must not block; it is refused later
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

logger = logging.getLogger(__name__)


class AppendOnlyFile:
    """Append to ``path``, rotate it by size, and reopen it after it was moved or deleted.

    A file that was not written in the format ``rows`` is never changed, also not through a link.
    """

    def __init__(
        self,
        path: Path,
        owner: str,
        rows: RowFormat,
        *,
        header: bool,
        rotate_bytes: int,
        keep: int,
        sync_each: bool,
        sync_rotated: bool,
    ) -> None:
        """Wait for the disk at each batch (``sync_each``), or before a full file is closed (``sync_rotated``)."""
        self._path = path
        self._owner = owner
        self._rows = rows
        self._header = rows.header if header else b""
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._sync_each = sync_each
        self._sync_rotated = sync_rotated
        self._fd = -1
        self._warn_above: int | None = None  # bytes; None = the last rotation succeeded

    def open(self) -> None:
        """Open the file. Raises UnusableFile if it is not writable or not ours, ConfigError if another publisher uses it."""
        try:
            self._open()
            self._begin()
        except (OSError, ValueError) as error:  # ValueError: an invalid path, such as one with a NUL
            self.close()
            reason = getattr(error, "strerror", None) or error
            raise self._unusable(f"{reason}; name a file in a directory that exists and is writable") from error

    def append(self, lines: bytes) -> None:
        """Write ``lines``, or raise a `DiscorderError` and leave the file unchanged."""
        try:
            self._make_ready(len(lines))
            self._write(lines)
        except OSError as error:
            self.close()  # the next batch reopens the file and removes any rest of this one
            msg = f"cannot write to {self._path}: {error.strerror or error}"
            raise PublisherError(msg) from error

    def sync(self) -> None:
        """Wait until all written rows are on the disk. Raises OSError."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    # Opening

    def _open(self) -> None:
        self._fd = os.open(self._path, FLAGS, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise self._unusable("it is no regular file; name one")
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check()
            if self._sync_each:
                _sync_directory(self._path.parent)
        except BlockingIOError as error:
            self.close()
            msg = f"publishers.{self._owner}.path: another process or publisher appends to {self._path}; choose another file"
            raise ConfigError(msg) from error
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Refuse a file that is not ours, and repair the last line if a crash has torn it."""
        size = os.fstat(self._fd).st_size
        end = self._end_of_lines(size)
        first = os.pread(self._fd, HEAD_BYTES, 0).partition(b"\n")[0]
        if end and (complaint := self._rows.complaint(first)):
            raise self._unusable(complaint)
        if end < size:
            self._repair(end, size)

    def _end_of_lines(self, size: int) -> int:
        """Return the position after the last line break."""
        while size > 0:
            start = max(0, size - READ_BACK)
            found = os.pread(self._fd, size - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
        return 0

    def _repair(self, end: int, size: int) -> None:
        """Cut off the text after the last line break: a row torn by a crash was never accepted, and comes again.

        Add the line break to a row that lacks only that: an editor may have removed it.
        """
        line = os.pread(self._fd, HEAD_BYTES, end)
        if size - end < HEAD_BYTES and self._rows.is_whole(line):
            os.write(self._fd, b"\n")
        elif self._rows.is_torn(line, is_first=end == 0):
            os.ftruncate(self._fd, end)
            logger.warning("Publisher %s cut a torn last line of %d bytes off %s", self._owner, size - end, self._path)
        else:
            raise self._unusable(self._rows.complaint(line) if end == 0 else "its last line is not ours and has no end")

    def _unusable(self, reason: str) -> UnusableFile:
        return UnusableFile(f"publishers.{self._owner}.path: cannot append to {self._path}: {reason}")

    # Writing

    def _make_ready(self, coming: int) -> None:
        if not self._is_in_place():
            self.close()
            self._open()
        size = os.fstat(self._fd).st_size
        if self._rotate_bytes and size > len(self._header) and size + coming > self._rotate_bytes:
            self._rotate_if_possible(size)
        self._begin()

    def _begin(self) -> None:
        """Write the header, if configured, into an empty file."""
        if self._header and not os.fstat(self._fd).st_size:
            self._write(self._header)

    def _is_in_place(self) -> bool:
        if self._fd < 0:
            return False
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def _write(self, lines: bytes) -> None:
        """Write all of ``lines``, or cut off the written part and raise OSError."""
        start = os.fstat(self._fd).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self._sync_each:
                os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, start)
            raise

    # Rotating

    def _rotate_if_possible(self, size: int) -> None:
        """Rotate. On failure continue in the same file and retry at the next batch: events matter more than file sizes."""
        if self._sync_rotated:
            os.fsync(self._fd)
        try:
            self._rotate()
        except (OSError, DiscorderError) as error:
            if self._warn_above is None or size > self._warn_above:  # again after growing by the size of one file
                self._warn_above = size + self._rotate_bytes
                logger.warning(
                    "Publisher %s cannot rotate %s (%d bytes): %s; it goes on in that file and tries again at each batch",
                    *(self._owner, self._path, size, error),
                )
        else:
            if self._warn_above is not None:
                logger.info("Publisher %s rotates %s again", self._owner, self._path)
            self._warn_above = None

    def _rotate(self) -> None:
        """Move the files up by one and begin a new one. Until that has succeeded, delete no file and keep the file open."""
        free = self._first_free()
        if free > self._keep:
            self._refuse_to_drop_foreign(self._numbered(self._keep))
        self._refuse_to_drop_foreign(self._numbered(self._keep + 1))
        for number in range(free - 1, 0, -1):
            self._numbered(number).replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        old, self._fd = self._fd, -1
        try:
            self._open()
        except BaseException:
            self._fd = old
            if not self._path.exists():  # otherwise another program made it meanwhile, and the next batch detects that
                self._numbered(1).replace(self._path)
            raise
        os.close(old)
        self._numbered(self._keep + 1).unlink(missing_ok=True)

    def _refuse_to_drop_foreign(self, oldest: Path) -> None:
        """Raise UnusableFile if ``oldest``, the file to drop, exists and was not written by this publisher."""
        if not os.path.lexists(oldest):
            return
        if oldest.is_file():
            with oldest.open("rb") as file:
                if self._rows.is_ours(file.readline(HEAD_BYTES).rstrip(b"\n")):
                    return
        raise self._unusable(f"{oldest} would have to be dropped, and is not a file of this publisher; move it away")

    def _first_free(self) -> int:
        """Return the first number without a rotated file: a crash between two renames may leave a gap."""
        return next(
            (number for number in range(1, self._keep + 1) if not self._numbered(number).exists()), self._keep + 1
        )

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _sync_directory(directory: Path) -> None:
    """Sync ``directory``: without that, a new file may not survive a power cut."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
