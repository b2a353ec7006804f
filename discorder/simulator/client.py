"""Hold the state of one connected client: its connection, session, heartbeats and send window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from discorder.clock import Clock, Timer
from discorder.simulator.connection import SimulatedConnection
from discorder.simulator.limits import SlidingLog
from discorder.simulator.session import SimulatedSession

PRESENCE_LIMIT = 5  # updates per 20 s (docs/protocol.md#send-limit)
PRESENCE_WINDOW = 20.0


class HeartbeatWatch:
    """Calls ``missed`` after ``patience`` seconds without a heartbeat; 0 = never."""

    def __init__(self, clock: Clock, patience: float, missed: Callable[[], None]) -> None:
        self._clock = clock
        self._patience = patience
        self._missed = missed
        self._last = clock.monotonic()
        self._timer: Timer | None = None

    def start(self) -> None:
        self.beat()
        if self._patience:
            self._timer = self._clock.call_later(self._patience, self._check)

    def beat(self) -> None:
        self._last = self._clock.monotonic()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        left = self._last + self._patience - self._clock.monotonic()
        if left > 0:
            self._timer = self._clock.call_later(left, self._check)
        else:
            self._missed()


@dataclass(slots=True, eq=False)
class SimulatedClient:
    """One connection and its state. ``version``: the gateway version of the URL (docs/protocol.md#connection)."""

    connection: SimulatedConnection
    version: int
    may_compress: bool
    watch: HeartbeatWatch
    frames: SlidingLog
    presences: SlidingLog
    greeted: bool = False
    session: SimulatedSession | None = None
    last_session: SimulatedSession | None = None

    @property
    def shard(self) -> int | None:
        """The shard id once it is known, also after the session has been detached."""
        session = self.session or self.last_session
        return None if session is None else session.shard[0]
