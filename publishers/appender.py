"""A file that is only ever appended to, in whole batches of lines: all of a batch or nothing of it.

Blocking: to be called from one worker thread. What it wrote is in the operating system, never in a buffer of this process.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

from discorder.errors import ConfigError, PublisherError, UnusableFile

READ_BACK = 65_536  # bytes per step in search of the last line break

logger = logging.getLogger(__name__)


class Appender:
    """Appends to ``path``, rotates by size, and opens the file anew when somebody moved or deleted it."""

    def __init__(self, path: Path, owner: str, *, rotate_bytes: int, keep: int, sync_each: bool) -> None:
        self._path = path
        self._owner = owner
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._sync_each = sync_each
        self._fd = -1

    def open(self) -> None:
        """Raises UnusableFile if the file cannot be written, ConfigError if another process appends to it."""
        try:
            self._open()
        except OSError as error:
            msg = (
                f"publishers.{self._owner}.path: cannot append to {self._path}: {error.strerror or error}; name a file in a "
                "directory that exists and is writable"
            )
            raise UnusableFile(msg) from error

    def append(self, lines: bytes) -> None:
        """Write ``lines``, or raise PublisherError and leave the file as it was."""
        try:
            self._make_ready(len(lines))
            start = os.fstat(self._fd).st_size
            try:
                self._write(lines)
                if self._sync_each:
                    os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, start)
                raise
        except OSError as error:
            self.close()  # the next batch opens it anew, and repairs what could not be undone here
            msg = f"cannot write to {self._path}: {error.strerror or error}"
            raise PublisherError(msg) from error

    def sync(self) -> None:
        """Wait until the disk has what was written. Raises OSError."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        """Give the file back; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._repair()
            if self._sync_each:
                _sync_directory(self._path.parent)
        except BlockingIOError as error:
            self.close()
            msg = f"publishers.{self._owner}.path: another process appends to {self._path}; choose another file"
            raise ConfigError(msg) from error
        except OSError:
            self.close()
            raise

    def _repair(self) -> None:
        """Cut off what follows the last line break: a line that a crash tore was never accepted, and comes again."""
        size = end = os.fstat(self._fd).st_size
        keep = 0
        while end > 0:
            start = max(0, end - READ_BACK)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            end = start
        if keep < size:
            os.ftruncate(self._fd, keep)
            logger.warning("Publisher %s cut a torn last line of %d bytes off %s", self._owner, size - keep, self._path)

    def _make_ready(self, coming: int) -> None:
        if not self._is_in_place():
            self.close()
            self._open()
        size = os.fstat(self._fd).st_size
        if self._rotate_bytes and size and size + coming > self._rotate_bytes:
            self._rotate()

    def _is_in_place(self) -> bool:
        if self._fd < 0:
            return False
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def _rotate(self) -> None:
        if self._sync_each:
            os.fsync(self._fd)
        self.close()
        for number in range(self._first_free() - 1, 0, -1):
            self._numbered(number).replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._open()

    def _first_free(self) -> int:
        """Where the row of rotated files ends: at its first gap, as a crash between two renames leaves it, or at the oldest."""
        return next((number for number in range(1, self._keep) if not self._numbered(number).exists()), self._keep)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._fd, rest) :]


def _sync_directory(directory: Path) -> None:
    """A new file survives a power cut only if its directory was synced too."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
