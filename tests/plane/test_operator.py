"""Restart, pause and unpause a shard of a whole control plane: over restarts of the process, at the start, from threads."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from discorder import diagnose, is_operational
from discorder.clock import FakeClock
from discorder.errors import FatalCloseError, NotRunning, VerbRefused
from discorder.sessions import SqliteSessionStore, bot_key
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import Op, session_label
from tests.harness import Caught, Stage

if TYPE_CHECKING:
    from tests.harness import StartMemoryStage, StartStage

StartSimulator = Callable[..., Awaitable[Simulator]]
Catch = Callable[[Simulator, Stage], Caught]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the setting that keeps sessions in a file."""
    return f"session.store={tmp_path / 'sessions.sqlite3'}"


def identified(sim: Simulator) -> list[int]:
    return [frame.d["shard"][0] for frame in sim.received if frame.op == Op.IDENTIFY]


def states(stage: Stage) -> list[State]:
    return [shard.state for shard in stage.tracker.shards]


async def test_a_restart_loses_nothing_and_costs_no_identify(
    sim: Simulator, start_stage: StartStage, catch: Catch
) -> None:
    """Events that come meanwhile are replayed."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    for number in range(3):
        tracker.restart_shard(0)
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
        await stage.ready(generation=number + 2)
    await catch(sim, stage).up()
    assert (sim.identifies, sim.resumed, tracker.shards[0].attempts) == (1, 3, 0)
    assert "an operator asked for a new connection" in {step.cause for step in tracker.transitions}
    await stage.stop()


async def test_a_paused_shard_stays_down_while_the_others_serve(
    start_simulator: StartSimulator, start_stage: StartStage
) -> None:
    """The verdict names it, the time, and the command that ends the pause. What was sent meanwhile is replayed."""
    sim = await start_simulator(shards=2, max_concurrency=2)
    stage = start_stage(sim, "gateway.shards=2")
    tracker = await stage.result(stage.ref.ready())
    tracker.pause_shard(1)
    await stage.until(lambda: sim.connected_shards == [0])
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    await stage.spend(120.0)
    assert states(stage) == [State.READY, State.RESTARTING]
    (reason,) = diagnose(tracker).reasons
    assert re.search(r"^shard 1: .*paused by an operator since \S+; goes on with `discorder shards unpause 1`$", reason)
    tracker.unpause_shard(1)
    await stage.until(lambda: is_operational(tracker))
    sent = sorted((session_label(session), seq, kind) for session, seq, kind in sim.sent)
    await stage.until(lambda: sorted(stage.recorder.seen) == sent)
    assert (sim.identifies, sim.resumed) == (2, 1)
    await stage.stop()


async def test_a_pause_outlives_the_process_and_its_session_is_resumed_afterwards(
    sim: Simulator, start_stage: StartStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three processes: one that is paused and stopped, one that begins paused and is unpaused, one that begins as usual."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    (await first.ready()).pause_shard(0)
    await first.in_state(State.RESTARTING)
    since = first.tracker.shards[0].paused_since
    await first.stop()
    connects = sim.connects
    second = start_stage(sim, store, clock=clock)
    await second.in_state(State.RESTARTING)
    await second.spend(60.0)
    assert (sim.connects, second.tracker.shards[0].paused_since) == (connects, since)
    assert "The shard was paused before this start: it is not dialled until it is unpaused" in capsys.readouterr().err
    second.tracker.unpause_shard(0)
    await second.ready()
    await second.stop()
    third = start_stage(sim, store, clock=clock)
    await third.ready()
    assert (sim.identifies, sim.resumed) == (1, 2)
    await third.stop()


async def test_a_start_does_not_wait_for_a_paused_shard(
    start_simulator: StartSimulator, start_stage: StartStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no session, so it would come after the look-up. The progress counts it, and the log names the remedy."""
    sim = await start_simulator(shards=3, max_concurrency=3)
    clock = FakeClock()
    first = start_stage(sim, store, "gateway.shards={ids=[2],of=3}", clock=clock)
    first.ref.on_fill = lambda tracker: tracker.pause_shard(2)
    await first.in_state(State.RESTARTING)
    await first.stop()
    assert identified(sim) == []
    second = start_stage(sim, store, "gateway.shards=3", clock=clock)
    tracker = await second.result(second.ref.ready())
    assert states(second) == [State.READY, State.READY, State.RESTARTING]
    assert repr(tracker.progress) == "2 of 3 ready, 1 paused"
    assert sorted(identified(sim)) == [0, 1]
    log = capsys.readouterr().err
    assert "All shards are ready shards=2" in log
    assert "paused=1" in log
    assert "discorder shards unpause 2" in log
    tracker.unpause_shard(2)
    await second.until(lambda: repr(tracker.progress) == "3 of 3 ready")
    assert sorted(identified(sim)) == [0, 1, 2]
    await second.stop()


async def test_the_only_shard_is_awaited_although_it_is_paused(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """A bot must not begin to work without a connection. The progress says why nothing happens."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    (await first.ready()).pause_shard(0)
    await first.stop()
    second = start_stage(sim, store, clock=clock)
    await second.in_state(State.RESTARTING)
    ready = asyncio.ensure_future(second.ref.ready())
    await second.spend(60.0)
    assert not ready.done()
    assert repr(second.tracker.progress) == "0 of 1 ready, 1 paused, ETA unknown"
    second.tracker.unpause_shard(0)
    await second.until(ready.done)
    await second.stop()


async def test_a_shard_can_be_paused_before_it_has_a_driver(
    start_simulator: StartSimulator, start_stage: StartStage, store: str
) -> None:
    """While the look-up is not answered. The table decides as for a shard that has one."""
    sim = await start_simulator(shards=2, max_concurrency=2)
    answered = asyncio.Event()
    stage = start_stage(sim, store, "gateway.shards=2")
    look_up = stage.client.gateway_bot

    async def late(**options: object) -> object:
        await answered.wait()
        return await look_up(**options)  # type: ignore[arg-type]

    stage.client.gateway_bot = late  # type: ignore[method-assign,assignment]
    trackers: list[GatewayTracker] = []
    stage.ref.on_fill = trackers.append
    await stage.until(lambda: trackers)
    (tracker,) = trackers
    tracker.pause_shard(1)
    with pytest.raises(VerbRefused, match=r"pause has no effect on shard 1 .* paused already"):
        tracker.pause_shard(1)
    with pytest.raises(VerbRefused, match=r"restart has no effect on shard 0 .*: it has not been started yet"):
        tracker.restart_shard(0)
    tracker.pause_shard(0)
    tracker.unpause_shard(0)
    assert "shard 1: Disconnected" in str(diagnose(tracker).reasons)
    assert "paused by an operator" in str(diagnose(tracker).reasons)
    answered.set()
    await stage.until(lambda: states(stage) == [State.READY, State.RESTARTING])
    assert identified(sim) == [0]
    await stage.stop()


async def test_with_an_unknown_number_of_shards_no_shard_can_be_paused(start_memory_stage: StartMemoryStage) -> None:
    """Which shard would be meant is not known before the look-up has been answered."""
    stage = start_memory_stage('gateway.shards="auto"')
    stage.exchange.answers.clear()
    refusals: list[str] = []

    def filled(tracker: GatewayTracker) -> None:
        with pytest.raises(VerbRefused) as refused:
            tracker.pause_shard(0)
        refusals.append(str(refused.value))

    stage.ref.on_fill = filled
    await stage.until(lambda: refusals)
    assert "the number of shards is not known yet" in refusals[0]
    stage.exchange.answers.set()
    await stage.identified()
    await stage.stop()


async def test_a_pause_of_another_layout_ends(
    start_simulator: StartSimulator, start_stage: StartStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shard 0 of 2 means other guilds than shard 0 of 1."""
    sim = await start_simulator(shards=2, max_concurrency=2)
    clock = FakeClock()
    first = start_stage(sim, store, "gateway.shards=2", clock=clock)
    (await first.result(first.ref.ready())).pause_shard(1)
    await first.stop()
    second = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await second.ready(within=60.0)
    assert "A pause ends because the shard layout has changed shard=1 of=2" in capsys.readouterr().err
    await second.stop()
    third = start_stage(sim, store, "gateway.shards=2", clock=clock)
    await third.result(third.ref.ready())
    assert [shard.paused_since for shard in third.tracker.shards] == [None, None]
    await third.stop()


async def test_a_pause_is_no_exit_under_fail_on_error(sim: Simulator, start_stage: StartStage) -> None:
    """Nor is a restart."""
    stage = start_stage(sim, "gateway.fail_on_error=true")
    tracker = await stage.ready()
    tracker.pause_shard(0)
    await stage.spend(30.0)
    tracker.unpause_shard(0)
    await stage.ready(generation=2)
    tracker.restart_shard(0)
    await stage.ready(generation=3)
    await stage.stop()


async def test_a_stop_ends_a_paused_shard_and_keeps_pause_and_session(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """After a goodbye the session is gone, and the pause is not."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    (await first.ready()).pause_shard(0)
    await first.in_state(State.RESTARTING)
    await first.stop(goodbye=True)
    second = start_stage(sim, store, clock=clock)
    await second.in_state(State.RESTARTING)
    second.tracker.unpause_shard(0)
    await second.ready(within=60.0)
    assert (sim.identifies, sim.resumes) == (2, 0)
    await second.stop()


async def test_a_verb_without_effect_raises_with_the_reason(sim: Simulator, start_stage: StartStage) -> None:
    """The reason is that of the table. An unknown shard is an error of the caller."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    with pytest.raises(VerbRefused, match=r"unpause has no effect on shard 0 \(Ready\): it is not paused") as refused:
        tracker.unpause_shard(0)
    assert (refused.value.verb, refused.value.shard, refused.value.reason) == ("unpause", 0, "it is not paused")
    tracker.pause_shard(0)
    with pytest.raises(VerbRefused, match="restart follows"):
        tracker.restart_shard(0)
    await stage.in_state(State.RESTARTING)
    with pytest.raises(VerbRefused, match="it is paused: unpause it"):
        tracker.restart_shard(0)
    with pytest.raises(ValueError, match="there is no shard 7 here"):
        tracker.pause_shard(7)
    await stage.stop()
    with pytest.raises(NotRunning):
        tracker.unpause_shard(0)


async def test_the_verbs_can_be_called_from_any_thread(sim: Simulator, start_stage: StartStage) -> None:
    """The caller gets the answer of the loop, the error included."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    await stage.result(asyncio.to_thread(tracker.pause_shard, 0))
    assert tracker.shards[0].paused_since is not None
    with pytest.raises(VerbRefused):
        await stage.result(asyncio.to_thread(tracker.pause_shard, 0))
    await stage.result(asyncio.to_thread(tracker.unpause_shard, 0))
    await stage.ready(generation=2)
    await stage.stop()


async def test_a_verb_that_the_loop_does_not_take_in_time_is_not_taken_later(
    sim: Simulator, start_stage: StartStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller was told that it failed."""
    monkeypatch.setattr("discorder.plane.run_handle.ANSWER_SECONDS", 0.01)
    stage = start_stage(sim)
    tracker = await stage.ready()
    gave_up = threading.Event()

    def ask() -> None:
        try:
            tracker.pause_shard(0)
        finally:
            gave_up.set()

    asking = asyncio.ensure_future(asyncio.to_thread(ask))
    await asyncio.sleep(0)
    assert gave_up.wait(30.0)  # the loop is blocked until then
    await stage.until(asking.done)
    with pytest.raises(NotRunning, match=r"did not answer within 0\.01 s"):
        await asking
    await stage.spend(1.0)
    assert tracker.shards[0].paused_since is None
    await stage.stop()


async def test_a_fatal_close_after_an_unpause_ends_the_shard(sim: Simulator, start_stage: StartStage) -> None:
    """A pause hides nothing: the dial after it is judged like any other."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    tracker.pause_shard(0)
    await stage.in_state(State.RESTARTING)
    tracker.unpause_shard(0)
    await stage.ready(generation=2)
    await sim.close(4004)
    error = await stage.end()
    assert isinstance(error, FatalCloseError)


PAUSED_AND_KILLED = """
import os, signal, sys
from discorder import serve_in_background
plane = serve_in_background(config_file_path=sys.argv[1])
plane.call(plane.tracker.plane.wait_ready())
plane.tracker.pause_shard(0)
plane.call(plane.tracker.wait_stored())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.system
async def test_a_pause_survives_kill_9(
    sim: Simulator, environment: dict[str, str], tmp_path: Path, start_stage: StartStage
) -> None:
    """A process that is killed as soon as the pause is stored; the next one does not dial."""
    store = tmp_path / "sessions.sqlite3"
    config = tmp_path / "config.toml"
    config.write_text(
        f'[gateway]\napi = "{sim.api_url}"\n[session]\nstore = "{store}"\n[http]\nbind = ""\n'
        '[publishers.unread]\nkind = "channel"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PAUSED_AND_KILLED, str(config)),
        env=environment | {"DISCORD_BOT_TOKEN": sim.token},
        cwd=tmp_path,
    )
    async with asyncio.timeout(60):
        assert await process.wait() == -9
    connects = sim.connects
    stage = start_stage(sim, f"session.store={store}")
    await stage.in_state(State.RESTARTING)
    await stage.spend(60.0)
    assert (sim.connects, sim.identifies) == (connects, 1)
    stage.tracker.unpause_shard(0)
    await stage.ready(within=60.0)
    assert sim.identifies == 1
    await stage.stop()
    found = SqliteSessionStore(store, bot=bot_key(sim.token), clock=FakeClock())
    await found.open()
    assert await found.load_pauses() == {}
    await found.close()
