"""Values: positions in the event stream of a shard, gaps, and replay requests with their ends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from discorder.wire import ReceivedEvent

GAP_RECORD = "DISCORDER_GAP"
POSITION_RECORD = "DISCORDER_POSITION"

Shard = tuple[int, int]


class GapKind(StrEnum):
    """Where the events were lost."""

    SESSION = "session"  # before the control plane: Discord's session ended, or its replay
    PUBLISHER = "publisher"  # in the control plane: the queue of the bus had no room
    SUBSCRIBER = "subscriber"  # after it: on the way to this subscriber, and the bus cannot repeat them any more


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Events from ``from_seq`` to ``to_seq`` of ``session`` on ``shard`` may be missing, both included.

    ``to_seq`` None: all events up to the next one of this shard, in whatever session. ``types`` None: of any type. Some of the
    events that it covers may have been delivered nevertheless.
    """

    kind: GapKind
    shard: Shard
    session: str | None
    from_seq: int
    to_seq: int | None
    types: frozenset[str] | None
    cause: str

    @property
    def type(self) -> str:
        """``DISCORDER_GAP``, so that a gap can be told from an event by its ``type``."""
        return GAP_RECORD


class ReplayRequest(msgspec.Struct, frozen=True):
    """A request to replay everything of the shard after ``after`` of ``session``; session None: everything that the bus has."""

    shard: Shard
    session: str | None
    after: int


class Since(msgspec.Struct, frozen=True):
    """The position after which nothing is missing in a replay."""

    session: str
    seq: int


class ReplayEnd(msgspec.Struct, frozen=True):
    """The last part of a replay: ``last`` of ``session`` is where the shard was when the replay began.

    ``shard``: the id that was requested, and the number of shards that the bus has; None: an older bus, which omits it.
    """

    complete: bool
    session: str
    last: int
    since: Since
    shard: Shard | None = None


class GapData(msgspec.Struct, frozen=True):
    """The fields of a DISCORDER_GAP that matter here."""

    kind: str
    from_seq: int
    to_seq: int | None = None
    cause: str = ""


class PositionData(msgspec.Struct, frozen=True):
    """The fields of a DISCORDER_POSITION."""

    since: int
    last: int
    types: dict[str, int]


class SavedPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """The position of one shard in a cursor: everything up to ``seq`` was processed, and each type in ``seen`` up to its own."""

    shard: Shard
    session: str
    seq: int
    seen: dict[str, int] = {}


Item = ReceivedEvent | Gap


def end_of_replay(fields: Mapping[str, object]) -> ReplayEnd:
    """Decode the fields of the last part. Raises ValueError where they do not fit."""
    return msgspec.convert(fields, ReplayEnd)
