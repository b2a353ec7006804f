"""The heartbeat of one connection: when a beat is written, and what is noted about it.

Whether a missing answer means death is the doctor's to find (`doctor.py`); the rule is the core's (`statemachine/heartbeat.py`).
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
    """Writes the beats of one connection. ``seq`` gives the last sequence received; ``beating`` hears of each beat."""

    def __init__(
        self,
        transport: Transport,
        *,
        tracker: ShardTracker,
        clock: Clock,
        rng: random.Random,
        seq: Callable[[], int | None],
        beating: Callable[[], None],
        log_beats: bool,
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

    # ---------------------------------------------------------------- told by the wire

    def hello(self, interval: float) -> None:
        """Hello came, and asks for a beat every ``interval`` seconds."""
        self._pulse = self._tracker.pulse = Pulse(interval, self._clock.monotonic())

    def frame(self) -> None:
        """A frame of any kind came."""
        if self._pulse is not None:
            self._pulse.frame(self._clock.monotonic())

    def acknowledged(self) -> None:
        """Op 11 came."""
        if self._pulse is not None:
            self._pulse.acknowledged(self._clock.monotonic())

    def ask(self) -> None:
        """Op 1 came: beat at once."""
        self._asked = True
        self._alarm.ring()

    def probe(self) -> None:
        """The clocks jumped: beat at once, and want the answer soon."""
        if self._pulse is not None:
            self._pulse.probe(self._clock.monotonic())
            self.ask()

    # ---------------------------------------------------------------- the coroutine

    async def run(self) -> None:
        """First beat after interval x jitter, then one every interval; op 1 is answered at once, off the schedule."""
        pulse = self._pulse
        assert pulse is not None  # noqa: S101  # it runs in the states behind Hello
        due = self._clock.monotonic() + pulse.interval * self._rng.random()
        while True:
            await self._alarm.sleep_until(due)
            now = self._clock.monotonic()
            if self._asked or now >= due:
                self._asked = False
                await self._beat(pulse)
            while due <= now:  # after a pause of the host, do not make up for what was missed
                due += pulse.interval

    async def _beat(self, pulse: Pulse) -> None:
        pulse.sent(self._clock.monotonic())
        self._beating()
        seq = self._seq()
        await self._transport.send(heartbeat_frame(seq))
        self._tracker.stats.heartbeat_sent_count += 1
        if self._log_beats:
            logger.debug("Sent heartbeat", seq=seq, shard=self._tracker.shard_id)
