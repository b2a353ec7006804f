"""Keep the newest log records in memory, for the status document."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from discorder.logs import EVENTS, logger

if TYPE_CHECKING:
    from loguru import Message

RECORDS = 60
LONGEST_TEXT = 500  # characters of a message, and of a field
MOST_FIELDS = 16


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record: its time (UTC), level, text and fields, without secrets. ``number`` counts the records of the tail."""

    number: int
    at: datetime
    level: str
    message: str
    fields: dict[str, object]


class LogTail:
    """The newest records of INFO and above, the newest first; never events. Open it in each process once per control plane."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=RECORDS)
        self._sink: int | None = None
        self._count = 0

    def open(self) -> None:
        """Begin to keep records."""
        self._sink = logger.add(
            self._keep, level="INFO", format="{message}", filter=lambda record: record["name"] != EVENTS
        )

    def close(self) -> None:
        """Keep no more. Idempotent."""
        if self._sink is not None:
            logger.remove(self._sink)
            self._sink = None

    @property
    def newest(self) -> int:
        """Return the number of the newest record, 0 before the first."""
        return self._count

    def lines(self, after: int = 0) -> list[LogLine]:
        """Return the records with a number above ``after``, the newest first."""
        return [line for line in self._lines.copy() if line.number > after]

    def _keep(self, message: Message) -> None:
        record = message.record
        fields = {key: _short(value) for key, value in list(record["extra"].items())[:MOST_FIELDS]}
        text = _cut(record["message"])
        self._count += 1
        self._lines.appendleft(LogLine(self._count, record["time"].astimezone(UTC), record["level"].name, text, fields))


def _short(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(value if isinstance(value, str) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
