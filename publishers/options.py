"""What the configuration may say about every publisher, as one strict structure. Nothing here acts on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

PositiveInt = Annotated[int, Meta(ge=1, description="an integer of at least 1")]
PositiveSeconds = Annotated[float, Meta(gt=0, description="seconds, more than 0")]
EventNames = Annotated[tuple[str, ...], Meta(description='a list of event names or globs, such as ["MESSAGE_*"]')]


class Overflow(StrEnum):
    """What happens to an event for which a publisher's queue has no room."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    BLOCK = "block"


class EventSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events a publisher gets: those that a glob of ``include`` matches and none of ``exclude`` does."""

    include: EventNames = ("*",)
    exclude: EventNames = ()


class DeliveryOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that every ``[publishers.NAME]`` table may have. A kind adds its own in a subclass.

    ``max_events`` and ``max_bytes`` bound what waits for the publisher, besides the one batch that it is working on; an
    event's size is that of its ``data``. ``give_up_after`` (seconds) is how long opening may take and how long failures are
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

    @property
    def policy(self) -> Overflow:
        """The overflow policy in force: `block` for a required publisher, else `drop_oldest` unless another one is named."""
        return self.overflow or (Overflow.BLOCK if self.required else Overflow.DROP_OLDEST)
