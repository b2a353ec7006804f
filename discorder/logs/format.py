"""Format a log record as text and as JSON: convert its fields, redact its secrets. Never raises."""

from __future__ import annotations

import json
import logging
import math
import re
import traceback
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, cast

from discorder.escapes import escape_controls, escape_controls_but_newlines, escape_controls_in_json, has_controls

if TYPE_CHECKING:
    from loguru import Record

Redact = Callable[[str], str]

TEXT_FORMAT = (
    "<dim>{extra.time}</dim> <level>{level: <8}</level> {message}<cyan>{extra.text}</cyan>"
    " <dim>[{file}:{line}]</dim>{extra.below}"
)
JSON_FORMAT = "{extra.json}"

MAX_DEPTH = 6  # of nested lists and tables in a field; deeper values are shown as text
MAX_INT = 2**64  # beyond it an integer is shown as text; str() refuses those of thousands of digits
_RESERVED = frozenset({"time", "level", "message", "file", "line", "traceback"})
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s\"'=\[\]{}()]+")


class Fields(dict[str, object]):
    """The converted and redacted fields of one record, with the notations that the format strings use."""

    __slots__ = ("_record", "_traceback")

    def __init__(self, record: Record, fields: Mapping[str, object], trace: str) -> None:
        super().__init__(fields)
        self._record = record
        self._traceback = trace

    @property
    def time(self) -> str:
        """Local time with its offset from UTC, to the millisecond."""
        return self._record["time"].isoformat(sep=" ", timespec="milliseconds")

    @property
    def text(self) -> str:
        """`` key=value`` for each field, quoted where necessary."""
        return "".join(f" {key}={_quoted(value)}" for key, value in self.items())

    @property
    def below(self) -> str:
        """The traceback, if any, on lines of its own."""
        return f"\n{self._traceback}" if self._traceback else ""

    @property
    def json(self) -> str:
        """The record as one line of JSON. A field with the name of a record's own key gets a ``_``."""
        document: dict[str, object] = {
            "time": self._record["time"].isoformat(timespec="milliseconds"),
            "level": self._record["level"].name,
            "message": self._record["message"],
            "file": self._record["file"].name,
            "line": self._record["line"],
        }
        document |= {f"{key}_" if key in _RESERVED else key: value for key, value in self.items()}
        if self._traceback:
            document["traceback"] = self._traceback
        return escape_controls_in_json(json.dumps(document, ensure_ascii=False))


def prepare_record(record: Record, redact: Redact) -> None:
    """Convert and redact the fields of ``record``, format its exception, and set its original file and line."""
    fields = dict(record["extra"])
    origin = fields.pop("origin", None)
    if isinstance(origin, logging.LogRecord):
        fields |= _adopt(record, origin)
    elif origin is not None:
        fields["origin"] = origin
    record["message"] = escape_controls(redact(record["message"]))
    exception = record["exception"]
    trace = "" if exception is None else "".join(traceback.format_exception(*exception)).rstrip()
    record["exception"] = None  # else loguru would print it, unredacted
    plain = {key: _plain(value, redact) for key, value in fields.items()}
    record["extra"] = Fields(record, plain, escape_controls_but_newlines(redact(trace)))


def _adopt(record: Record, origin: logging.LogRecord) -> dict[str, object]:
    """Copy file, line and name of the standard-library record to ``record``, and return its extra fields."""
    record["file"].name = origin.filename
    record["file"].path = origin.pathname
    record["line"] = origin.lineno
    record["function"] = origin.funcName or ""
    record["name"] = origin.name
    return {key: value for key, value in vars(origin).items() if key not in _STANDARD}


def _plain(value: object, redact: Redact, depth: int = 0) -> object:
    """Convert ``value`` to JSON types. A value without a JSON type becomes its text."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or (isinstance(value, int) and abs(value) < MAX_INT):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {redact(_text(key)): _plain(item, redact, depth + 1) for key, item in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(item, redact, depth + 1) for item in value]
    return redact(_text(value))


def _text(value: object) -> str:
    try:
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {value}" if str(value) else type(value).__name__
        return str(value)
    except Exception as error:  # noqa: BLE001 - a value's own __str__ may raise anything, and the record must be written all the same
        return f"<{type(value).__name__} without a text: {type(error).__name__}>"


def _quoted(value: object) -> str:
    """Return a value for the text log: bare if it is one word, else as JSON."""
    if isinstance(value, str) and _BARE.fullmatch(value) and not has_controls(value):
        return value
    return escape_controls(json.dumps(value, ensure_ascii=False))
