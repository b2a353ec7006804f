"""Places in the stream of a shard, and what is told about them: gaps, positions, replays. Values only."""

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
    SUBSCRIBER = "subscriber"  # behind it: on the way to this subscriber, and the bus cannot repeat them any more


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Continuity is lost: events from ``from_seq`` to ``to_seq`` of ``session`` on ``shard`` may be missing, both included.

    ``to_seq`` None: all that came between and the next event of this shard, in whatever session. ``types`` None: of any type.
    Some of what it covers may have been handed on nevertheless.
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
        """What stands here in an event: ``DISCORDER_GAP``."""
        return GAP_RECORD


class Ask(msgspec.Struct, frozen=True):
    """What is to be replayed: everything of the shard after ``after`` of ``session``; session None: everything there is."""

    shard: Shard
    session: str | None
    after: int


class Since(msgspec.Struct, frozen=True):
    """The place after which nothing is missing in a replay."""

    session: str
    seq: int


class ReplayEnd(msgspec.Struct, frozen=True):
    """The last frame of a replay: ``last`` of ``session`` is where the shard was when it began."""

    complete: bool
    session: str
    last: int
    since: Since


class GapData(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_GAP, as far as it matters here."""

    kind: str
    from_seq: int
    to_seq: int | None = None
    cause: str = ""


class PositionData(msgspec.Struct, frozen=True):
    """``data`` of DISCORDER_POSITION."""

    since: int
    last: int
    types: dict[str, int]


class Saved(msgspec.Struct, frozen=True, omit_defaults=True):
    """The place of one shard as a cursor keeps it: everything up to ``seq``, and of each type in ``seen`` up to there."""

    shard: Shard
    session: str
    seq: int
    seen: dict[str, int] = {}


Item = ReceivedEvent | Gap


def end_of_replay(fields: Mapping[str, object]) -> ReplayEnd:
    """The fields of the last frame. Raises ValueError where they do not fit."""
    return msgspec.convert(fields, ReplayEnd)
