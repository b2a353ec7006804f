"""Cases 7, 8, 19 and 20: close codes, each one of them, and connections that are closed again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from discorder.errors import FatalCloseError
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.statemachine.close_codes import classify
from discorder.wire import Op, session_label
from tests.commandline import Command
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import Stage, StartStage

Start = Callable[..., Awaitable[Simulator]]
FATAL = {4004: 77, 4010: 78, 4011: 78, 4012: 78, 4013: 77, 4014: 77}
RESUMED = [4000, 4001, 4002, 4003, 4005, 4008, 1000, 1001, 1006, 4321, 3999]


def pauses(stage: Stage) -> list[float]:
    """Seconds of each back-off so far."""
    return [step.milliseconds / 1000 for step in stage.tracker.transitions if step.source is State.RESTARTING]


# ---------------------------------------------------------------- 7


@pytest.mark.system
async def test_07_fatal_close_codes_end_the_command(case: Case, discorder: Command) -> None:
    """`discorder serve` exits with the code's own exit code, says what to do, and has dialled once."""

    spent: list[int] = []

    async def serve_until_closed(code: int) -> None:
        async with Simulator(guilds=1) as sim:
            settings = [f"gateway.api={sim.api_url}", "session.store=", "publishers.zmq.bind=tcp://127.0.0.1:0"]
            arguments = [word for setting in settings for word in ("--set", setting)]
            command = asyncio.ensure_future(discorder("serve", *arguments, token=sim.token))
            await sim.wait_for(lambda: sim.sent, timeout=60)
            await sim.close(code)
            outcome = await command
            assert outcome.code == FATAL[code], outcome.err
            said = " ".join(outcome.err.split())
            assert str(code) in said
            assert classify(code).remedy in said
            assert "Traceback" not in outcome.err
            assert (sim.connects, sim.identifies) == (1, 1)
            spent.append(sim.identifies - 1)

    await asyncio.gather(*(serve_until_closed(code) for code in FATAL))
    case.note(note="exit codes " + ", ".join(f"{code}: {FATAL[code]}" for code in FATAL), identifies=max(spent))


@pytest.mark.parametrize("state", [State.IDENTIFYING, State.RESUMING, State.READY])
@pytest.mark.parametrize("code", FATAL)
async def test_07_fatal_close_codes_are_fatal_in_every_state(
    case: Case, sim: Simulator, start_stage: StartStage, code: int, state: State
) -> None:
    """The error reaches the caller of `serve` with code, remedy and exit code; nothing is dialled for ten minutes after."""
    if state is State.IDENTIFYING:
        await sim.ignore_openings()
    stage = start_stage(sim)
    if state is State.RESUMING:
        await stage.ready()
        await sim.ignore_openings()
        await sim.drop()
    await stage.in_state(state, generation=2 if state is State.RESUMING else 1)
    await stage.until(lambda: sim.identifies + sim.resumes == (2 if state is State.RESUMING else 1))
    fault = Fault(case, sim, stage)
    connects = sim.connects
    await sim.close(code)
    error = await stage.end()
    assert isinstance(error, FatalCloseError)
    assert (error.code, error.exit_code) == (code, FATAL[code])
    assert error.remedy
    assert error.remedy in str(error)
    assert stage.tracker.state is State.EXITED
    await stage.fake.advance(600.0)
    assert sim.connects == connects
    assert (await fault.cost()).identifies == 0


# ---------------------------------------------------------------- 8


@pytest.mark.parametrize("code", RESUMED)
async def test_08_all_other_codes_are_answered_by_a_resume(
    case: Case, sim: Simulator, start_stage: StartStage, code: int
) -> None:
    """RESUME with the seq of the last event that was handed over; after 4008 not before five seconds."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    await say(sim)
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    last = stage.recorder.events[-1]
    fault = Fault(case, sim, stage)
    await (sim.drop() if code == 1006 else sim.close(code))
    await say(sim)
    await fault.recovered(2)
    assert await fault.cost() == FREE
    assert (sim.resumes, sim.resumed) == (1, 1)
    (resume,) = [frame.d for frame in sim.received if frame.op == Op.RESUME]
    assert (session_label(resume["session_id"]), resume["seq"]) == (last.session, last.seq)
    assert tracker.stats.restart_count == tracker.stats.resume_count == 1
    (pause,) = pauses(stage)
    assert (5.0 if code == 4008 else 0.25) <= pause <= (6.0 if code == 4008 else 1.0)
    assert not any(close.by == "client" for close in sim.closes)


@pytest.mark.parametrize("code", [4007, 4009])
async def test_08_codes_4007_and_4009_are_answered_by_an_identify(
    case: Case, sim: Simulator, start_stage: StartStage, code: int
) -> None:
    """No RESUME, which Discord would refuse, and not sooner than its spacing of IDENTIFYs allows."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    first = tracker.session_label
    await say(sim)
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    fault = Fault(case, sim, stage)
    await sim.close(code)
    await fault.recovered(2)
    await say(sim)
    assert await fault.cost() == (1, 0, 0)
    assert sim.resumes == 0
    assert tracker.session_label != first
    assert sim.violations == []


# ---------------------------------------------------------------- 19


@pytest.mark.parametrize("code", [1005, 1006])
async def test_19_each_resume_is_answered_by_1005_or_1006(
    case: Case, start_simulator: Start, start_stage: StartStage, code: int
) -> None:
    """After three refusals and 180 s a new session, not before and not much later."""
    sim = await start_simulator(session_ttl=600.0)
    stage = start_stage(sim)
    await stage.ready()
    stage.stride = 1.0
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    await sim.refuse_resumes(code)
    fault = Fault(case, sim, stage)
    await sim.drop()
    await stage.until(lambda: sim.resumes == 1)
    first_refusal = stage.clock.monotonic()
    await stage.until(lambda: sim.identifies == 2, within=300.0)
    assert sim.resumes >= 3
    assert stage.clock.monotonic() - first_refusal >= 180.0
    assert await fault.recovered() <= 180.0 + 2 * 30.0
    assert await fault.cost() == (1, 0, 0)
    assert sim.violations == []


async def test_19_a_session_that_is_accepted_before_180_s_is_kept(
    case: Case, start_simulator: Start, start_stage: StartStage
) -> None:
    """A server that refuses for two and a half minutes and then accepts costs nothing."""
    sim = await start_simulator(session_ttl=600.0)
    stage = start_stage(sim)
    tracker = await stage.ready()
    session = tracker.session_label
    stage.stride = 1.0
    await sim.refuse_resumes(1006)
    fault = Fault(case, sim, stage)
    await sim.drop()
    await stage.until(lambda: stage.clock.monotonic() - fault.began > 150.0, within=200.0)
    assert sim.resumes >= 3
    await sim.heal()
    await say(sim)
    await stage.in_state(State.RESTARTING)
    await fault.recovered(within=40.0)
    assert tracker.session_label == session
    assert await fault.cost() == FREE


# ---------------------------------------------------------------- 20

Cut = Callable[[Simulator], Awaitable[None]]


@pytest.mark.parametrize(
    ("cut", "ladder"),
    [
        (lambda sim: sim.drop(), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
        (lambda sim: sim.close(4009), [0.75, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0]),
    ],
    ids=["resume", "identify"],
)
async def test_20_connect_ready_close_flapping(
    case: Case, sim: Simulator, start_stage: StartStage, cut: Cut, ladder: list[float]
) -> None:
    """The wait before each connection grows to its cap although READY comes each time; two minutes in Ready reset it.

    The waits are drawn between 0.25 s and these figures; here each draw is the largest. The first IDENTIFY after a lost session
    waits only for the floor.
    """
    stage = start_stage(sim)
    tracker = await stage.ready()
    stage.stride = 1.0
    fault = Fault(case, sim, stage)
    for number, _ in enumerate(ladder, start=2):
        await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
        await cut(sim)
        await stage.ready(number, within=700.0)
    assert pauses(stage) == pytest.approx(ladder, abs=1e-3)
    await stage.spend(119.0)
    assert tracker.shards[0].attempts == len(ladder)
    await stage.spend(2.0)
    assert tracker.shards[0].attempts == 0
    again = Fault(case, sim, stage)
    await cut(sim)
    await again.recovered(len(ladder) + 2)
    assert pauses(stage)[-1] == pytest.approx(ladder[0], abs=1e-3)
    spent = len(ladder) + 1 if ladder[-1] == 600.0 else 0
    assert await fault.cost() == (spent, 0, 0)
    assert sim.violations == []
    case.note(note=f"waits {'-'.join(f'{pause:g}' for pause in ladder)} s")
