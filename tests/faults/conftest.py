"""Fixtures of the fault cases: a simulator and a control plane on one clock, with Discord's limits enforced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.simulator import Simulator
from tests.faults.spool import spools
from tests.harness import Stage, StartStage, Unlucky

__all__ = ["spools"]


@pytest.fixture
def clock() -> FakeClock:
    """Return the clock of the case."""
    return FakeClock()


@pytest.fixture
async def start_simulator(clock: FakeClock) -> AsyncIterator[Callable[..., Awaitable[Simulator]]]:
    """Start simulators on the case's clock: 5 s between IDENTIFYs, 120 frames a minute, sessions that expire."""
    running: list[Simulator] = []

    async def start(**options: Any) -> Simulator:
        sim = Simulator(clock=options.pop("clock", clock), **{"guilds": 2, **options})
        await sim.start()
        running.append(sim)
        return sim

    yield start
    for sim in running:
        await sim.stop()


@pytest.fixture
async def sim(start_simulator: Callable[..., Awaitable[Simulator]]) -> Simulator:
    """A simulator with two guilds that stay quiet until a case dispatches something."""
    return await start_simulator()


@pytest.fixture
def start_stage(start_stage: StartStage, clock: FakeClock) -> StartStage:
    """Connect a control plane to a simulator, on the case's clock; every random wait is the longest."""

    def start(sim: Simulator, *settings: str, **around: Any) -> Stage:
        return start_stage(sim, *settings, **{"clock": clock, "rng": Unlucky(), **around})

    return start
