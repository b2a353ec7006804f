"""Define the health of a publisher, as `publisher_health` returns it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from discorder.publishers.options import Overflow


class PublisherState(StrEnum):
    """Name the states of a circuit breaker (healthy = closed, parked = open, probing = half-open), and start and end."""

    OPENING = "opening"
    HEALTHY = "healthy"
    RETRYING = "retrying"
    PARKED = "parked"
    PROBING = "probing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PublisherHealth:
    """Describe one publisher at one moment.

    ``queued_events`` and ``queued_bytes`` wait, ``in_flight`` (events) are being published; ``accepted`` and ``dropped``
    count events since it was added, ``gaps`` runs of dropped events, ``failures`` attempts that raised. ``lag``: seconds since
    the oldest event that is not accepted yet was received. ``required``: the resume point waits for this publisher.
    ``overflow``: what happens to an event without room.
    """

    name: str
    kind: str  # the class
    state: PublisherState
    queued_events: int
    queued_bytes: int
    in_flight: int
    accepted: int
    dropped: int
    gaps: int
    failures: int
    last_error: str  # "" = none yet
    lag: float
    required: bool
    overflow: Overflow
