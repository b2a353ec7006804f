"""What the fan-out tells about a publisher."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PublisherState(StrEnum):
    """A circuit breaker's states (healthy = closed, parked = open, probing = half-open), and both ends of a life."""

    OPENING = "opening"
    HEALTHY = "healthy"
    RETRYING = "retrying"
    PARKED = "parked"
    PROBING = "probing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PublisherHealth:
    """One publisher at one moment.

    ``queued_events`` and ``queued_bytes`` wait, ``in_flight`` (events) are being published; ``accepted`` and ``dropped``
    count events since it was added, ``gaps`` runs of dropped ones, ``failures`` tries that raised. ``lag``: seconds since
    the oldest event that is not accepted yet was received. ``required``: the resume point waits for it.
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
