"""The timers of a state that the driver keeps itself; they are void as soon as the state is left."""

from __future__ import annotations

import random
from collections.abc import Callable

from discorder.clock import Clock, Timer
from discorder.errors import DeadlineMissed
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.terms import Deadline


class StateTimers:
    """Post what is due. One set per shard."""

    def __init__(self, clock: Clock, rng: random.Random, post: Callable[[trigger.Trigger], None]) -> None:
        self._clock = clock
        self._rng = rng
        self._post = post
        self._timers: list[Timer] = []

    def arm(self, deadline: Deadline, visit: int) -> None:
        """Post a timeout for ``visit`` unless the state is left in time."""
        missed = DeadlineMissed(f"{deadline.awaited} did not come within {deadline.seconds:g} s")
        self._later(deadline.seconds, trigger.Timeout(visit, missed))

    def schedule_restart(self, wanted: command.ScheduleRestart) -> float:
        """Post ``restart_due`` when the drawn pause is over; the seconds until then."""
        seconds = max(self._rng.uniform(window.low, window.high) for window in wanted.windows)
        if wanted.until is not None:
            seconds = max(seconds, (wanted.until - self._clock.now()).total_seconds())
        self._later(seconds, trigger.RestartDue())
        return seconds

    def cancel(self) -> None:
        """The state was left."""
        while self._timers:
            self._timers.pop().cancel()

    def _later(self, seconds: float, what: trigger.Trigger) -> None:
        self._timers.append(self._clock.call_later(seconds, lambda: self._post(what)))
