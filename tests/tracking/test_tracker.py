"""The tracker: stats, repr, verdict, thrown errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from discorder import diagnose, is_operational, shutdown
from discorder.clock import SystemClock
from discorder.errors import NotRunning, NotStarted
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op

if TYPE_CHECKING:
    from tests.harness import Caught, Exchange, StartMemoryStage, StartStage

Start = Callable[..., Awaitable[Simulator]]
Catch = Callable[..., "Caught"]


# ---------------------------------------------------------------- stats


async def test_in_a_quiet_run_the_events_are_those_published_and_the_acks(
    start_simulator: Start, start_stage: StartStage, catch: Catch
) -> None:
    """Discorder.jl's page: 23 = 9 + 14. Hello does not count; each dispatch is counted once, with any number of publishers."""
    sim = await start_simulator(heartbeat_interval_ms=10_000)
    stage = start_stage(sim)
    tracker = await stage.ready()
    for number in range(5):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    await catch(sim, stage).up()
    await stage.until(lambda: tracker.stats.heartbeat_received_count == 3, within=40.0)
    stats = tracker.stats
    assert stats.published_event_count == len(sim.sent) == 8
    assert stats.heartbeat_sent_count == stats.heartbeat_received_count == 3
    assert stats.event_count == 8 + 3
    assert stats.events_by_type == {"MESSAGE_CREATE": 5, "GUILD_CREATE": 2, "READY": 1}
    assert (stats.identify_count, stats.resume_count, stats.restart_count, stats.drop_count) == (1, 0, 0, 0)
    assert len([frame for frame in sim.received if frame.op == Op.HEARTBEAT]) == 3


async def test_op_1_7_9_and_unknown_ones_count_as_events_and_are_not_published(
    start_memory_stage: StartMemoryStage,
) -> None:
    """`event_count` is every payload after Hello."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.feed({"op": Op.HEARTBEAT, "d": None}, {"op": 77}, {"op": Op.RECONNECT})
    await stage.until(lambda: stage.tracker.state is State.RESTARTING)
    assert stage.tracker.stats.event_count == 4
    assert stage.tracker.stats.published_event_count == len(stage.recorder.events) == 1


async def test_stats_are_cumulative_over_restarts(sim: Simulator, start_stage: StartStage, catch: Catch) -> None:
    """Discorder.jl started from zero at each restart; `start_time` and `ready_time` stay when a session is resumed."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    await catch(sim, stage).up()
    before = tracker.stats
    assert before.ready_time is not None
    assert before.start_time is not None
    assert before.start_time <= before.ready_time
    assert before.ready_time == stage.recorder.events[0].received_at
    await sim.drop()
    await stage.ready(generation=2)
    await catch(sim, stage).up()
    after = tracker.stats
    assert (after.start_time, after.ready_time) == (before.start_time, before.ready_time)
    assert after.published_event_count == before.published_event_count + 1  # RESUMED
    assert (after.restart_count, after.resume_count, after.identify_count) == (1, 1, 1)
    await sim.invalidate()
    await stage.ready(generation=3)
    renewed = tracker.stats
    assert renewed.ready_time is not None
    assert renewed.ready_time > before.ready_time
    assert (renewed.restart_count, renewed.identify_count) == (2, 2)


# ---------------------------------------------------------------- listings and verdict


async def test_the_repr_has_one_line_per_field(start_memory_stage: StartMemoryStage) -> None:
    """In Discorder.jl's order, followed by Discorder's own fields; without the token and the session id."""
    stage = start_memory_stage()
    await stage.identified(10_000)
    lines = repr(stage.tracker).splitlines()
    names = [line.strip().partition(":")[0] for line in lines[1:]]
    assert lines[0] == "GatewayTracker"
    assert names[:11] == [
        "websocket",
        "heartbeat_interval_ms",
        "seq",
        "heartbeat_task",
        "processor_task",
        "doctor_task",
        "master_task",
        "terminate_flag",
        "fail_on_error",
        "config",
        "stats",
    ]
    for wanted in (
        "  heartbeat_interval_ms: int 10000",
        "  seq: int 1",
        "  processor_task: running",
        "  terminate_flag: bool False",
        "  publishers: ['sink', 'recorder']",
        "  state: Ready",
        "  shard: (0, 1)",
        f"  session: {stage.recorder.events[0].session}",
        "  generation: int 1",
    ):
        assert wanted in lines
    assert lines[-1].endswith("'Identifying → Ready (ready)']")
    for text in (repr(stage.tracker), repr(stage.ref), repr(stage.tracker.shards[0])):
        assert "MTIz" not in text
        assert "s1" not in text
    assert repr(stage.ref).startswith("TrackerRef(GatewayTracker")


async def test_before_hello_the_listing_shows_dashes(start_memory_stage: StartMemoryStage) -> None:
    """For each value that is not known yet."""
    stage = start_memory_stage()
    await stage.in_state(State.CONNECTING)
    lines = repr(stage.tracker).splitlines()
    assert "  heartbeat_interval_ms: –" in lines
    assert "  seq: –" in lines
    assert "  heartbeat_task: absent" in lines


async def test_a_half_open_socket_is_not_operational_although_every_task_runs(
    start_memory_stage: StartMemoryStage,
) -> None:
    """The verdict names an unanswered heartbeat with its age before the doctor task acts on it."""
    stage = start_memory_stage()
    line = await stage.identified(10_000)
    assert is_operational(stage.tracker)
    assert diagnose(stage.tracker).reasons == ()
    await stage.until(lambda: line.ops(Op.HEARTBEAT))
    await stage.fake.advance(4.0)
    assert is_operational(stage.tracker)
    assert diagnose(stage.tracker).ages.unanswered_beat == pytest.approx(4.0, abs=0.2)
    await stage.until(lambda: not is_operational(stage.tracker), within=1.5)


async def test_the_verdict_names_state_age_cause_and_the_next_attempt(start_memory_stage: StartMemoryStage) -> None:
    """So that an operator knows the reason and the time of the next attempt."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose(4008)
    await stage.until(lambda: stage.tracker.state is State.RESTARTING)
    await stage.fake.advance(2.0)
    verdict = diagnose(stage.tracker)
    assert not verdict.healthy
    (reason,) = verdict.reasons
    assert reason.startswith("Restarting for 2.")
    assert "4008" in reason
    assert "next attempt in 2." in reason or "next attempt in 3.0" in reason
    assert verdict.ages.in_state == pytest.approx(2.0, abs=0.2)


async def test_a_throw_to_a_task_that_does_not_run_is_an_error(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """Before Hello there is no heartbeat task; an unknown shard raises ValueError."""
    stage = start_memory_stage()
    await stage.in_state(State.CONNECTING)
    with pytest.raises(NotRunning, match="heartbeat of shard 0 is not running"):
        stage.tracker.throw_to("heartbeat", RuntimeError())
    with pytest.raises(ValueError, match="there is no shard 3 here; there are: 0"):
        stage.tracker.throw_to("processor", RuntimeError(), shard=3)
    with pytest.raises(ValueError, match="there are: master, processor, heartbeat, doctor"):
        stage.tracker.throw_to("surgeon", RuntimeError())


# ---------------------------------------------------------------- from other loops and threads


async def test_tracker_and_ref_may_be_used_from_another_loop(sim: Simulator, start_stage: StartStage) -> None:
    """A thread waits for READY, throws an error, waits for the recovery, and shuts down; later calls do not hang."""
    stage = start_stage(sim, clock=SystemClock())
    thrown = threading.Event()

    async def elsewhere() -> None:
        tracker = await stage.ref.ready(5)
        tracker.throw_to("processor", RuntimeError("from a thread"))
        thrown.set()
        while tracker.stats.resume_count == 0:  # noqa: ASYNC110  # a tracker is there to be looked at
            await asyncio.sleep(0.005)
        await shutdown(tracker)
        await shutdown(tracker)

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert thrown.is_set()
    await stage.task
    assert stage.tracker.stats.restart_count == 1


def test_a_ref_of_a_plane_whose_loop_is_closed_does_not_hang() -> None:
    """`serve` has ended and its loop is closed: shutdown does nothing, and waiting for READY raises an error."""
    import discorder  # noqa: PLC0415  # the names of the facade, as a program has them
    from discorder.config import load_config  # noqa: PLC0415
    from discorder.control_plane import serve_config  # noqa: PLC0415

    ref = discorder.TrackerRef()

    async def life() -> None:
        async with Simulator(guilds=1) as sim:
            await sim.withhold_hello()
            config = load_config(
                None, [f"gateway.api={sim.api_url}", "publishers.sink.kind=channel", "session.store=", "http.bind="]
            )
            plane = asyncio.create_task(
                serve_config(lambda: config, client=discorder.BotClient(sim.token), tracker_ref=ref)
            )
            await sim.wait_for(lambda: sim.connects)
            await shutdown(ref.value)
            await plane

    async def afterwards() -> None:
        await shutdown(ref.value)
        with pytest.raises(NotStarted, match="ended before it was ready"):
            await ref.ready(1)

    asyncio.run(life())
    asyncio.run(afterwards())
