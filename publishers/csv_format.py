"""Write events as rows of delimited text, and recognise such rows. Pure: no files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from discorder.wire import Event, format_timestamp

COLUMNS = ("type", "timestamp", "session", "shard", "seq", "prev", "data")
HEAD_BYTES = 65_536  # of a line that are checked; csv rejects fields of more than 131,072 characters

_COLUMNS_BEFORE_PREV = ("type", "timestamp", "session", "shard", "seq", "data")  # rows of earlier versions
_SHAPES = {
    "timestamp": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"),
    "session": re.compile(r"\S{0,100}"),
    "shard": re.compile(r"\d+/\d+"),
    "seq": re.compile(r"\d*"),
    "prev": re.compile(r"\d*"),
}
_SHAPES_CUT = _SHAPES | {"timestamp": re.compile(r"[-\dT:.Z]{0,27}"), "shard": re.compile(r"\d*/?\d*")}
_ENOUGH_TO_KNOW = 4  # whole columns of a row, including timestamp and shard, which no other text has
_ENOUGH_OF_A_HEADER = 2  # whole columns


@dataclass(frozen=True, slots=True)
class RowFormat:
    """Write one row per event in UTF-8, ended by ``\\n``, with the columns `COLUMNS` and ``delimiter`` between them."""

    delimiter: str

    @property
    def header(self) -> bytes:
        """Return the header line."""
        return f"{self.delimiter.join(COLUMNS)}\n".encode()

    def encode(self, events: Sequence[Event]) -> bytes:
        """Return the rows of ``events``. ``shard`` is id/count, as in ``0/1``; None becomes an empty field.

        Line breaks, which JSON allows in ``data`` only between its tokens, become spaces: no field spans lines, so that a torn
        last line can be recognised and line tools work. Discord sends none. Invalid Unicode is written as an escape.
        """
        text = io.StringIO(newline="")
        write = csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerow
        for event in events:
            kind, data = _on_one_line(event.type), _on_one_line(event.data.decode(errors="replace"))
            shard = f"{event.shard[0]}/{event.shard[1]}"
            write((kind, format_timestamp(event.received_at), event.session, shard, event.seq, event.prev, data))
        return text.getvalue().encode(errors="backslashreplace")

    def complaint(self, line: bytes) -> str:
        """Return why ``line``, the beginning of a file's first line, is not a header or row of this format; "" if it is."""
        fields = self._fields(line)
        if tuple(fields) == COLUMNS or _fits(fields, COLUMNS, partly=False):
            return ""
        if _fits(fields, _COLUMNS_BEFORE_PREV, partly=False):
            return (
                "its rows are those of an earlier version, without the column prev, and one file must not have both kinds; "
                "move it away, and a new one is begun"
            )
        return (
            f"it is not a file of this publisher: its first line is no row of {', '.join(COLUMNS)} with {self.delimiter!r} "
            "between them; name another file, or move this one away"
        )

    def is_ours(self, line: bytes) -> bool:
        """Return whether ``line``, the beginning of a file's first line, is of this format or that of an earlier version."""
        return not self.complaint(line) or _fits(self._fields(line), _COLUMNS_BEFORE_PREV, partly=False)

    def is_torn(self, line: bytes, *, is_first: bool) -> bool:
        """Return whether ``line``, the beginning of a line without a line break, can be an incomplete row.

        The only line of a file must have more whole columns: there is no other evidence that the file is ours.
        """
        fields = self._fields(line)
        if not is_first:
            return _fits(fields, COLUMNS, partly=True)
        if self.header.startswith(line):
            return len(fields) > _ENOUGH_OF_A_HEADER
        return len(fields) > _ENOUGH_TO_KNOW and _fits(fields, COLUMNS, partly=True)

    def is_whole(self, line: bytes) -> bool:
        """Return whether ``line`` is complete but for the line break."""
        fields = self._fields(line, strict=True)  # strict: an unclosed quote is an error
        if not _fits(fields, COLUMNS, partly=False):
            return False
        try:
            msgspec.json.decode(fields[-1])
        except (ValueError, RecursionError):
            return False
        return True

    def _fields(self, line: bytes, *, strict: bool = False) -> list[str]:
        try:
            return next(csv.reader([line.decode(errors="replace")], delimiter=self.delimiter, strict=strict), [])
        except csv.Error:
            return []


def _fits(fields: Sequence[str], columns: Sequence[str], *, partly: bool) -> bool:
    """Return whether ``fields`` match ``columns``; ``partly``: columns may be missing at the end, and the last field be cut."""
    if not fields or len(fields) > len(columns) or (len(fields) < len(columns) and not partly):
        return False
    last = len(fields) - 1
    for index, (name, field) in enumerate(zip(columns, fields, strict=False)):
        shape = (_SHAPES_CUT if partly and index == last else _SHAPES).get(name)
        if shape is not None and not shape.fullmatch(field):
            return False
    return True


def _on_one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")
