"""Shutdown in each of the nine states, on real sockets and the real clock: under a second, the session kept, nothing left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from discorder import diagnose, shutdown
from discorder.clock import SystemClock
from discorder.simulator import Simulator
from discorder.statemachine import State

if TYPE_CHECKING:
    from tests.stage import Exchange, Stage, StartStage

Reach = Callable[[Simulator, "StartStage"], Awaitable["Stage"]]


class Usage:
    """File descriptors, threads and tasks that are in use."""

    def __init__(self) -> None:
        self._before = self._now()

    async def is_back(self) -> None:
        """Return once as much is in use as at the beginning. Fails when that does not happen within half a second."""
        for _ in range(100):
            if self._now() == self._before:
                return
            await asyncio.sleep(0.005)
        pytest.fail(f"{self._before} before, {self._now()} after")

    @staticmethod
    def _now() -> tuple[int, list[str], set[str]]:
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        return len(list(Path("/proc/self/fd").iterdir())), [thread.name for thread in threading.enumerate()], tasks


@pytest.fixture
async def silent_host() -> AsyncIterator[str]:
    """host:port of a server that accepts connections and never says a word."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()
    await server.wait_closed()


async def silence_after_hello(sim: Simulator) -> None:
    """Say Hello on the connection that waits for it, and nothing more."""
    await sim.heal()
    await sim.stall()


async def in_connecting(sim: Simulator, start: StartStage) -> Stage:
    await sim.withhold_hello()
    stage = start(sim, clock=SystemClock())
    await stage.in_state(State.CONNECTING)
    await stage.until(lambda: (websocket := stage.tracker.websocket) is not None and not websocket.closed)
    return stage


async def in_identifying(sim: Simulator, start: StartStage) -> Stage:
    stage = await in_connecting(sim, start)
    await silence_after_hello(sim)
    await stage.in_state(State.IDENTIFYING)
    await stage.until(lambda: stage.tracker.stats.identify_count == 1)
    return stage


async def in_resuming(sim: Simulator, start: StartStage) -> Stage:
    stage = await in_ready(sim, start)
    await sim.withhold_hello()
    await sim.close(4000)
    await sim.wait_for(lambda: sim.connects == 2)
    await silence_after_hello(sim)
    await stage.in_state(State.RESUMING)
    return stage


async def in_ready(sim: Simulator, start: StartStage) -> Stage:
    stage = start(sim, clock=SystemClock())
    await stage.ready()
    return stage


async def in_unhealthy(sim: Simulator, start: StartStage) -> Stage:
    """The peer does not answer the close that the doctor sends."""
    stage = await in_ready(sim, start)
    await sim.stall()
    stage.tracker.throw_to("processor", RuntimeError("simulated failure"))
    await stage.in_state(State.UNHEALTHY)
    return stage


async def in_restarting(sim: Simulator, start: StartStage) -> Stage:
    stage = await in_ready(sim, start)
    await sim.close(4008)  # five seconds of pause
    await stage.in_state(State.RESTARTING)
    return stage


async def in_stopping(sim: Simulator, start: StartStage) -> Stage:
    """Asked to stop already, and the peer does not answer the close."""
    stage = await in_ready(sim, start)
    await sim.stall()
    stage.tracker.plane.stop(goodbye=False)
    await stage.in_state(State.STOPPING)
    return stage


CONNECTED: list[Reach] = [in_connecting, in_identifying, in_resuming, in_ready, in_unhealthy, in_stopping]


@pytest.mark.parametrize("reach", [*CONNECTED, in_restarting])
async def test_shutdown_keeps_the_session_and_leaves_nothing_behind(
    sim: Simulator, start_stage: StartStage, reach: Reach
) -> None:
    """Exited in under a second, closed with 4000 and never with 1000 or 1001; descriptors, threads, tasks as before."""
    usage = Usage()
    stage = await reach(sim, start_stage)
    began = time.monotonic()
    await shutdown(stage.tracker)
    await stage.task
    assert time.monotonic() - began < 1.0
    assert stage.tracker.state is State.EXITED
    await sim.heal()
    await sim.wait_for(lambda: len(sim.closes) == sim.connects)
    ours = [close.code for close in sim.closes if close.by == "client"]
    assert ours == ([] if reach is in_restarting else [4000])
    assert len(sim.sessions) == (0 if reach is in_connecting else 1)
    await usage.is_back()


@pytest.mark.parametrize("reach", [in_identifying, in_resuming, in_ready])
async def test_goodbye_ends_the_session(sim: Simulator, start_stage: StartStage, reach: Reach) -> None:
    """Closed with 1000, and Discord's session is gone."""
    stage = await reach(sim, start_stage)
    began = time.monotonic()
    await shutdown(stage.tracker, goodbye=True)
    assert time.monotonic() - began < 1.0
    await sim.heal()
    await sim.wait_for(lambda: len(sim.closes) == sim.connects)
    assert [close.code for close in sim.closes if close.by == "client"] == [1000]
    assert sim.sessions == []
    assert stage.tracker.session is None


async def test_shutdown_before_the_look_up_has_answered(
    sim: Simulator, start_stage: StartStage, silent_host: str
) -> None:
    """The state is Disconnected and `diagnose` says why; nothing was dialled when the plane ends."""
    usage = Usage()
    stage = start_stage(sim, f"gateway.api=http://{silent_host}/api/v10", clock=SystemClock())
    await stage.in_state(State.DISCONNECTED)
    verdict = diagnose(stage.tracker)
    assert not verdict.healthy
    assert "looking up the gateway" in verdict.reasons[0]
    began = time.monotonic()
    await shutdown(stage.tracker)
    await stage.task
    assert time.monotonic() - began < 1.0
    assert stage.tracker.generation == 0
    await usage.is_back()


async def test_shutdown_while_the_upgrade_hangs(
    sim: Simulator, start_stage: StartStage, exchange: Exchange, silent_host: str
) -> None:
    """A host that accepts the connection and never answers the upgrade holds up nobody."""
    usage = Usage()
    exchange.url = f"ws://{silent_host}"
    stage = start_stage(sim, clock=SystemClock(), look_up=exchange.look_up)
    await stage.in_state(State.CONNECTING)
    await asyncio.sleep(0.02)  # the dial is under way
    began = time.monotonic()
    await shutdown(stage.tracker)
    await stage.task
    assert time.monotonic() - began < 1.0
    assert stage.tracker.state is State.EXITED
    await usage.is_back()


async def test_shutdown_of_a_plane_that_has_ended_returns_at_once(sim: Simulator, start_stage: StartStage) -> None:
    """Exited is final."""
    stage = await in_ready(sim, start_stage)
    await shutdown(stage.tracker)
    await stage.task
    await shutdown(stage.tracker, goodbye=True)
    assert stage.tracker.state is State.EXITED
    assert len(sim.sessions) == 1


async def test_a_stop_at_the_moment_the_tracker_is_there_dials_nothing(sim: Simulator, start_stage: StartStage) -> None:
    """Before the first dial, before the look-up even."""
    stage = start_stage(sim, clock=SystemClock())
    stage.ref.on_fill = lambda tracker: tracker.plane.stop(goodbye=False)
    await stage.task
    assert sim.connects == 0
    assert stage.tracker.terminate_flag


async def test_cancelling_serve_is_a_graceful_shutdown(sim: Simulator, start_stage: StartStage) -> None:
    """Closed with 4000, publishers drained, then CancelledError."""
    stage = await in_ready(sim, start_stage)
    stage.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.task
    assert stage.tracker.state is State.EXITED
    assert [close.code for close in sim.closes] == [4000]
    assert len(sim.sessions) == 1
