"""Build the control plane's own records, which are published together with Discord's events (docs/schemas/).

A record has no ``seq`` and no ``prev``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from discorder.wire import Event, format_timestamp

PREFIX = "DISCORDER_"  # no name of a Discord event begins with it


class RecordType(StrEnum):
    """The topics of records."""

    STATE = "DISCORDER_STATE"
    RESUMED = "DISCORDER_RESUMED"
    GAP = "DISCORDER_GAP"


class LossKind(StrEnum):
    """Where the events were lost: with the session, or in the queue of one publisher."""

    SESSION = "session"
    PUBLISHER = "publisher"


class StateChange(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_STATE: one transition.

    ``target`` equals ``source`` if the state does not change. ``milliseconds``: the time in ``source``. ``cause``: why this
    connection ends, null while it is healthy.
    """

    source: str
    trigger: str
    target: str
    cause: str | None
    generation: int
    milliseconds: float


class ReplayCount(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_RESUMED: how many events Discord sent again between RESUME and RESUMED."""

    replayed: int


class LostEvents(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_GAP: events of the record's shard and session that the receiver does not get.

    ``from_seq`` to ``to_seq``, both inclusive, null = the end is unknown. ``start`` and ``end`` are aware; with kind
    ``session`` a null ``end`` means that no new session has begun. ``publisher``: the name of the publisher that dropped the
    events, null with kind ``session``.
    """

    kind: LossKind
    publisher: str | None
    from_seq: int
    to_seq: int | None
    cause: str
    start: datetime
    end: datetime | None


class GapRecord(Event, gc=False, eq=False, kw_only=True):
    """A DISCORDER_GAP record, with the value that ``data`` encodes."""

    lost: LostEvents


def state_record(shard: tuple[int, int], session: str | None, at: datetime, change: StateChange) -> Event:
    """Build a DISCORDER_STATE record. ``session``: a label, None without a session."""
    return Event(RecordType.STATE.value, shard, None, None, session, at, msgspec.json.encode(change))


def resumed_record(shard: tuple[int, int], session: str | None, at: datetime, replayed: int) -> Event:
    """Build a DISCORDER_RESUMED record."""
    return Event(RecordType.RESUMED.value, shard, None, None, session, at, msgspec.json.encode(ReplayCount(replayed)))


def gap_record(shard: tuple[int, int], session: str, at: datetime, lost: LostEvents) -> GapRecord:
    """Build a DISCORDER_GAP record. ``session``: the label of the session whose events are missing."""
    document = {
        "kind": lost.kind,
        "publisher": lost.publisher,
        "from_seq": lost.from_seq,
        "to_seq": lost.to_seq,
        "cause": lost.cause,
        "start": format_timestamp(lost.start),
        "end": None if lost.end is None else format_timestamp(lost.end),
    }
    return GapRecord(RecordType.GAP.value, shard, None, None, session, at, msgspec.json.encode(document), lost=lost)
