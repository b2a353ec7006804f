"""Define the options that every publisher's configuration table may contain, as one strict structure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_COUNT = 2**50  # a petabyte: above every machine, and far below what a 64-bit integer of the status holds
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
