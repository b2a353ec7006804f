"""How one log record looks: its fields made plain and free of secrets, as text and as JSON. Writes nowhere, never raises."""

from __future__ import annotations

import json
import logging
import math
import re
import traceback
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from loguru import Record

Redact = Callable[[str], str]

TEXT_FORMAT = (
    "<dim>{extra.time}</dim> <level>{level: <8}</level> {message}<cyan>{extra.text}</cyan>"
    " <dim>[{file}:{line}]</dim>{extra.below}"
)
JSON_FORMAT = "{extra.json}"

MAX_DEPTH = 6  # of nested lists and tables in a field; what lies deeper is shown by its repr
MAX_INT = 2**64  # beyond it an integer is shown as text; str() refuses those of thousands of digits
_RESERVED = frozenset({"time", "level", "message", "file", "line", "traceback"})
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s\"'=\[\]{}()]+")
_CONTROL = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]"
)  # all but the tab: a record is one line, and no escape code reaches a terminal
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Fields(dict[str, object]):
    """The fields of one record, plain and redacted, with the notations that the format strings ask for."""

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
        """`` key=value`` for each field, quoted where it needs to be."""
        return "".join(f" {key}={_quoted(value)}" for key, value in self.items())

    @property
    def below(self) -> str:
        """The traceback, if any, on lines of its own."""
        return f"\n{self._traceback}" if self._traceback else ""

    @property
    def json(self) -> str:
        """The record as one line of JSON; a field that is named like one of the record's own keys gets a ``_``."""
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
        return json.dumps(document, ensure_ascii=False)


def prepare_record(record: Record, redact: Redact) -> None:
    """Make ``record`` fit to be written: plain fields, no secret, its exception as text, its origin the real one."""
    fields = dict(record["extra"])
    origin = fields.pop("origin", None)
    if isinstance(origin, logging.LogRecord):
        fields |= _adopt(record, origin)
    elif origin is not None:
        fields["origin"] = origin
    record["message"] = _CONTROL.sub(_escape, redact(record["message"]))
    exception = record["exception"]
    trace = "" if exception is None else "".join(traceback.format_exception(*exception)).rstrip()
    record["exception"] = None  # else loguru would print it, unredacted
    plain = {key: _plain(value, redact) for key, value in fields.items()}
    record["extra"] = Fields(record, plain, _CONTROL_BUT_NEWLINE.sub(_escape, redact(trace)))


def _adopt(record: Record, origin: logging.LogRecord) -> dict[str, object]:
    """Let ``record`` say where the standard library's record came from; returns that record's own fields."""
    record["file"].name = origin.filename
    record["file"].path = origin.pathname
    record["line"] = origin.lineno
    record["function"] = origin.funcName or ""
    record["name"] = origin.name
    return {key: value for key, value in vars(origin).items() if key not in _STANDARD}


def _plain(value: object, redact: Redact, depth: int = 0) -> object:
    """``value`` in terms of JSON. Whatever JSON has no word for becomes its text."""
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
    """A plain value as the text log shows it: bare where it is one word, else as JSON."""
    if isinstance(value, str) and _BARE.fullmatch(value) and not _CONTROL.search(value):
        return value
    return _CONTROL.sub(_escape, json.dumps(value, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
