"""Run what belongs to the current state of a shard and ends when it is left: its timers, and the close of its socket.

The timers fire even if a task of the connection hangs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

from discorder.clock import Clock, Timer, within
from discorder.errors import DeadlineMissed
from discorder.logs import logger
from discorder.shard.transition_log import TransitionLog
from discorder.statemachine import commands as command
from discorder.statemachine import triggers as trigger
from discorder.statemachine.commands import CloseSocket
from discorder.statemachine.terms import Deadline
from discorder.transport.protocol import Transport
from discorder.wire import GOODBYE_CLOSE, RESUMABLE_CLOSE


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


class SocketCloser:
    """Close the sockets of one shard, one after the other."""

    def __init__(self, clock: Clock, transition_log: TransitionLog) -> None:
        self._clock = clock
        self._transition_log = transition_log
        self._closings: set[asyncio.Task[None]] = set()  # the current close, and closes that ignored their cancellation

    def close(self, transport: Transport, wanted: CloseSocket, closed: Callable[[], None]) -> None:
        """Begin to close ``transport``, and call ``closed`` in the end. A socket that cannot be closed in time is dropped."""
        closing = asyncio.get_running_loop().create_task(self._close(transport, wanted))
        self._closings.add(closing)
        closing.add_done_callback(lambda task: self._ended(task, transport, closed))

    def cancel(self) -> None:
        """Cancel the close, because the state was left; ``closed`` is not called."""
        for closing in self._closings:
            closing.cancel()

    async def finish(self) -> None:
        """Cancel what is under way and wait for its end."""
        self.cancel()
        await asyncio.gather(*self._closings, return_exceptions=True)

    async def _close(self, transport: Transport, wanted: CloseSocket) -> None:
        code = RESUMABLE_CLOSE if wanted.keeps_session else GOODBYE_CLOSE
        await within(self._clock, wanted.seconds, transport.close(code))

    def _ended(self, closing: asyncio.Task[None], transport: Transport, closed: Callable[[], None]) -> None:
        self._closings.discard(closing)
        if closing.cancelled():
            return
        error = closing.exception()
        if error is not None:
            transport.abort()
        if error is not None and not isinstance(error, TimeoutError):
            who = self._transition_log.who
            logger.warning("The socket could not be closed, so it was dropped", error=repr(error), **who)
        closed()
