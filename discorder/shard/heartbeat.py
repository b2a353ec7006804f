"""Write the heartbeats of one connection and note when they were sent.

`liveness` detects a missing answer, by the rule in `statemachine/heartbeat.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from discorder.clock import Clock
from discorder.logs import logger
from discorder.runtime.alarm import Alarm
from discorder.statemachine.heartbeat import Pulse
from discorder.tracking.shard_tracker import ShardTracker
from discorder.transport.protocol import Transport
from discorder.wire import heartbeat_frame


class Heartbeat:
    """Write the heartbeats of one connection. ``seq`` returns the last sequence received; ``beating`` is called for each beat.

    ``log_beats`` returns whether a beat is logged.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        tracker: ShardTracker,
        clock: Clock,
        rng: random.Random,
        seq: Callable[[], int | None],
        beating: Callable[[], None],
        log_beats: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._tracker = tracker
        self._clock = clock
        self._rng = rng
        self._seq = seq
        self._beating = beating
        self._log_beats = log_beats
        self._alarm = Alarm(clock)
        self._pulse: Pulse | None = None
        self._asked = False

    # ---------------------------------------------------------------- called for received frames

    def hello(self, interval: float) -> None:
        """Start beating every ``interval`` seconds, as Hello requests."""
        self._pulse = self._tracker.pulse = Pulse(interval, self._clock.monotonic())

    def frame(self) -> None:
        """Note that a frame of any kind was received."""
        if self._pulse is not None:
            self._pulse.frame(self._clock.monotonic())

    def acknowledged(self) -> None:
        """Note that op 11, the ACK, was received."""
        if self._pulse is None:
            return
        now = self._clock.monotonic()
        latency = self._pulse.unanswered_for(now)
        if latency is not None:
            self._tracker.stats.heartbeat_latency.add(latency)
        self._pulse.acknowledged(now)

    def ask(self) -> None:
        """Send a heartbeat at once, as op 1 requests."""
        self._asked = True
        self._alarm.ring()

    def probe(self) -> None:
        """Send a heartbeat at once after a clock jump, and expect its answer soon."""
        if self._pulse is not None:
            self._pulse.probe(self._clock.monotonic())
            self.ask()

    # ---------------------------------------------------------------- the coroutine

    async def run(self) -> None:
        """Beat first after interval x jitter, then once per interval; answer op 1 at once, outside the schedule."""
        pulse = self._pulse
        assert pulse is not None  # noqa: S101  # it runs only in the states after Hello
        due = self._clock.monotonic() + pulse.interval * self._rng.random()
        while True:
            await self._alarm.sleep_until(due)
            now = self._clock.monotonic()
            if self._asked or now >= due:
                self._asked = False
                await self._beat(pulse)
            if due <= now:  # after a pause of the host, do not send the missed beats
                due += pulse.interval * ((now - due) // pulse.interval + 1)

    async def _beat(self, pulse: Pulse) -> None:
        pulse.sent(self._clock.monotonic())
        self._beating()
        seq = self._seq()
        await self._transport.send(heartbeat_frame(seq))
        self._tracker.stats.heartbeat_sent_count += 1
        if self._log_beats():
            logger.debug("Sent heartbeat", seq=seq, shard=self._tracker.shard_id)
