"""Case 16: shutdown in each state, on the real clock: under a second, the session kept, nothing left. Publishers may hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from discorder import diagnose, shutdown
from discorder.clock import SystemClock
from discorder.sessions import bot_key, read_store
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Event, session_label
from tests.faults import places
from tests.faults.places import Reach
from tests.faults.table import Case
from tests.harness import Exchange, Hasty, Stage, StartStage
from tests.stopwatch import Stopwatch

Start = Callable[..., Awaitable[Simulator]]


PLACES: dict[str, Reach] = {
    "Connecting": places.before_hello,
    "Connecting, with a session": places.before_hello_with_a_session,
    "Identifying": places.in_identifying,
    "Identifying, without a slot": places.waiting_for_a_slot,
    "Resuming": places.in_resuming,
    "Ready": places.in_ready,
    "Unhealthy": places.in_unhealthy,
    "Restarting": places.in_back_off,
    "Restarting, parked": places.parked,
    "Stopping": places.in_stopping,
}
WITHOUT_A_SOCKET = {places.in_back_off, places.parked}
WITHOUT_A_SESSION = {places.before_hello, places.in_identifying, places.waiting_for_a_slot, places.parked}


@pytest.fixture
def start_for_real(start_stage: StartStage) -> StartStage:
    """Puts a plane before a simulator, on the real clock."""

    def start(sim: Simulator, *settings: str, **around: Any) -> Stage:
        return start_stage(sim, *settings, **{"clock": SystemClock(), "rng": Hasty(), **around})

    return start


@pytest.fixture
async def start_sim(start_simulator: Start) -> Callable[..., Awaitable[Simulator]]:
    """Starts the simulator of a way into a state."""

    async def start(reach: Reach, **options: Any) -> Simulator:
        remaining = 0 if reach is places.parked else None
        return await start_simulator(session_start_remaining=remaining, **options)

    return start


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
    """Return host:port of a server that accepts connections and sends nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("reach", PLACES.values(), ids=PLACES.keys())
async def test_16_shutdown_in_every_state_leaves_nothing_behind(
    case: Case, start_sim: Start, start_for_real: StartStage, reach: Reach
) -> None:
    """Exited in under a second, closed with 4000 and never with 1000 or 1001; descriptors, threads, tasks as before."""
    sim = await start_sim(reach, clock=SystemClock(), identify_spacing=0.0)
    usage = Usage()
    stage = await reach(sim, start_for_real)
    sessions, identifies = list(sim.sessions), sim.identifies
    watch = Stopwatch()
    await shutdown(stage.tracker)
    await stage.task
    took = watch.seconds
    case.note(recovery=took, identifies=sim.identifies - identifies)
    assert sim.identifies == identifies
    assert took < 1.0
    assert stage.tracker.state is State.EXITED
    await sim.heal()
    await sim.wait_for(lambda: len(sim.closes) == sim.connects)
    assert not {close.code for close in sim.closes if close.by == "client"} & {1000, 1001}
    assert ("client", 4000) in {(close.by, close.code) for close in sim.closes} or reach in WITHOUT_A_SOCKET
    assert list(sim.sessions) == sessions
    assert bool(sessions) != (reach in WITHOUT_A_SESSION)
    await usage.is_back()


class Hung:
    """A publisher that never comes back from `publish`; an obstinate one ignores its cancellation and does not close either."""

    def __init__(self, *, durable: bool = False, obstinate: bool = False) -> None:
        self.name = "hung"
        self.durable = durable
        self._obstinate = obstinate
        self._released = asyncio.Event()

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        await self._hang()

    async def close(self) -> None:
        if self._obstinate:
            await self._hang()

    async def _hang(self) -> None:
        while not self._released.is_set():
            try:
                await self._released.wait()
            except asyncio.CancelledError:
                if not self._obstinate:
                    raise

    def release(self) -> None:
        self._released.set()


@pytest.fixture(
    params=[{}, {"durable": True}, {"obstinate": True}], ids=["hung best effort", "hung required", "hung obstinate"]
)
async def hung(request: pytest.FixtureRequest) -> AsyncIterator[Hung]:
    """Released when all is over: nobody else could end an obstinate one."""
    made = Hung(**request.param)
    yield made
    made.release()


@pytest.mark.parametrize("reach", PLACES.values(), ids=PLACES.keys())
async def test_16_shutdown_in_every_state_with_hung_publishers(
    case: Case, start_sim: Start, start_stage: StartStage, reach: Reach, hung: Hung
) -> None:
    """Exited in under a second of the clock; `serve` gives what hangs the drain's half second, and little more to close."""

    def start(sim: Simulator, *settings: str, **around: Any) -> Stage:
        stage = start_stage(sim, *settings, **around)
        stage.ref.on_fill = lambda tracker: tracker.add_publisher(hung, required=hung.durable)
        return stage

    sim = await start_sim(reach)
    stage = await reach(sim, start)
    sessions, identifies = list(sim.sessions), sim.identifies
    began = stage.clock.monotonic()
    ending = asyncio.ensure_future(shutdown(stage.tracker))
    await stage.until(lambda: stage.tracker.state is State.EXITED, while_running=False)
    case.note(recovery=stage.clock.monotonic() - began, identifies=sim.identifies - identifies)
    assert sim.identifies == identifies
    assert stage.clock.monotonic() - began < 1.0
    await stage.until(ending.done, while_running=False)
    assert stage.clock.monotonic() - began < 1.3
    assert list(sim.sessions) == sessions


@pytest.mark.parametrize("reach", [places.in_identifying, places.in_resuming, places.in_ready])
async def test_16_goodbye_ends_the_session(
    case: Case, sim: Simulator, start_for_real: StartStage, reach: Reach
) -> None:
    """Closed with 1000, and nothing is left to resume."""
    stage = await reach(sim, start_for_real)
    watch = Stopwatch()
    await shutdown(stage.tracker, goodbye=True)
    assert watch.seconds < 1.0
    await sim.wait_for(lambda: len(sim.closes) == sim.connects)
    assert [close.code for close in sim.closes if close.by == "client"] == [1000]
    assert stage.tracker.session is None
    if reach is places.in_ready:
        assert sim.sessions == []


@pytest.mark.parametrize("goodbye", [False, True], ids=["handing over", "goodbye"])
@pytest.mark.parametrize("reach", PLACES.values(), ids=PLACES.keys())
async def test_16_handing_over_keeps_the_stored_session_and_a_goodbye_removes_it(
    case: Case, start_sim: Start, start_stage: StartStage, tmp_path: Path, reach: Reach, goodbye: bool
) -> None:
    """In every state. A stop that was requested already stays as it was; a close under way cannot be withdrawn."""

    def start(sim: Simulator, *settings: str, **around: Any) -> Stage:
        return start_stage(sim, f"session.store={tmp_path / 'sessions.sqlite3'}", *settings, **around)

    sim = await start_sim(reach)
    stage = await reach(sim, start)
    held, too_late = stage.tracker.session_label, reach in {places.in_unhealthy, places.in_stopping}
    await stage.stop(goodbye=goodbye)
    stored = read_store(tmp_path / "sessions.sqlite3", bot_key(sim.token)).sessions
    keeps = held is not None and (not goodbye or reach is places.in_stopping)
    assert [session_label(session.session_id) for session in stored] == ([held] if keeps else [])
    await sim.heal()
    await sim.wait_for(lambda: len(sim.closes) == sim.connects)
    ended = [close.code for close in sim.closes if close.by == "client" and close.code in {1000, 1001}]
    assert ended == ([1000] if goodbye and not too_late and reach not in WITHOUT_A_SOCKET else [])


async def test_16_shutdown_before_the_look_up_has_answered(
    sim: Simulator, start_for_real: StartStage, silent_host: str
) -> None:
    """The state is Disconnected and `diagnose` says why; nothing was dialled when the plane ends."""
    usage = Usage()
    stage = start_for_real(sim, f"gateway.api=http://{silent_host}/api/v10")
    await stage.in_state(State.DISCONNECTED)
    verdict = diagnose(stage.tracker)
    assert not verdict.healthy
    assert "looking up the gateway" in verdict.reasons[0]
    watch = Stopwatch()
    await shutdown(stage.tracker)
    await stage.task
    assert watch.seconds < 1.0
    assert stage.tracker.generation == 0
    await usage.is_back()


async def test_16_shutdown_while_the_upgrade_hangs(
    sim: Simulator, start_for_real: StartStage, exchange: Exchange, silent_host: str
) -> None:
    """A host that accepts the connection and never answers the upgrade delays nothing."""
    usage = Usage()
    exchange.url = f"ws://{silent_host}"
    stage = start_for_real(sim, look_up=exchange.look_up)
    await stage.in_state(State.CONNECTING)
    await asyncio.sleep(0.02)  # the dial is under way
    watch = Stopwatch()
    await shutdown(stage.tracker)
    await stage.task
    assert watch.seconds < 1.0
    assert stage.tracker.state is State.EXITED
    await usage.is_back()


async def test_16_shutdown_of_a_plane_that_has_ended_returns_at_once(
    sim: Simulator, start_for_real: StartStage
) -> None:
    """Exited is final."""
    stage = await places.in_ready(sim, start_for_real)
    await shutdown(stage.tracker)
    await stage.task
    await shutdown(stage.tracker, goodbye=True)
    assert stage.tracker.state is State.EXITED
    assert len(sim.sessions) == 1


async def test_16_a_stop_at_the_moment_the_tracker_is_there_dials_nothing(
    sim: Simulator, start_for_real: StartStage
) -> None:
    """Before the first dial, before the look-up even."""
    stage = start_for_real(sim)
    stage.ref.on_fill = lambda tracker: tracker.plane.stop(goodbye=False)
    await stage.task
    assert sim.connects == 0
    assert stage.tracker.terminate_flag


async def test_16_cancelling_serve_is_a_graceful_shutdown(sim: Simulator, start_for_real: StartStage) -> None:
    """Closed with 4000, publishers drained, then CancelledError."""
    stage = await places.in_ready(sim, start_for_real)
    stage.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.task
    assert stage.tracker.state is State.EXITED
    assert [close.code for close in sim.closes] == [4000]
    assert len(sim.sessions) == 1
