"""Name what the driver of a shard needs from the rest of the control plane."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from discorder.clock import Clock
from discorder.publishers.delivery.shard_progress import ShardDelivery
from discorder.rest import Token
from discorder.shard.identify_request import Admit
from discorder.statemachine import Session
from discorder.tracking.shard_tracker import ShardTracker, Transition
from discorder.transport.protocol import Transport


class SessionSaver(Protocol):
    """Store the session of a shard, and whether an operator has paused it, beyond the life of its driver."""

    def save(self, session: Session) -> None: ...

    def opened(self) -> None: ...

    def drop(self) -> None: ...

    def finish(self) -> None: ...

    def pause(self, since: datetime) -> None: ...

    def unpause(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DialTarget:
    """Hold a URL to dial, with its query. ``substituted``: the resume host's URL, because the main host is not known."""

    url: str
    substituted: bool = False


@dataclass(frozen=True, slots=True)
class ShardDependencies:
    """Hold everything that the driver of one shard uses. A test can replace all of it."""

    clock: Clock
    rng: random.Random
    token: Token
    intents: int
    payload_compression: bool
    log_heartbeats: Callable[[], bool]
    transport: Callable[[], Transport]  # a new one, not dialled
    target: Callable[[str, str], Awaitable[DialTarget]]  # what to dial; see `MainHost.target` for the two arguments
    resume_url: Callable[[str], str]  # returns the URL from READY, or "" where it must not be dialled
    hold_dials: Callable[[float], None]  # our address must not dial for this many seconds
    admit: Admit
    saver: SessionSaver
    delivery: ShardDelivery
    # why a session (its label) must end once its replay is complete; None to keep it
    why_end: Callable[[str | None], str | None]
    changed: Callable[[ShardTracker, Transition], None]  # called after each transition
