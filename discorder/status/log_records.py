"""Describe records of the log for the document."""

from __future__ import annotations

from collections.abc import Iterable

from discorder.logs.tail import LogLine
from discorder.status.document import LogRecordPart, moment


def describe_records(lines: Iterable[LogLine]) -> list[LogRecordPart]:
    """Return the descriptions of ``lines``, in their order."""
    return [
        LogRecordPart(at=moment(line.at), level=line.level, message=line.message, fields=dict(line.fields))
        for line in lines
    ]
