"""The control plane's own records: what it tells besides Discord's events, in the same document under topics of its own.

Shapes: docs/schemas/. A record has no ``seq`` and no ``prev``. Nothing here decides when one is due.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from discorder.wire import Event, format_timestamp

PREFIX = "DISCORDER_"  # no event of Discord's begins with it


class RecordType(StrEnum):
    """The topics of records."""

    STATE = "DISCORDER_STATE"
    RESUMED = "DISCORDER_RESUMED"
    GAP = "DISCORDER_GAP"


class GapKind(StrEnum):
    """Whose hole it is: the whole plane's, when a session is lost, or that of one publisher, which dropped."""

    SESSION = "session"
    PUBLISHER = "publisher"


class StateChange(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_STATE: one transition.

    ``target`` equals ``source`` where the state stays; ``milliseconds`` were spent in ``source``; ``cause`` is why this
    connection ends, null while nothing is wrong.
    """

    source: str
    trigger: str
    target: str
    cause: str | None
    generation: int
    milliseconds: float


class Replay(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_RESUMED: how many events Discord sent again between RESUME and RESUMED."""

    replayed: int


class Gap(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_GAP: events of the record's shard and session that the receiver does not get.

    ``from_seq`` to ``to_seq``, both inclusive, null = it is not known where the hole ends. ``start`` and ``end`` are aware; a gap
    of kind ``session`` whose ``end`` is null is not over yet. ``publisher`` is the one that dropped, null for kind ``session``.
    """

    kind: GapKind
    publisher: str | None
    from_seq: int
    to_seq: int | None
    cause: str
    start: datetime
    end: datetime | None


def state_record(shard: tuple[int, int], session: str | None, at: datetime, change: StateChange) -> Event:
    """DISCORDER_STATE; ``session`` is a label, None without one."""
    return Event(RecordType.STATE.value, shard, None, None, session, at, msgspec.json.encode(change))


def resumed_record(shard: tuple[int, int], session: str | None, at: datetime, replayed: int) -> Event:
    """DISCORDER_RESUMED."""
    return Event(RecordType.RESUMED.value, shard, None, None, session, at, msgspec.json.encode(Replay(replayed)))


def gap_record(shard: tuple[int, int], session: str, at: datetime, gap: Gap) -> Event:
    """DISCORDER_GAP; ``session`` is the label of the session in which events are missing."""
    document = {
        "kind": gap.kind,
        "publisher": gap.publisher,
        "from_seq": gap.from_seq,
        "to_seq": gap.to_seq,
        "cause": gap.cause,
        "start": format_timestamp(gap.start),
        "end": None if gap.end is None else format_timestamp(gap.end),
    }
    return Event(RecordType.GAP.value, shard, None, None, session, at, msgspec.json.encode(document))
