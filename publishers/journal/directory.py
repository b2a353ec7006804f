"""Open the directory of a journal, which one process uses at a time, and keep its small files."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

from discorder.errors import JournalInUse, UnusableFile

LOCK = "lock"
PLACES = "clients.json"
LOCK_SECONDS = 1.0  # a process that ends may still write its snapshot


class Directory:
    """A directory that is held until as many calls of `release` as of `hold` were made. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._holders = 0
        self._guard = threading.Lock()

    def hold(self) -> None:
        """Make the directory if it is not there, and lock it. Raises UnusableFile, and JournalInUse.

        Blocks for up to `LOCK_SECONDS`.
        """
        with self._guard:
            if not self._holders:
                self._lock()
            self._holders += 1

    def _lock(self) -> None:
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            reason = error.strerror or error
            msg = f"facade.journal: cannot use {self.path}: {reason}; name a directory that this user can make or write to"
            raise UnusableFile(msg) from error
        deadline = time.monotonic() + LOCK_SECONDS
        while not _locks(descriptor):
            if time.monotonic() < deadline:
                time.sleep(LOCK_SECONDS / 50)
                continue
            os.close(descriptor)
            msg = f"facade.journal: another process keeps its journal in {self.path}; name another one, or stop that process"
            raise JournalInUse(msg)
        self._descriptor = descriptor

    def release(self) -> None:
        """End one `hold`."""
        with self._guard:
            self._holders -= 1
            if not self._holders:
                os.close(self._descriptor)

    def write_places(self, text: bytes) -> None:
        """Replace the places of the clients. Raises OSError."""
        new = self.path / f"{PLACES}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor
            file.write(text)
        new.replace(self.path / PLACES)


def read_places(directory: Path) -> bytes:
    """Return the places of the clients as they were saved last; empty if they never were. Raises OSError."""
    try:
        return (directory / PLACES).read_bytes()
    except FileNotFoundError:
        return b""


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
