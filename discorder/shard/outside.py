"""What a driver is given: every way out of it. Values and protocols only."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from discorder.clock import Clock
from discorder.publishers.delivery import ShardDelivery
from discorder.rest import Token
from discorder.shard.slot import Admit
from discorder.statemachine import Session
from discorder.transport.protocol import Transport


class SessionKeeper(Protocol):
    """Where a shard's session is kept beyond the life of its driver."""

    def save(self, session: Session) -> None: ...

    def drop(self) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """The world around one shard. All of it can be replaced in a test."""

    clock: Clock
    rng: random.Random
    token: Token
    intents: int
    payload_compression: bool
    log_heartbeats: bool
    transport: Callable[[], Transport]  # a new one, not dialled
    url: Callable[[str], Awaitable[str]]  # host ("" = the main one) to the full URL, once it is known
    admit: Admit
    keeper: SessionKeeper
    delivery: ShardDelivery
    changed: Callable[[], None]  # the state of this shard changed
