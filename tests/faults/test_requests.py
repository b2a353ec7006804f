"""Cases 4 to 6: op 7 and op 9 in every state in which they can arrive."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op
from tests.faults.fault import FREE, Fault, say
from tests.faults.places import (
    Reach,
    before_hello,
    before_hello_with_a_session,
    in_identifying,
    in_ready,
    in_resuming,
    waiting_for_a_slot,
)
from tests.faults.table import Case
from tests.harness import Hasty, StartStage, Unlucky

Ask = Callable[[Simulator], Awaitable[None]]


async def take_session(sim: Simulator) -> None:
    """Op 9 false, and the session is gone, even one that waits without a connection."""
    await sim.forget_sessions()
    await sim.invalidate(resumable=False)


ASKS: dict[str, Ask] = {
    "op 7": lambda sim: sim.reconnect(),
    "op 9 true": lambda sim: sim.invalidate(resumable=True),
    "op 9 false": take_session,
}


# ---------------------------------------------------------------- 4


async def test_04_op_7_fifty_times_in_a_minute(case: Case, sim: Simulator, start_stage: StartStage) -> None:
    """All resumed, the floor of 0.25 to 0.75 s kept each time, no IDENTIFY; the pauses differ, so shards are not in step."""
    stage = start_stage(sim, rng=random.Random(4))
    tracker = await stage.ready()
    outage = Fault(case, sim, stage)
    pauses: list[float] = []
    for number in range(2, 52):
        fault = Fault(case, sim, stage)
        await sim.reconnect()
        await say(sim, 1)
        await fault.recovered(number)
        pauses += [step.milliseconds for step in tracker.transitions if step.source is State.RESTARTING][-1:]
        await stage.spend(max(0.0, (number - 1) * 1.2 - (stage.clock.monotonic() - outage.began)))
    assert stage.clock.monotonic() - outage.began <= 60.2
    assert all(250.0 <= pause <= 750.0 for pause in pauses)
    assert len(set(pauses)) > 40
    assert await outage.cost() == FREE
    assert sim.resumed == 50
    assert sim.violations == []


# ---------------------------------------------------------------- 5

PLACES: dict[str, Reach] = {
    "before Hello": before_hello,
    "before Hello, with a session": before_hello_with_a_session,
    "between Hello and READY": in_identifying,
    "between Hello and IDENTIFY": waiting_for_a_slot,
    "during a resume": in_resuming,
}
BEFORE_HELLO = {before_hello, before_hello_with_a_session}  # op 9 there is a breach: no reason to believe it


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
@pytest.mark.parametrize("reach", PLACES.values(), ids=PLACES.keys())
async def test_05_op_7_and_op_9_where_nobody_expects_them(
    case: Case, sim: Simulator, start_stage: StartStage, reach: Reach, ask: Ask
) -> None:
    """Each is answered by a new connection, never by a deadlock; a session is kept unless op 9 false takes it."""
    stage = await reach(sim, start_stage)
    held = stage.tracker.session_label
    generation = stage.tracker.generation
    fault = Fault(case, sim, stage)
    await (sim.invalidate() if reach in BEFORE_HELLO and ask is take_session else ask(sim))
    await stage.until(lambda: stage.tracker.state in {State.UNHEALTHY, State.RESTARTING}, within=0.5)
    await sim.heal()
    await say(sim)
    await fault.recovered(generation + 1)
    resumes = held is not None and (stage.tracker.session_label == held)
    taken = ask is take_session and reach is in_resuming
    assert resumes == (held is not None and not taken)
    assert await fault.cost() == (0 if resumes else 1, 0, 0)
    assert sim.resumed == (1 if resumes else 0)
    assert len(sim.sessions) == 1
    assert sim.violations == []


# ---------------------------------------------------------------- 6


@pytest.mark.parametrize("rng", [Hasty(), Unlucky()], ids=["shortest draw", "longest draw"])
@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("reach", [in_identifying, in_resuming, in_ready])
async def test_06_op_9_true_and_false_in_identifying_resuming_ready(
    case: Case, sim: Simulator, start_stage: StartStage, reach: Reach, resumable: bool, rng: random.Random
) -> None:
    """True: resume if there is a session. False: drop it, wait 1 to 5 s, IDENTIFY. So does either as the answer to IDENTIFY."""
    stage = await reach(sim, lambda *a, **k: start_stage(*a, **{**k, "rng": rng}))
    tracker = stage.tracker
    held = tracker.session_label
    await stage.spend(5.5)  # so that the spacing of IDENTIFYs is not what is measured
    fault = Fault(case, sim, stage)
    generation = tracker.generation
    await (sim.invalidate(resumable=True) if resumable else take_session(sim))
    await stage.in_state(State.RESTARTING)
    resumes = resumable and reach is not in_identifying
    assert (tracker.session_label == held) if resumes else (tracker.session_label is None)
    await sim.heal()
    await say(sim)
    await fault.recovered(generation + 1)
    (pause,) = [step.milliseconds for step in tracker.transitions if step.source is State.RESTARTING][-1:]
    if not resumes:
        assert 1000.0 <= pause <= 5000.0
    assert await fault.cost() == (0 if resumes else 1, 0, 0)
    assert len([frame for frame in sim.received if frame.op == Op.RESUME]) == resumes + (reach is in_resuming)
    assert sim.violations == []
