"""Bring a control plane into each state. In Identifying and Resuming the gateway is silent until `heal`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from discorder.simulator import Simulator
from discorder.statemachine import State
from tests.harness import Stage, StartStage

Reach = Callable[[Simulator, StartStage], Awaitable[Stage]]


async def connected(stage: Stage) -> None:
    """Return once the upgrade has succeeded."""
    await stage.until(lambda: (websocket := stage.tracker.websocket) is not None and not websocket.closed)


async def before_hello(sim: Simulator, start: StartStage) -> Stage:
    await sim.withhold_hello()
    stage = start(sim)
    await stage.in_state(State.CONNECTING)
    await connected(stage)
    return stage


async def before_hello_with_a_session(sim: Simulator, start: StartStage) -> Stage:
    stage = await in_ready(sim, start)
    await sim.withhold_hello()
    await sim.drop()
    await stage.in_state(State.CONNECTING, generation=2)
    await connected(stage)
    return stage


async def in_identifying(sim: Simulator, start: StartStage) -> Stage:
    await sim.ignore_openings()
    stage = start(sim)
    await stage.in_state(State.IDENTIFYING)
    await stage.until(lambda: sim.identifies == 1)
    return stage


async def waiting_for_a_slot(sim: Simulator, start: StartStage) -> Stage:
    """In Identifying before IDENTIFY is sent: the one before is less than five seconds old."""
    stage = await in_ready(sim, start)
    await sim.close(4009)
    await stage.in_state(State.IDENTIFYING, generation=2)
    assert sim.identifies == 1
    return stage


async def in_resuming(sim: Simulator, start: StartStage) -> Stage:
    stage = await in_ready(sim, start)
    await sim.ignore_openings()
    await sim.drop()
    await stage.in_state(State.RESUMING, generation=2)
    await stage.until(lambda: sim.resumes == 1)
    return stage


async def in_ready(sim: Simulator, start: StartStage) -> Stage:
    stage = start(sim)
    await stage.ready()
    return stage


async def in_unhealthy(sim: Simulator, start: StartStage) -> Stage:
    """The peer does not answer the close that the doctor sends."""
    stage = await in_ready(sim, start)
    await sim.stall()
    stage.tracker.throw_to("processor", RuntimeError("simulated failure"))
    await stage.in_state(State.UNHEALTHY)
    return stage


async def in_back_off(sim: Simulator, start: StartStage) -> Stage:
    """Restarting, for five seconds."""
    stage = await in_ready(sim, start)
    await sim.close(4008)
    await stage.in_state(State.RESTARTING)
    return stage


async def parked(sim: Simulator, start: StartStage) -> Stage:
    """Restarting, for hours: the simulator has no IDENTIFY left to give."""
    stage = start(sim)
    await stage.in_state(State.RESTARTING)
    return stage


async def in_stopping(sim: Simulator, start: StartStage) -> Stage:
    """Asked to stop already, and the peer does not answer the close."""
    stage = await in_ready(sim, start)
    await sim.stall()
    stage.tracker.plane.stop(goodbye=False)
    await stage.in_state(State.STOPPING)
    return stage
