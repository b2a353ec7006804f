"""Puts the events and records of one shard, which are in two streams, into the order in which they were written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Id = tuple[int, int]


class StreamEntry(NamedTuple):
    """An entry as it is in a stream."""

    key: str
    id: str
    fields: Mapping[bytes, bytes]


def merge(events: Sequence[StreamEntry], records: Sequence[StreamEntry], count: int) -> list[StreamEntry]:
    """Return both in order, as far as it is known: without those that may come after entries that were not read.

    Both were read by one command, at most ``count`` of each.
    """
    merged: list[StreamEntry] = []
    number = 0
    for event in events:
        at = parse_id(event.id)
        while number < len(records) and _after(records[number]) < at:
            merged.append(records[number])
            number += 1
        if number == len(records) == count:
            return merged
        merged.append(event)
    last = parse_id(events[-1].id) if len(events) == count else None
    for record in records[number:]:
        if last is not None and _after(record) > last:
            break
        merged.append(record)
    return merged


def parse_id(text: str) -> Id:
    """Return the two numbers of the id of an entry."""
    ms, _, seq = text.partition("-")
    return int(ms), int(seq)


def _after(record: StreamEntry) -> Id:
    """Return the id of the last event before ``record``; the lowest for an entry of another program."""
    try:
        return parse_id(record.fields.get(b"after", b"").decode())
    except ValueError:
        return 0, 0
