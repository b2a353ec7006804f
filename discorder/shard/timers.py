"""Run the timers of the current state that must fire even if a task of the connection hangs."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from discorder.clock import Clock, Timer
from discorder.errors import DeadlineMissed
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.terms import Deadline


class StateTimers:
    """Post a trigger when a deadline or a back-off of one shard is over."""

    def __init__(self, clock: Clock, rng: random.Random, post: Callable[[trigger.Trigger], None]) -> None:
        self._clock = clock
        self._rng = rng
        self._post = post
        self._timers: list[Timer] = []
        self._not_before = clock.monotonic()  # of the last restart: the end of the wait that is not shortened

    def arm(self, deadline: Deadline, visit: int) -> None:
        """Post a timeout for ``visit`` unless the state is left in time."""
        self._later(deadline.seconds, trigger.Timeout(visit, DeadlineMissed(deadline.missed)))

    def schedule_restart(self, wanted: command.ScheduleRestart) -> float:
        """Post ``restart_due`` when the random pause is over. Return the seconds until then."""
        drawn = [self._rng.uniform(window.low, window.high) for window in wanted.windows]
        self._not_before = self._clock.monotonic() + drawn[-1]
        return self._post_due_in(max(drawn), wanted.until)

    def wake_restart(self, wanted: command.WakeRestart) -> float:
        """Replace the timer of the restart: post ``restart_due`` as soon as it is allowed. Return the seconds until then."""
        self.cancel()
        return self._post_due_in(max(0.0, self._not_before - self._clock.monotonic()), wanted.until)

    def _post_due_in(self, seconds: float, until: datetime | None) -> float:
        if until is not None:
            seconds = max(seconds, (until - self._clock.now()).total_seconds())
        self._later(seconds, trigger.RestartDue())
        return seconds

    def cancel(self) -> None:
        """Cancel all timers, because the state was left."""
        while self._timers:
            self._timers.pop().cancel()

    def _later(self, seconds: float, what: trigger.Trigger) -> None:
        self._timers.append(self._clock.call_later(seconds, lambda: self._post(what)))
