"""Check the clocks for jumps, and run other periodic work, once a second per control plane."""

from __future__ import annotations

from collections.abc import Callable

from discorder.clock import Clock
from discorder.logs import logger
from discorder.statemachine.clock_jump import ClockWatch

TICK_SECONDS = 1.0


class Ticker:
    """Call ``jumped`` after the host slept or a clock was set, and ``act`` at every tick."""

    def __init__(self, clock: Clock, *, jumped: Callable[[], None], act: Callable[[], None]) -> None:
        self._clock = clock
        self._jumped = jumped
        self._act = act

    async def run(self) -> None:
        """Tick until cancelled."""
        clock = self._clock
        watch = ClockWatch(TICK_SECONDS, clock.now(), clock.monotonic())
        while True:
            await clock.sleep(TICK_SECONDS)
            jump = watch.look(clock.now(), clock.monotonic())
            if jump is not None:
                logger.warning("The clocks jumped, every connected shard sends a heartbeat", jump=str(jump))
                self._jumped()
            self._act()
