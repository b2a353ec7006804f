"""Write the log file: append, rotate by size, reopen after a rename. Report each failure once."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

MODE: Final = 0o640  # a log may hold what users wrote and, at level debug, tokens of interactions
# a FIFO must not block
FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class RotatedFile(RotatingFileHandler):
    """Append to a log file. A full one becomes ``name.1``; of the rotated files the last ``keep`` are kept.

    If the file cannot be renamed (a mounted file, another user's folder), append to it and try again after ``rotate_bytes``
    more. If another program renamed it (logrotate), create it again under its name. If it was truncated, append to it. A write
    that fails (disk full, directory removed) loses the record.
    """

    def __init__(self, path: Path, rotate_bytes: int, keep: int, report: Callable[[str], None]) -> None:
        """Call ``report`` with a sentence when a failure begins, and when writing works again. Raises OSError."""
        self._report = report
        self._lost = 0
        self._rotate_above = rotate_bytes
        self._rotation_fails = self._reopening_fails = False
        super().__init__(path, maxBytes=rotate_bytes, backupCount=keep, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        lost = self._lost
        super().emit(record)
        if lost and self._lost == lost:
            self._lost = 0
            self._report(f"the log file {self.baseFilename} can be written again; {lost} records were lost")

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the library's name
        self._follow()
        if self.stream is None:
            self.stream = self._open()
        size = os.fstat(self.stream.fileno()).st_size  # 0 for a device
        if not self._rotate_above:
            return False
        if size < self.maxBytes:
            self._rotate_above = self.maxBytes  # it was truncated, or is a new file
        length = len(self.format(record).encode(errors="backslashreplace")) + len(self.terminator)
        return bool(size) and size + length > self._rotate_above

    def doRollover(self) -> None:  # noqa: N802 - the standard library's name
        """Rename the full file, or keep writing to it if that fails."""
        base, size = self.baseFilename, self.maxBytes if self.stream is None else os.fstat(self.stream.fileno()).st_size
        try:
            waiting = f"{base}.0"  # a temporary name: no other file moves unless this one can be renamed
            if not os.path.lexists(waiting):
                os.rename(base, waiting)  # noqa: PTH104 - as the library does it
            for number in range(self.backupCount - 1, -1, -1):
                if os.path.lexists(f"{base}.{number}"):
                    os.replace(f"{base}.{number}", f"{base}.{number + 1}")  # noqa: PTH105
        except OSError as error:
            self._rotate_above = size + self.maxBytes
            if not self._rotation_fails:
                self._rotation_fails = True
                self._report(
                    f"the log file {base} cannot be rotated: {error.strerror or error}; it is written on and grows"
                )
        else:
            self._rotation_fails = False
        self._follow()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the standard library's signature
        self._lost += 1
        if self._lost == 1:
            error = sys.exc_info()[1]
            self._report(f"the log file {self.baseFilename} cannot be written: {error}; records are lost until it can")

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            self._report(f"the log file {self.baseFilename} could not be closed cleanly: {error}")

    def _follow(self) -> None:
        """Reopen the file if its name is gone or names another file. Keep the old one if that fails."""
        if self.stream is None or self._is_current(self.stream):
            return
        try:
            new = self._open()
        except OSError as error:
            if not self._reopening_fails:
                self._reopening_fails = True
                self._report(
                    f"the log file {self.baseFilename} was moved and cannot be made anew: {error}; the old one is written on"
                )
            return
        self._reopening_fails = False
        old, self.stream = self.stream, new
        old.close()

    def _is_current(self, stream: TextIOWrapper) -> bool:
        try:
            named = os.stat(self.baseFilename)  # noqa: PTH116 - at every record
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(stream.fileno()))

    def _open(self) -> TextIOWrapper:
        """Open the file, readable by its owner and group only. Raises OSError for a FIFO, a socket or a folder.

        Never waits for a device such as a terminal.
        """
        descriptor = os.open(self.baseFilename, FLAGS, MODE)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
                raise OSError(errno.EINVAL, "it is no regular file", self.baseFilename)
            if stat.S_ISREG(mode) and mode & 0o777 & ~MODE:
                _tighten(descriptor, mode)
            return open(descriptor, "a", encoding=self.encoding, errors=self.errors)  # noqa: PTH123 - the handler closes it
        except BaseException:
            os.close(descriptor)
            raise


def _tighten(descriptor: int, mode: int) -> None:
    """Remove the permissions of other users, unless the file has another owner."""
    try:
        os.fchmod(descriptor, mode & MODE)
    except PermissionError:
        return
