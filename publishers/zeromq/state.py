"""Describe the bus at one moment, for the status document."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class BusClient:
    """One connection to the bus: its address, "" if the system does not say, and when it was accepted (UTC)."""

    peer: str
    since: datetime


@dataclass(frozen=True, slots=True)
class BusState:
    """What is bound, who is connected, and what the ring and the router hold. Ages in seconds, sizes in bytes.

    ``topics``: how many clients subscribe to each topic. The counts are those since `open`.
    """

    binds: tuple[str, ...]
    router_bind: str  # "" = none
    clients: tuple[BusClient, ...]
    topics: dict[str, int]
    ring_bytes: int
    ring_bytes_limit: int
    ring_span: float
    ring_span_limit: float
    replays_running: int
    replays: int
    requests: int
    commands: int
    refused_keys: int
