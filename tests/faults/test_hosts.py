"""Cases 1 to 3: a host that refuses, a host that is silent, and a socket that is half open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from discorder import diagnose
from discorder.simulator import Simulator
from discorder.statemachine import State
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import StartStage

Start = Callable[..., Awaitable[Simulator]]
INTERVAL = 41.25


async def test_01_resume_host_answers_503_for_15_min_main_host_fine(
    case: Case, sim: Simulator, start_stage: StartStage
) -> None:
    """Four interruptions within the quarter of an hour: each time back within 15 s, on the main host, with the same session."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    session = tracker.session_label
    await sim.refuse_upgrades(503, "resume")
    stage.stride = 1.0
    outage = Fault(case, sim, stage)
    for _ in range(4):
        await say(sim)
        fault = Fault(case, sim, stage)
        refused = sim.refused_upgrades
        await sim.drop()
        await say(sim)
        await stage.until(lambda: tracker.state is not State.READY)
        assert await fault.recovered(within=15.0) <= 15.0
        assert sim.refused_upgrades == refused + 1
        await stage.spend(225.0)  # stable for longer than 120 s: the resume host is tried first again
    assert tracker.state is State.READY
    assert await outage.cost() == FREE
    assert (sim.resumed, tracker.session_label) == (4, session)
    assert sim.violations == []


@pytest.mark.parametrize("host", ["main", "resume"])
async def test_02_upgrade_succeeds_but_no_hello(case: Case, sim: Simulator, start_stage: StartStage, host: str) -> None:
    """Given up after 15 s at the latest, by the first connection and by one that would resume; the next one succeeds."""
    stage = start_stage(sim)
    generation = 1
    if host == "resume":
        await stage.ready()
        generation = 2
    await sim.withhold_hello()
    await sim.drop()
    await stage.in_state(State.CONNECTING, generation=generation)
    fault = Fault(case, sim, stage)
    await stage.until(lambda: stage.tracker.state is not State.CONNECTING, within=20.0)
    given_up = fault.until(State.UNHEALTHY)
    case.note(recovery=given_up)
    assert given_up <= 15.0
    assert "did not come within 15 s" in (stage.tracker.shards[0].cause or "")
    await sim.heal()
    await say(sim)
    await stage.ready(generation=generation + 1)
    assert await fault.cost() == (1 if host == "main" else 0, 0, 0)
    assert (sim.identifies, sim.resumed) == (1, generation - 1)


@pytest.mark.parametrize("guild", ["quiet", "busy"])
@pytest.mark.parametrize("how", ["half open", "acks swallowed"])
@pytest.mark.parametrize("moment", [0.02, 0.5, 0.98])
async def test_03_half_open_socket_after_ready(
    case: Case, start_simulator: Start, start_stage: StartStage, how: str, moment: float, guild: str
) -> None:
    """Unhealthy within 1.5 intervals of the last frame, at whatever moment of the interval it came; then resumed.

    Where only the ACKs stay away, the time counts from the first that did.
    """
    sim = await start_simulator()
    stage = start_stage(sim)
    tracker = await stage.ready()
    stage.stride = 1.0
    await stage.until(lambda: tracker.stats.heartbeat_received_count == 2, within=3 * INTERVAL)
    await stage.spend(INTERVAL * moment)
    if guild == "busy":
        await say(sim)
        await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    quiet_for = tracker.ages.last_frame or 0.0
    await (sim.stall() if how == "half open" else sim.swallow_acks())
    fault = Fault(case, sim, stage)
    await stage.until(lambda: tracker.state is not State.READY, within=3 * INTERVAL)
    intervals = (quiet_for + fault.until(State.UNHEALTHY)) / INTERVAL
    case.note(note="Unhealthy within 1.5 intervals of the last frame")
    assert intervals <= 1.501
    assert "no ACK for a heartbeat" in diagnose(tracker).reasons[0]
    await say(sim)
    await sim.heal()
    await fault.recovered(2, within=15.0)
    assert await fault.cost() == FREE
    assert (sim.resumes, sim.resumed) == (1, 1)
    assert not any(close.by == "client" and close.code in {1000, 1001} for close in sim.closes)
