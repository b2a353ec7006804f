"""Post a trigger when the deadline of the state has passed, or a heartbeat stays unanswered for too long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from discorder.clock import Clock
from discorder.errors import DeadlineMissed, ZombieConnection
from discorder.runtime.alarm import Alarm
from discorder.statemachine import RUNS, State
from discorder.statemachine import triggers as trigger
from discorder.statemachine.heartbeat import PROBE_SECONDS, Pulse
from discorder.statemachine.table import STABLE_AFTER
from discorder.statemachine.terms import Deadline, Task
from discorder.tracking.shard_tracker import ShardTracker

BEATING = frozenset(state for state in State if Task.HEARTBEAT in RUNS[state])


@dataclass(slots=True)
class Armed:
    """Hold a deadline, the ``visit`` for which it was armed, and the monotonic second ``at`` which."""

    deadline: Deadline
    visit: int
    at: float


class LivenessMonitor:
    """Watch one connection; the body of the task ``doctor``."""

    def __init__(
        self,
        *,
        tracker: ShardTracker,
        clock: Clock,
        post: Callable[[trigger.Trigger], None],
    ) -> None:
        self._tracker = tracker
        self._clock = clock
        self._post = post
        self._alarm = Alarm(clock)
        self._armed: Armed | None = None
        self._reported = False  # the trigger that ends this state was posted
        self._stable_posted = False
        self._sleeps_until = math.inf  # monotonic second

    # ---------------------------------------------------------------- called by the driver and the heartbeat

    def arm(self, deadline: Deadline, visit: int) -> None:
        """Post a timeout for ``visit`` unless the state is left in time.

        A new deadline replaces the previous one, even if that one has passed and its timeout still waits in the inbox.
        """
        self._armed = Armed(deadline, visit, self._clock.monotonic())
        self._reported = False
        self._alarm.ring()

    def state_entered(self) -> None:
        """Forget the deadline of the previous state."""
        self._entered_at = self._clock.monotonic()
        self._armed = None
        self._reported = False
        self._alarm.ring()

    def beating(self) -> None:
        """Note that a heartbeat is being written. Wake up only if its answer is due before the next check."""
        due = self._next_due()
        if due is not None and due < self._sleeps_until:
            self._alarm.ring()

    # ---------------------------------------------------------------- the coroutine

    async def run(self) -> None:
        """Sleep until a deadline can have passed, then check. Never return."""
        while True:
            due = self._next_due()
            self._sleeps_until = math.inf if due is None else due
            await self._alarm.sleep_until(due)
            self._examine()

    def _next_due(self) -> float | None:
        if self._reported:
            return None
        pulse = self._tracker.pulse
        moments = [self._deadline_at(), pulse.check_at() if self._beats() and pulse is not None else None]
        moments.append(self._stable_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def _examine(self) -> None:
        """Post what is overdue. Post a trigger that ends the state only once."""
        if self._reported:
            return
        now = self._clock.monotonic()
        pulse = self._tracker.pulse
        deadline_at = self._deadline_at()
        if self._beats() and pulse is not None and pulse.is_zombie(now):
            self._reported = True
            self._post(trigger.Zombie(_unanswered(pulse, now)))
        elif deadline_at is not None and now >= deadline_at and self._armed is not None:
            self._reported = True
            self._post(trigger.Timeout(self._armed.visit, DeadlineMissed(self._armed.deadline.missed)))
        stable_at = self._stable_at()
        if stable_at is not None and now >= stable_at:
            self._stable_posted = True
            self._post(trigger.Stable())

    def _beats(self) -> bool:
        return self._tracker.state in BEATING

    def _stable_at(self) -> float | None:
        after = STABLE_AFTER.get(self._tracker.state)
        return None if after is None or self._stable_posted else self._entered_at + after

    def _deadline_at(self) -> float | None:
        """Return when the deadline of the state passes if nothing comes until then."""
        if self._armed is None:
            return None
        return self._armed.deadline.passes_at(self._armed.at, self._tracker.read_last_dispatch_at())


def _unanswered(pulse: Pulse, now: float) -> ZombieConnection:
    probed, waited = pulse.probed_for(now), pulse.unanswered_for(now) or 0.0
    if probed is not None and probed >= PROBE_SECONDS:
        return ZombieConnection(f"no ACK within {probed:.1f} s since the clocks jumped")
    return ZombieConnection(f"no ACK for a heartbeat sent {waited:.1f} s ago")
