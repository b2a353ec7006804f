"""Resolve the paths of the configuration, find two that name one file, and read small files without blocking."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

IPC: Final = "ipc://"
DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:6000"  # where a control plane publishes and a bot subscribes
READ_WITHIN: Final = 5.0  # seconds; a FIFO may have to wait for its writer
ROTATED_SUFFIX: Final = "."  # name.1, name.2 …


def resolve_path(setting: str | os.PathLike[str]) -> Path:
    """Make a configured path absolute: ``~`` and ``~name`` are home directories, the rest starts at the working directory.

    Raises ValueError, with a sentence, for a ``~`` without a home directory and for a NUL character.
    """
    text = os.fspath(setting)
    if "\0" in text:
        msg = "a path cannot hold a null character"
        raise ValueError(msg)
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        msg = f"{text.split('/', 1)[0]} has no home directory here; set HOME, or write the path in full"
        raise ValueError(msg) from None


def resolve_endpoint(endpoint: str) -> str:
    """Expand ``~`` in an ``ipc://`` endpoint as `resolve_path` does; all others, and relative ones, stay as they are."""
    path = endpoint.removeprefix(IPC)
    if path == endpoint or not path.startswith("~"):
        return endpoint
    return f"{IPC}{resolve_path(path)}"


def read_small_file(path: Path, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a file, a device or a FIFO. Raises OSError; TimeoutError if they do not come in time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        deadline = time.monotonic() + READ_WITHIN
        content = b""
        while len(content) < limit:
            _wait_readable(descriptor, path, deadline)
            part = os.read(descriptor, limit - len(content))
            if not part:
                break
            content += part
        return content
    finally:
        os.close(descriptor)


def is_open_to_others(found: os.stat_result) -> bool:
    """Return whether more users than those that its owner chose may use a secret file.

    The rights of a group count only for a file that is ours: a credential from systemd or from a container platform belongs to
    root, and its group's rights are those that let this process read it.
    """
    ours = found.st_uid == os.geteuid()
    return bool(found.st_mode & (0o077 if ours else 0o027))


def _wait_readable(descriptor: int, path: Path, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        msg = f"nothing came within {READ_WITHIN:g} s"
        raise TimeoutError(None, msg, str(path))


class FileUse(NamedTuple):
    """The use of a file by ``key``. ``beside``: endings of further names that it uses; ``rotates``: also name.1, name.2 …"""

    key: str
    path: Path
    beside: tuple[str, ...] = ()
    rotates: bool = False


def find_clash(uses: Iterable[FileUse]) -> tuple[str, str, Path] | None:
    """Return two keys that name one file, and its path: directly, over links of either kind, or as a file beside the other's."""
    seen: list[FileUse] = []
    for use in uses:
        for other in seen:
            if _is_same(use.path, other.path) or _is_beside(use, other) or _is_beside(other, use):
                return other.key, use.key, use.path
        seen.append(use)
    return None


def _is_same(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist, so neither is a link to the other
        return False


def _is_beside(use: FileUse, owner: FileUse) -> bool:
    """Check whether ``use`` names a file that ``owner`` creates beside its own."""
    ending = os.path.realpath(use.path).removeprefix(os.path.realpath(owner.path))
    rotated = owner.rotates and ending.startswith(ROTATED_SUFFIX) and ending[1:].isdecimal()
    return ending in owner.beside or rotated
