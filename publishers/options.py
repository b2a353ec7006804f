"""Define the options that every publisher's configuration table may contain, and select its events by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from discorder.records import PREFIX, RecordType
from discorder.wire import Event

MAX_COUNT = 2**50  # a petabyte: above every machine, and far below what a 64-bit integer of the status holds
REMEMBERED_NAMES = 1_024  # of events; Discord has about 80, and the bound is for a peer that invents names
MAX_SECONDS = 86_400.0  # a day: no publisher needs a longer wait, and infinity would overflow a timer

PositiveInt = Annotated[int, Meta(ge=1, le=MAX_COUNT, description="an integer from 1 to 2**50")]
PositiveSeconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS, description="seconds, more than 0, at most 86400")]
EventNames = Annotated[tuple[str, ...], Meta(description='a list of event names or globs, such as ["MESSAGE_*"]')]


class Overflow(StrEnum):
    """Choose what happens to an event for which a publisher's queue has no room."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    BLOCK = "block"


class EventSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Select the events of a publisher: a glob of ``include`` matches the name, and none of ``exclude`` does."""

    include: EventNames = ("*",)
    exclude: EventNames = ()


class DeliveryOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Define the keys that every ``[publishers.NAME]`` table may have. A kind adds its own in a subclass.

    ``max_events`` and ``max_bytes`` bound the events that wait for the publisher, besides the batch being published; the size
    of an event is that of its ``data``. ``give_up_after`` (seconds) is how long opening may take and how long failures are
    retried before the publisher is parked.
    """

    kind: Annotated[str, Meta(description="the kind of publisher")] = ""
    required: Annotated[bool, Meta(description="true or false")] = False
    overflow: Annotated[Overflow | None, Meta(description='"drop_oldest", "drop_newest" or "block"')] = None
    events: Annotated[EventSelection, Meta(description="{ include = [...], exclude = [...] }")] = EventSelection()
    max_events: PositiveInt = 10_000
    max_bytes: PositiveInt = 67_108_864
    block_timeout: PositiveSeconds = 10.0
    hold_off: PositiveSeconds = 45.0
    give_up_after: PositiveSeconds = 30.0

    @classmethod
    def completed(cls, table: Mapping[str, object]) -> Mapping[str, object]:
        """Return ``table``, as written, with the defaults that depend on other keys. A kind with such defaults overrides it."""
        return table

    @property
    def policy(self) -> Overflow:
        """Return the overflow policy in force: the named one, else `block` if required, else `drop_oldest`."""
        return self.overflow or (Overflow.BLOCK if self.required else Overflow.DROP_OLDEST)


def selector(selection: EventSelection) -> Callable[[Sequence[Event]], Sequence[Event]] | None:
    """Return a function that filters a batch by ``selection``; None if ``selection`` includes all events.

    Case does not matter: event names are in capitals.
    """
    include = [pattern.upper() for pattern in selection.include]
    exclude = [pattern.upper() for pattern in selection.exclude]
    if "*" in include and not exclude:
        return None

    @lru_cache(REMEMBERED_NAMES)
    def wanted(name: str) -> bool:
        return _matches(name, include) and not _matches(name, exclude)

    return lambda events: [event for event in events if wanted(event.type)]


def wants_record(selection: EventSelection, name: str, *, all_records: bool) -> bool:
    """Return whether a publisher with ``selection`` gets the control plane's records of this ``name``.

    It always gets a gap: no selection may hide a loss. With ``all_records``, other records are selected like events; without it,
    only by an included pattern that begins with DISCORDER_, because readers of events rely on their sequence.
    """
    if name == RecordType.GAP:
        return True
    include = [pattern.upper() for pattern in selection.include]
    if not all_records:
        include = [pattern for pattern in include if pattern.startswith(PREFIX)]
    return _matches(name, include) and not _matches(name, [pattern.upper() for pattern in selection.exclude])


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
