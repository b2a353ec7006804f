"""The heartbeat alone: on time, and one beat per reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from discorder.clock import FakeClock, Timer
from discorder.logs import logger
from discorder.shard.heartbeat import Heartbeat
from discorder.tracking.shard_tracker import ShardTracker
from discorder.wire import Op
from tests.harness import Hasty, Line

INTERVAL = 10.0


class Early(FakeClock):
    """A clock whose timers fire a moment early, as on an event loop that counts in ticks."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return super().call_later(seconds - 0.001 if seconds > 0.01 else seconds, callback)


class Beating:
    """A running heartbeat on a connection whose Hello came at second 0."""

    def __init__(self) -> None:
        self.clock = Early()
        self.tracker = ShardTracker(0, 1, self.clock)
        self.line = Line()
        self.told: list[float] = []
        self.heartbeat = Heartbeat(
            self.line,
            tracker=self.tracker,
            clock=self.clock,
            rng=Hasty(),
            seq=lambda: 7,
            beating=lambda: self.told.append(self.clock.monotonic()),
            log_beats=lambda: False,
        )
        self.heartbeat.hello(INTERVAL)
        self.task = asyncio.ensure_future(self.heartbeat.run())


@pytest.fixture
async def beating() -> AsyncIterator[Beating]:
    """A heartbeat; it is stopped at the end of the test."""
    it = Beating()
    yield it
    it.task.cancel()
    await asyncio.gather(it.task, return_exceptions=True)


async def test_a_timer_that_fires_early_makes_no_second_beat(beating: Beating) -> None:
    """The heartbeat waits for the remaining time. Each beat is reported and counted."""
    await beating.clock.advance(36.0)
    assert beating.told == pytest.approx([5.0, 15.0, 25.0, 35.0], abs=1e-6)
    assert beating.line.ops(Op.HEARTBEAT) == [7] * 4
    assert beating.tracker.stats.heartbeat_sent_count == 4


async def test_what_is_asked_for_is_one_beat(beating: Beating) -> None:
    """Several requests before the write give one beat. The schedule does not change."""
    await beating.clock.advance(6.0)
    beating.heartbeat.ask()
    beating.heartbeat.probe()
    await beating.clock.advance(10.0)
    assert beating.told == pytest.approx([5.0, 6.0, 15.0], abs=1e-6)


async def test_a_beat_that_was_missed_is_not_made_up_for(beating: Beating) -> None:
    """After a host was suspended, the schedule goes on from the next interval."""
    beating.line.writes.clear()
    await beating.clock.advance(31.0)
    beating.line.writes.set()
    await beating.clock.advance(5.0)
    assert beating.told == pytest.approx([5.0, 31.0, 35.0], abs=1e-6)


async def test_before_hello_a_frame_and_a_probe_are_nothing(beating: Beating) -> None:
    """There is no pulse yet that could record them."""
    clock, tracker = beating.clock, ShardTracker(0, 1, beating.clock)
    silent = Heartbeat(
        Line(),
        tracker=tracker,
        clock=clock,
        rng=Hasty(),
        seq=lambda: None,
        beating=lambda: None,
        log_beats=lambda: False,
    )
    silent.frame()
    silent.acknowledged()
    silent.probe()
    silent.hello(INTERVAL)
    assert tracker.pulse is not None
    assert (tracker.pulse.probed_for(1.0), tracker.pulse.last_ack_at) == (None, None)


@pytest.mark.parametrize("log_beats", [False, True])
async def test_beats_are_in_the_log_only_if_that_was_asked_for(log_beats: bool) -> None:
    """`log.heartbeats` is off by default, because there are many."""
    clock, heard = FakeClock(), list[str]()
    heartbeat = Heartbeat(
        Line(),
        tracker=ShardTracker(0, 1, clock),
        clock=clock,
        rng=Hasty(),
        seq=lambda: 7,
        beating=lambda: None,
        log_beats=lambda: log_beats,
    )
    heartbeat.hello(INTERVAL)
    sink = logger.add(heard.append, level="DEBUG", format="{message}")
    task = asyncio.ensure_future(heartbeat.run())
    await clock.advance(6.0)
    logger.remove(sink)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [line.strip() for line in heard] == ["Sent heartbeat"] * log_beats
