"""Cases 14, 15 and 17: a host that sleeps, a wall clock that is set, and a day on which nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from discorder import diagnose, is_operational
from discorder.clock import FakeClock
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.tracker import GatewayTracker
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import StartStage

Start = Callable[..., Awaitable[Simulator]]
HOUR = 3_600.0


async def test_14_the_host_sleeps_for_10_min(
    case: Case, start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """The socket did not survive: one beat at once, no ACK within 5 s of it, RESUME at wake; nothing is lost."""
    sim = await start_simulator(session_ttl=900.0)
    stage = start_stage(sim)
    tracker = await stage.ready()
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    await sim.stall()
    await say(sim)
    beats = tracker.stats.heartbeat_sent_count
    clock.jump_wall(600.0)
    fault = Fault(case, sim, stage)
    await stage.until(lambda: tracker.stats.heartbeat_sent_count == beats + 1, within=2.0)
    await stage.until(lambda: not is_operational(tracker), within=6.0)
    cause = next(step.cause for step in reversed(tracker.transitions) if step.target is State.UNHEALTHY)
    assert "since the clocks jumped" in (cause or "")
    assert fault.until(State.UNHEALTHY) <= 1.0 + 5.0
    assert await fault.recovered(2) <= 1.0 + 5.0 + 1.0 + 1.0  # the next tick, the probe, the close, the back-off
    assert await fault.cost() == FREE
    assert sim.resumed == 1


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
async def test_15_the_wall_clock_jumps_by_an_hour(
    case: Case, sim: Simulator, start_stage: StartStage, clock: FakeClock, seconds: float
) -> None:
    """The probe is answered: one beat more, and no other effect."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    stage.stride = 1.0
    await stage.until(lambda: tracker.stats.heartbeat_received_count == 1, within=50.0)
    stage.stride = 0.05
    fault = Fault(case, sim, stage)
    clock.jump_wall(seconds)
    await stage.until(lambda: tracker.stats.heartbeat_received_count == 2, within=2.0)
    assert diagnose(tracker).ages.unanswered_probe is None
    await say(sim)
    stage.stride = 1.0
    for _ in range(120):
        await stage.pass_time()
        assert is_operational(tracker)
    assert await fault.cost() == FREE
    assert (tracker.generation, sim.connects) == (1, 1)
    assert tracker.stats.heartbeat_sent_count == 2 + 120 // 41
    assert sim.violations == []


@pytest.mark.parametrize("hours", [1, pytest.param(24, marks=pytest.mark.slow)])
async def test_17_a_quiet_guild_for_24_h(
    case: Case, start_simulator: Start, start_stage: StartStage, clock: FakeClock, hours: int
) -> None:
    """Nothing but ACKs: no restart, every beat sent and answered, healthy at each look."""
    sim = await start_simulator(guilds=0)
    stage = start_stage(sim)
    tracker = await stage.ready()
    fault = Fault(case, sim, stage)
    while clock.monotonic() < hours * HOUR:
        await clock.advance(60.0, settle=lambda: _answered(tracker))
        assert is_operational(tracker)
    assert tracker.stats.restart_count == 0
    assert tracker.stats.heartbeat_received_count >= hours * HOUR / 41.25 - 2
    assert sim.connects == 1
    assert await fault.cost() == FREE
    assert sim.violations == []
    case.note(note=f"{tracker.stats.heartbeat_received_count} beats in {hours} h")


async def _answered(tracker: GatewayTracker) -> None:
    """Return once every beat has its ACK; on loopback that takes a few turns of the loop."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stats = tracker.stats
    async with asyncio.timeout(60):
        while stats.heartbeat_received_count < stats.heartbeat_sent_count:
            await asyncio.sleep(0)
            stats = tracker.stats
