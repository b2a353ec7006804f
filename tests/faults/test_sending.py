"""Cases 22 and 23: what the bot itself sends, up to Discord's limits and beyond. The simulator counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import CommandTooLarge
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op
from tests.faults.fault import FREE, Fault
from tests.faults.table import Case
from tests.harness import StartStage

Start = Callable[..., Awaitable[Simulator]]


def ops(sim: Simulator, op: Op) -> list[Any]:
    """``d`` of every frame with this opcode that the simulator read."""
    return [frame.d for frame in sim.received if frame.op == op]


async def test_22_120_sends_in_60_s_by_the_bots_own_commands(
    case: Case, start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """Commands wait, and all of them arrive in order; heartbeats do not wait: every beat is on time."""
    sim = await start_simulator(heartbeat_interval_ms=5_000)
    stage = start_stage(sim)
    tracker = await stage.ready()
    fault = Fault(case, sim, stage)
    beats = tracker.stats.heartbeat_sent_count
    guild = sim.guild_ids[0]
    sends = [asyncio.ensure_future(tracker.update_voice_state(guild, number)) for number in range(150)]
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) >= 105)
    assert clock.monotonic() - fault.began < 5.0
    await stage.until(lambda: all(send.done() for send in sends), within=70.0)
    elapsed = fault.over()
    assert elapsed > 60.0
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) == 150)
    assert [d["channel_id"] for d in ops(sim, Op.VOICE_STATE_UPDATE)] == [str(number) for number in range(150)]
    assert tracker.stats.heartbeat_sent_count - beats == pytest.approx(elapsed / 5.0, abs=1.1)
    assert tracker.generation == 1
    assert await fault.cost() == FREE
    assert sim.violations == []


def named(name: str) -> dict[str, Any]:
    """A presence with one activity."""
    return {"status": "idle", "activities": [{"name": name, "type": 0}]}


async def test_23_an_outbound_command_above_4096_bytes(case: Case, sim: Simulator, start_stage: StartStage) -> None:
    """4,096 bytes are sent, one more is refused to the caller with both figures and not sent; the connection lives on."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    fault = Fault(case, sim, stage)
    frame = b'{"op":3,"d":{"status":"idle","activities":[{"name":"","type":0}]}}'
    fitting = named("x" * (4096 - len(frame)))
    await stage.result(tracker.send(Op.PRESENCE_UPDATE, fitting))
    with pytest.raises(CommandTooLarge, match=r"4,097 bytes .* 4,096") as refused:
        await tracker.send(Op.PRESENCE_UPDATE, named("x" * (4097 - len(frame))))
    assert (refused.value.reason, refused.value.size, refused.value.limit) == ("too_large", 4097, 4096)
    await stage.until(lambda: ops(sim, Op.PRESENCE_UPDATE))
    assert len(ops(sim, Op.PRESENCE_UPDATE)) == 1
    assert (tracker.stats.command_sent_count, tracker.stats.command_refused_count) == (1, 1)
    assert tracker.state is State.READY
    assert await fault.cost() == FREE
    assert sim.violations == []
