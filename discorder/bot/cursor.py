"""Where a bot had come on the bus, kept so that it survives the bot: what `subscribe` saves and loads. It knows no socket."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

from discorder.bot.places import Saved

VERSION = 1


class Cursor(Protocol):
    """A place of a bot's own, such as a row in its database. What is kept is opaque: a few hundred bytes of JSON."""

    def load(self) -> bytes | None:
        """What was saved last; None when nothing ever was."""
        ...

    def save(self, state: bytes) -> None:
        """Keep ``state`` in place of what was saved before. Called on the bot's loop: it should not block for long."""
        ...


class FileCursor:
    """A file. It is replaced as a whole, so that a crash leaves the old one or the new one; readable by its owner only."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> bytes | None:
        """See `Cursor`. Raises OSError for a file that is there and cannot be read."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, state: bytes) -> None:
        """See `Cursor`. Raises OSError; what was saved before is still there then."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
                file.write(state)
            Path(name).replace(self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise


class _Kept(msgspec.Struct, frozen=True):
    v: int
    shards: tuple[Saved, ...]


_decode = msgspec.json.Decoder(_Kept).decode


def dump(places: tuple[Saved, ...]) -> bytes:
    """The places of all shards, as a cursor keeps them."""
    return msgspec.json.encode(_Kept(VERSION, places))


def load(state: bytes) -> tuple[Saved, ...]:
    """What `dump` made. Raises ValueError for anything else."""
    kept = _decode(state)
    if kept.v != VERSION:
        msg = f"version {kept.v} of a cursor is not known here"
        raise ValueError(msg)
    return kept.shards
