"""Begin a journal as a copy of another one, while the process of that one goes on writing."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from discorder.publishers.journal import snapshot_file
from discorder.publishers.journal.segments import segment_paths

MOST_ATTEMPTS = 3

logger = logging.getLogger(__name__)


def copy_into_empty(original: Path, directory: Path) -> None:
    """Copy the snapshot and the segments of ``original``, unless ``directory`` holds some or ``original`` does not. Blocks.

    A copy that ends in the middle of a record is one that is cut there when it is read. If the copy fails, the journal begins
    empty, and a warning says why.
    """
    try:
        if not _holds_something(directory) and _holds_something(original):
            _copy_all(original, directory)
    except OSError as error:
        logger.warning("The journal cannot begin as a copy of %s: %s", original, error.strerror or error)
        _remove_all(directory)


def _copy_all(original: Path, directory: Path) -> None:
    for _ in range(MOST_ATTEMPTS):
        before = _version(original)
        with contextlib.suppress(FileNotFoundError):  # a segment that was removed behind a new snapshot
            for path in segment_paths(original):
                _copy(path, directory / path.name)
            if before is not None:
                _copy(original / snapshot_file.NAME, directory / snapshot_file.NAME)
        if _version(original) == before:
            logger.info("The journal begins as a copy of %s", original)
            return
        _remove_all(directory)
    logger.warning("The journal cannot begin as a copy of %s: its snapshot changes all the time", original)


def _remove_all(directory: Path) -> None:
    for path in (*segment_paths(directory), directory / snapshot_file.NAME):
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with source.open("rb") as read, open(descriptor, "wb") as write:  # noqa: PTH123  # a descriptor
        shutil.copyfileobj(read, write)


def _holds_something(directory: Path) -> bool:
    return bool(segment_paths(directory)) or (directory / snapshot_file.NAME).exists()


def _version(directory: Path) -> tuple[int, int] | None:
    """Return what is different after a new snapshot; None without one."""
    try:
        status = (directory / snapshot_file.NAME).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
