"""Keeps a cursor up to date with the items that the bot has processed."""

from __future__ import annotations

import logging
import time

from discorder.bot.cursor import Cursor, FileCursor, dump, load
from discorder.bot.gap_detector import GapDetector
from discorder.bot.positions import SavedPosition, Shard

SAVE_EVERY = 1.0  # seconds between two writes

logger = logging.getLogger(__name__)


def open_cursor(cursor: Cursor) -> tuple[SavedPosition, ...] | None:
    """Lock the cursor, if it is a file, and load it; None before it is saved for the first time.

    Raises `CursorInUse`, and OSError for a cursor that cannot be read.
    """
    if isinstance(cursor, FileCursor):
        cursor.lock()
    try:
        state = cursor.load()
    except BaseException:
        close_cursor(cursor)
        raise
    if state is None:
        return None
    try:
        return load(state)
    except (ValueError, RecursionError) as error:
        logger.warning("The cursor cannot be read, so this starts at the oldest event that there is: %s", error)
        return ()


def close_cursor(cursor: Cursor) -> None:
    """Release the lock of a file."""
    if isinstance(cursor, FileCursor):
        cursor.unlock()


class Progress:
    """Writes one cursor. It never covers the item that the bot is processing."""

    def __init__(self, cursor: Cursor, detector: GapDetector) -> None:
        self._cursor = cursor
        self._detector = detector
        self._current: tuple[Shard, SavedPosition | None] | None = None  # its shard before it
        self._written = b""
        self._written_shards = frozenset(detector.shards)  # that have a position in what is written
        self._failed = False
        self.due = time.monotonic()  # of the next write

    def deliver(self, shard: Shard, before: SavedPosition | None) -> None:
        """Note that the bot is about to get an item of ``shard``, whose position was ``before``; None: it had none.

        Before the first item of a shard the cursor is written with a position of it. So a later start finds the shard, and gets
        either the events that followed or a gap.
        """
        self._current = (shard, before or self._detector.first_position(shard))
        if shard not in self._written_shards and not self._failed:
            self.save_or_log()

    def finish(self) -> None:
        """Note that the bot has processed its item."""
        self._current = None

    def save(self) -> None:
        """Write the cursor if it has moved. Raises what the cursor raises; then the next call writes again."""
        self.due = time.monotonic() + SAVE_EVERY
        positions = self._positions()
        state = dump(positions)
        if state == self._written:
            return
        self._cursor.save(state)
        self._written, self._written_shards = state, frozenset(position.shard for position in positions)
        if self._failed:
            logger.info("The cursor is written again.")
        self._failed = False

    def save_or_log(self) -> None:
        """Write the cursor; log the first of several failures."""
        try:
            self.save()
        except Exception as error:  # noqa: BLE001  # a custom cursor may raise anything
            if not self._failed:
                logger.warning(
                    "The cursor cannot be written: %s. The events go on, and it is tried again every %g s; a restart now would "
                    "repeat the events since the last write.",
                    error,
                    SAVE_EVERY,
                )
            self._failed = True

    def _positions(self) -> tuple[SavedPosition, ...]:
        positions = {shard: self._detector.position(shard) for shard in self._detector.shards}
        if self._current is not None:
            positions[self._current[0]] = self._current[1]
        return tuple(position for position in positions.values() if position is not None)
