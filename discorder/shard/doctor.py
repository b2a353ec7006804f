"""The doctor of one connection: keeps the state's deadline and the age of the unanswered beat, and closes the socket at the end.

It reports what became true and decides nothing: what a missed deadline or a zombie leads to stands in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from discorder.clock import Clock, within
from discorder.errors import DeadlineMissed, ZombieConnection
from discorder.runtime.alarm import Alarm
from discorder.statemachine import State
from discorder.statemachine import triggers as trigger
from discorder.statemachine.close_codes import RESUMABLE_CLOSE
from discorder.statemachine.heartbeat import PROBE_SECONDS, Pulse
from discorder.statemachine.table import STABLE_SECONDS
from discorder.statemachine.terms import Deadline, Task
from discorder.tracking.shard_tracker import ShardTracker
from discorder.transport.protocol import Transport

CLOSE_SECONDS = 1.0  # for the closing handshake; a peer that is silent gets no more of our time
BEATING = frozenset(state for state in State if Task.HEARTBEAT in state.runs)


@dataclass(slots=True)
class Armed:
    """A deadline that the doctor watches, at monotonic second ``due``, for the ``visit`` it was armed for."""

    deadline: Deadline
    visit: int
    due: float


class Doctor:
    """Watches one connection, sleeping until the next moment at which something could become true."""

    def __init__(
        self,
        transport: Transport,
        *,
        tracker: ShardTracker,
        clock: Clock,
        post: Callable[[trigger.Trigger], None],
    ) -> None:
        self._transport = transport
        self._tracker = tracker
        self._clock = clock
        self._post = post
        self._alarm = Alarm(clock)
        self._armed: Armed | None = None
        self._reported = False  # what ends this state has been posted
        self._stable_posted = False

    # ---------------------------------------------------------------- told by the driver and the heartbeat

    def arm(self, deadline: Deadline, visit: int) -> None:
        """Post a timeout for ``visit`` unless the state is left in time.

        A deadline that replaces one is kept even if the one before had passed already, its timeout overtaken in the inbox.
        """
        self._armed = Armed(deadline, visit, self._clock.monotonic() + deadline.seconds)
        self._reported = False
        self._alarm.ring()

    def state_entered(self) -> None:
        """The state changed: its old deadline is void."""
        self._entered_at = self._clock.monotonic()
        self._armed = None
        self._reported = False
        self._alarm.ring()

    def beating(self) -> None:
        """A beat is being written: its answer is awaited from now on."""
        self._alarm.ring()

    # ---------------------------------------------------------------- the coroutine

    async def run(self) -> None:
        """Keeps the state's deadline and the ACK age; in Unhealthy closes the socket and asks for the verdict."""
        while self._tracker.state is not State.UNHEALTHY:
            await self._alarm.sleep_until(self._next_due())
            self._examine()
        await self._close_socket()
        self._post(trigger.Diagnosed())

    def _next_due(self) -> float | None:
        if self._reported:
            return None
        pulse = self._tracker.pulse
        moments = [self._deadline_at(), pulse.zombie_at() if self._beats() and pulse is not None else None]
        if self._tracker.state is State.READY and not self._stable_posted:
            moments.append(self._stable_at())
        return min((moment for moment in moments if moment is not None), default=None)

    def _examine(self) -> None:
        """Post what became true; what ends the state once only, since the state changes before the next look."""
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
            self._post(trigger.Timeout(self._armed.visit, _missed(self._armed.deadline)))
        if self._tracker.state is State.READY and not self._stable_posted and now >= self._stable_at():
            self._stable_posted = True
            self._post(trigger.Stable())

    def _beats(self) -> bool:
        return self._tracker.state in BEATING

    def _stable_at(self) -> float:
        return self._entered_at + STABLE_SECONDS

    def _deadline_at(self) -> float | None:
        """The deadline of the state; during a replay every event moves it."""
        if self._armed is None:
            return None
        dispatch_at = self._tracker.read_last_dispatch_at()
        if self._tracker.state is State.RESUMING and dispatch_at is not None:
            return max(self._armed.due, dispatch_at + self._armed.deadline.seconds)
        return self._armed.due

    async def _close_socket(self) -> None:
        if not self._transport.closed:
            try:
                await within(self._clock, CLOSE_SECONDS, self._transport.close(RESUMABLE_CLOSE))
            except TimeoutError:
                self._transport.abort()


def _unanswered(pulse: Pulse, now: float) -> ZombieConnection:
    probed, waited = pulse.probed_for(now), pulse.unanswered_for(now) or 0.0
    if probed is not None and probed >= PROBE_SECONDS:
        return ZombieConnection(f"no ACK within {probed:.1f} s since the clocks jumped")
    return ZombieConnection(f"no ACK for a heartbeat sent {waited:.1f} s ago")


def _missed(deadline: Deadline) -> DeadlineMissed:
    return DeadlineMissed(f"{deadline.awaited} did not come within {deadline.seconds:g} s")
