"""What a bot says to the gateway: limits, order, reconnects, answers. The simulator judges; it shares the plane's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import (
    CommandTooLarge,
)
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op

if TYPE_CHECKING:
    from tests.stage import StartStage

Start = Callable[..., Awaitable[Simulator]]
VOICE: dict[str, Any] = {"channel_id": None, "self_mute": False, "self_deaf": False}


def ops(sim: Simulator, op: Op) -> list[Any]:
    """``d`` of every frame with this opcode that the simulator read."""
    return [frame.d for frame in sim.received if frame.op == op]


@pytest.fixture
def clock() -> FakeClock:
    """One clock for the plane and its simulator: the limits are measured on it."""
    return FakeClock()


async def test_a_presence_reaches_discord_and_is_counted(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()
    await stage.result(tracker.set_presence(status="idle", activities=[{"name": "chess", "type": 0}]))
    await stage.until(lambda: ops(sim, Op.PRESENCE_UPDATE))
    assert ops(sim, Op.PRESENCE_UPDATE) == [
        {"since": None, "activities": [{"name": "chess", "type": 0}], "status": "idle", "afk": False}
    ]
    assert tracker.stats.command_sent_count == 1
    assert sim.violations == []


# ---------------------------------------------------------------- limits


async def test_22_commands_wait_for_room_in_the_window_and_heartbeats_do_not(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """120 sends in 60 s reached by the bot's own commands: all of them arrive, in order, and every beat is on time."""
    sim = await start_simulator(clock=clock, heartbeat_interval_ms=5_000)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()
    began, beats = clock.monotonic(), tracker.stats.heartbeat_sent_count
    guild = sim.guild_ids[0]
    sends = [asyncio.ensure_future(tracker.update_voice_state(guild, number)) for number in range(150)]
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) >= 105)
    assert clock.monotonic() - began < 5.0
    await stage.until(lambda: all(send.done() for send in sends), within=70.0)
    elapsed = clock.monotonic() - began
    assert elapsed > 60.0
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) == 150)
    assert [d["channel_id"] for d in ops(sim, Op.VOICE_STATE_UPDATE)] == [str(number) for number in range(150)]
    assert tracker.stats.heartbeat_sent_count - beats == pytest.approx(elapsed / 5.0, abs=1.1)
    assert tracker.generation == 1
    assert sim.violations == []


async def test_presences_wait_for_their_own_limit_and_hold_up_nothing_else(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """Five in 20 s: the sixth waits, a voice state asked for after it does not."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()
    began = clock.monotonic()
    games = [[{"name": str(number), "type": 0}] for number in range(7)]
    presences = [asyncio.ensure_future(tracker.set_presence(activities=game)) for game in games]
    await stage.result(tracker.update_voice_state(sim.guild_ids[0], None))
    assert clock.monotonic() - began < 2.0
    assert [presence.done() for presence in presences] == [True] * 5 + [False] * 2
    await stage.until(lambda: all(presence.done() for presence in presences))
    assert clock.monotonic() - began >= 20.0
    await stage.until(lambda: len(ops(sim, Op.PRESENCE_UPDATE)) == 7)
    assert [d["activities"] for d in ops(sim, Op.PRESENCE_UPDATE)] == games
    assert sim.violations == []


async def test_after_4008_commands_are_halved_for_a_minute(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """`SlowDown`: on the next connection half of the window is used, until the minute is over."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()
    await sim.close(4008)
    await stage.ready(generation=2)
    slow_until = clock.monotonic() + 60.0
    sends = [asyncio.ensure_future(tracker.update_voice_state(sim.guild_ids[0], None)) for _ in range(120)]
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) == 57)
    for _ in range(100):
        await stage.pass_time()
    assert sum(send.done() for send in sends) == 57
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) == 115, within=65.0)
    assert clock.monotonic() <= slow_until + 1.0
    await stage.until(lambda: all(send.done() for send in sends), within=65.0)
    assert sim.violations == []


async def test_23_what_is_too_large_is_refused_to_the_caller_and_not_sent(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """4,096 bytes are sent, one more is refused with both figures; the connection lives on."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()
    frame = b'{"op":3,"d":{"status":"idle","activities":[],"since":""}}'
    fitting: dict[str, Any] = {"status": "idle", "activities": [], "since": "x" * (4096 - len(frame))}
    await stage.result(tracker.send(Op.PRESENCE_UPDATE, fitting))
    with pytest.raises(CommandTooLarge, match=r"4,097 bytes .* 4,096") as refused:
        await tracker.send(Op.PRESENCE_UPDATE, {**fitting, "since": fitting["since"] + "x"})
    assert (refused.value.reason, refused.value.size, refused.value.limit) == ("too_large", 4097, 4096)
    await stage.until(lambda: ops(sim, Op.PRESENCE_UPDATE))
    assert len(ops(sim, Op.PRESENCE_UPDATE)) == 1
    assert (tracker.stats.command_sent_count, tracker.stats.command_refused_count) == (1, 1)
    assert tracker.state is State.READY
    assert sim.violations == []
