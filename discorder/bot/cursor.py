"""Saves and loads the position of a bot on the bus, so that its next start continues there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

from discorder.bot.positions import SavedPosition
from discorder.errors import CursorInUse

VERSION = 1

logger = logging.getLogger(__name__)


class Cursor(Protocol):
    """A store that the bot provides, such as a row in its database. The state is opaque: a few hundred bytes of JSON."""

    def load(self) -> bytes | None:
        """Return the state that was saved last; None if there is none yet."""
        ...

    def save(self, state: bytes) -> None:
        """Replace the saved state by ``state``. Called on the bot's loop: it should not block for long."""
        ...


class FileCursor:
    """A file, readable by its owner only. It is replaced as a whole, so that a crash leaves the old one or the new one.

    A subscription locks ``PATH.lock`` beside it while it uses the file: one bot at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))  # a later chdir or link does not change it
        self._lock: int | None = None

    def lock(self) -> None:
        """Lock the cursor. Raises `CursorInUse` when another subscription uses it, in this process or another one.

        Where no lock is possible (a folder that cannot be written, a file system without locks), log a warning and continue.
        """
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
        except OSError as error:
            self._warn_without_lock(error)
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            msg = f"the cursor {self.path} is in use by another bot; give each bot a cursor of its own"
            raise CursorInUse(msg) from None
        except OSError as error:
            os.close(descriptor)
            self._warn_without_lock(error)
            return
        self._lock = descriptor

    def unlock(self) -> None:
        """Release the lock. Idempotent."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def load(self) -> bytes | None:
        """See `Cursor`. Raises OSError for a file that exists and cannot be read."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hold up the bot
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "the cursor is not a regular file", str(self.path))
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
            return file.read()

    def save(self, state: bytes) -> None:
        """See `Cursor`. Raises OSError; the previous state is still there then."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
                file.write(state)
            Path(name).replace(self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _warn_without_lock(self, error: OSError) -> None:
        logger.warning("The cursor %s is used without a lock: %s. Let no other bot use it.", self.path, error)


class _State(msgspec.Struct, frozen=True):
    v: int
    shards: tuple[SavedPosition, ...]


_decode = msgspec.json.Decoder(_State).decode


def dump(positions: tuple[SavedPosition, ...]) -> bytes:
    """Encode the positions of all shards for a cursor."""
    return msgspec.json.encode(_State(VERSION, positions))


def load(state: bytes) -> tuple[SavedPosition, ...]:
    """Decode what `dump` encoded. Raises ValueError for anything else."""
    decoded = _decode(state)
    if decoded.v != VERSION:
        msg = f"version {decoded.v} of a cursor is not known here"
        raise ValueError(msg)
    return decoded.shards
