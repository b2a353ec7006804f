"""One session across several runs of the plane, and the ways in which a run ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from discorder import shutdown
from discorder.clock import FakeClock, SystemClock
from discorder.config import Log
from discorder.logs import configure_logs
from discorder.rest import GatewayInfo
from discorder.sessions import MemorySessionStore, StoredSession
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op, session_label
from tests.harness import Hanging
from tests.stopwatch import Stopwatch

if TYPE_CHECKING:
    from tests.harness import Stage, StartMemoryStage, StartStage


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the setting that keeps sessions in a file."""
    return f"session.store={tmp_path / 'sessions.sqlite3'}"


def resumed_at(sim: Simulator) -> list[int]:
    return [frame.d["seq"] for frame in sim.received if frame.op == Op.RESUME]


def told(sim: Simulator) -> list[tuple[str, int, str]]:
    return [(session_label(session), seq, kind) for session, seq, kind in sim.sent]


async def test_the_next_life_resumes_at_the_last_event_that_was_handed_over(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """Missed events are replayed; no IDENTIFY, no duplicate, nothing missing. The start does not wait for the look-up."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    await first.until(lambda: first.recorder.seen == told(sim))
    await first.stop()
    for number in range(3):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    second = start_stage(sim, store, clock=clock)
    await second.ready()
    await second.until(lambda: first.recorder.seen + second.recorder.seen == told(sim))
    assert resumed_at(sim) == [first.recorder.events[-1].seq]
    assert (sim.identifies, sim.resumed) == (1, 1)
    assert second.tracker.stats.identify_count == 0
    await second.stop()


async def test_a_life_that_saw_only_ready_is_resumed_too(sim: Simulator, start_stage: StartStage, store: str) -> None:
    """The session is written at once, not with the next checkpoint."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    await first.stop()
    second = start_stage(sim, store, clock=clock)
    await second.ready()
    assert sim.identifies == 1


class Noting(MemorySessionStore):
    """Records the sequence of each save, and whether it was urgent."""

    def __init__(self) -> None:
        super().__init__()
        self.saves: list[tuple[int, bool]] = []

    def save(self, session: StoredSession, *, now: bool = False) -> None:
        self.saves.append((session.seq, now))
        super().save(session, now=now)


async def test_a_new_session_is_written_at_once_and_its_progress_when_there_is_time(
    sim: Simulator, start_stage: StartStage
) -> None:
    """A process that is killed within a second after READY has spent an IDENTIFY, so the next one must be able to resume.

    Its first event is saved at once too, so that repeated kills still make progress.
    """
    store = Noting()
    stage = start_stage(sim, store=store)
    await stage.ready()
    await stage.until(lambda: store.saves[-1][0] == sim.sent[-1][1])
    assert [urgent for _, urgent in store.saves][:2] == [True, True]
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    await stage.until(lambda: store.saves[-1][0] == sim.sent[-1][1])
    assert store.saves[-1][1] is False


async def test_after_a_goodbye_the_next_life_identifies(sim: Simulator, start_stage: StartStage, store: str) -> None:
    """The store holds nothing to resume."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    await first.stop(goodbye=True)
    second = start_stage(sim, store, clock=clock)
    await second.ready(within=60.0)
    assert (sim.identifies, sim.resumes) == (2, 0)


@pytest.mark.parametrize("shards", ['"auto"', "1"])
async def test_a_goodbye_before_the_first_dial_forgets_what_is_stored(
    sim: Simulator, start_stage: StartStage, store: str, shards: str
) -> None:
    """During the look-up there is no socket for a close frame, whether the layout is known by then or not."""
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    await first.stop()

    async def never() -> GatewayInfo:
        await asyncio.Event().wait()
        raise AssertionError

    second = start_stage(sim, store, f"gateway.shards={shards}", clock=clock, look_up=never)
    second.ref.on_fill = lambda tracker: tracker.plane.stop(goodbye=True)
    assert await second.end() is None
    third = start_stage(sim, store, clock=clock)
    await third.ready(within=60.0)
    assert (sim.identifies, sim.resumes) == (2, 0)


async def test_who_is_to_hand_over_is_not_asked_where_sessions_are_in_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """If "auto" finds no place for a store, the start goes on and logs it."""
    with configure_logs(Log(), console=True):
        await MemorySessionStore("the disk is away").hold([(0, 1)], take_over=True)
    assert "Nobody can be asked to hand over" in capsys.readouterr().err


async def test_with_other_intents_the_next_life_identifies(sim: Simulator, start_stage: StartStage, store: str) -> None:
    """A resumed session would keep the old intents."""
    clock = FakeClock()
    first = start_stage(sim, store, 'gateway.intents=["guilds"]', clock=clock)
    await first.ready()
    await first.stop()
    second = start_stage(sim, store, 'gateway.intents=["guilds", "guild_messages"]', clock=clock)
    await second.ready(within=60.0)
    assert (sim.identifies, sim.resumes) == (2, 0)
    assert [frame.d["intents"] for frame in sim.received if frame.op == Op.IDENTIFY] == [1, 1 | 1 << 9]


async def test_with_another_token_of_the_same_bot_the_next_life_identifies(
    start_simulator: Callable[..., Awaitable[Simulator]], start_stage: StartStage, store: str
) -> None:
    """A token reset ends every session, so a RESUME would only cost time. The ledger belongs to the bot and is kept."""
    clock = FakeClock()
    before = await start_simulator(token="MTIz.first.token")
    first = start_stage(before, store, clock=clock)
    await first.ready()
    await first.stop()
    after = await start_simulator(token="MTIz.second.token")
    second = start_stage(after, store, clock=clock)
    await second.ready(within=60.0)
    assert (after.identifies, after.resumes) == (1, 0)
    assert second.tracker.budget is not None
    assert second.tracker.budget.spent_here == 2
    await second.stop()
    third = start_stage(after, store, clock=clock)
    await third.ready()
    assert (after.identifies, after.resumed) == (1, 1)


async def test_a_stored_session_of_a_fixed_layout_is_resumed_while_the_look_up_hangs(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """With fixed shards the shards start at once; only an IDENTIFY would have to wait for the budget."""
    clock = FakeClock()
    first = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await first.ready()
    await first.stop()

    async def never() -> None:
        await asyncio.Event().wait()

    second = start_stage(sim, store, "gateway.shards=1", clock=clock, look_up=never)  # type: ignore[arg-type]  # no answer
    await second.ready()
    assert (sim.identifies, sim.resumed) == (1, 1)
    await second.stop()


async def test_a_stop_that_comes_while_the_stored_session_is_read_dials_nothing(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """The stop comes when the tracker is filled, with a session to resume: the plane ends, and the session stays stored."""
    clock = FakeClock()
    first = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await first.ready()
    await first.stop()
    second = start_stage(sim, store, "gateway.shards=1", clock=clock)
    second.ref.on_fill = lambda tracker: tracker.plane.stop(goodbye=False)
    assert await second.end() is None
    assert sim.connects == 1
    third = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await third.ready()
    assert (sim.identifies, sim.resumed) == (1, 1)


# ---------------------------------------------------------------- a second stop request


Again = Callable[["Stage"], None]


@pytest.mark.parametrize(
    "again", [lambda stage: stage.tracker.plane.hurry(), lambda stage: stage.task.cancel()], ids=["hurry", "cancel"]
)
async def test_a_second_request_cuts_short_what_a_stop_still_waits_for(
    start_memory_stage: StartMemoryStage, again: Again
) -> None:
    """The first stop would drain for a minute; the second ends the plane at once, with all its clean-up."""
    stage = start_memory_stage("session.drain_timeout=60", publishers=[Hanging()])
    line = await stage.identified()
    stage.task.cancel()
    await stage.until(lambda: stage.tracker.state is State.EXITED, while_running=False)
    await stage.fake.advance(5.0)
    assert not stage.task.done()
    again(stage)
    await stage.until(stage.task.done, within=1.0, while_running=False)
    assert stage.task.cancelled()
    assert line.close_codes == [4000]


async def test_hurry_does_not_wait_for_a_peer_that_does_not_answer_the_close(
    start_memory_stage: StartMemoryStage,
) -> None:
    """The frame with 4000 is sent; the socket is dropped without waiting for the answer."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.answers_close = False
    stage.tracker.plane.stop(goodbye=False)
    await stage.fake.advance(0.0)
    assert stage.tracker.state is State.STOPPING
    stage.tracker.plane.hurry()
    await stage.until(stage.task.done, within=0.5, while_running=False)
    assert line.close_codes == [4000]
    assert line.closed


async def test_with_the_default_publisher_a_shutdown_takes_less_than_a_second_too(
    sim: Simulator, start_stage: StartStage
) -> None:
    """ZeroMQ lingers for a quarter of a second at most."""
    stage = start_stage(sim, "publishers.zmq.bind=tcp://127.0.0.1:0", clock=SystemClock())
    await stage.ready()
    watch = Stopwatch()
    await shutdown(stage.tracker)
    assert watch.seconds < 1.0
    await stage.task


# ---------------------------------------------------------------- whole processes

SCRIPT = """
import asyncio, sys, discorder
discorder.run(config_file_path=sys.argv[1])
print("run has returned")
"""


@pytest.fixture
async def busy() -> AsyncIterator[Simulator]:
    """A simulator whose guilds send events."""
    async with Simulator(guilds=1, rate=50) as sim:
        yield sim


@pytest.mark.heavy
@pytest.mark.system
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)])
async def test_run_ends_by_a_signal_with_the_session_kept(
    busy: Simulator, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    """Exit 0, closed with 4000, and `run` returns to its caller. A silent peer does not delay the exit."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[gateway]\napi = "{busy.api_url}"\n[log]\nlevel = "error"\n[session]\nstore = ""\n'
        '[http]\nbind = ""\n[publishers.sink]\nkind = "channel"\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        str(config),
        env=os.environ | {"DISCORD_BOT_TOKEN": busy.token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await busy.wait_for(lambda: busy.sent, timeout=60)
    await asyncio.sleep(0.05)
    for number in signals:
        process.send_signal(number)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out == b"run has returned\n"
    assert err == b""
    await busy.wait_for(lambda: busy.closes)
    if len(signals) == 1:
        assert [(close.code, close.by) for close in busy.closes] == [(4000, "client")]
    assert not {close.code for close in busy.closes} & {1000, 1001}
    assert len(busy.sessions) == 1
