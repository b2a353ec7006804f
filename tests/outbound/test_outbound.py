"""Commands to the gateway: limits, order, reconnects, refusals. The simulator, on the same clock, reports violations."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import discorder
from discorder import BotClient, serve_in_background
from discorder.clock import FakeClock, SystemClock
from discorder.errors import (
    Closed,
    CommandRateLimited,
    CommandRefused,
    FatalCloseError,
    InvalidCommand,
    NoSuchShard,
    NotRunning,
    NotStarted,
    ShardNotReady,
)
from discorder.outbound.checks import COMMANDS
from discorder.outbound.members import GuildMembers
from discorder.publishers.protocol import BusApi
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op, shard_of_guild
from tests.harness import Recorder

if TYPE_CHECKING:
    from tests.harness import Exchange, Line, Stage, StartMemoryStage, StartStage

Start = Callable[..., Awaitable[Simulator]]
ANN: dict[str, Any] = {"guild_id": "1", "query": "ann", "limit": 10}
VOICE: dict[str, Any] = {"channel_id": None, "self_mute": False, "self_deaf": False}


def ops(sim: Simulator, op: Op) -> list[Any]:
    """Return ``d`` of every frame with this opcode that the simulator read."""
    return [frame.d for frame in sim.received if frame.op == op]


def others(line: Line) -> list[Any]:
    """Return ``d`` of the frames with opcode 44 that were written to ``line``."""
    return [frame["d"] for frame in line.sent if frame["op"] == 44]


class Answering(Recorder):
    """A publisher whose readers can send commands, like those of the bus."""

    bus_api: BusApi

    def answer_from(self, bus_api: BusApi) -> None:
        self.bus_api = bus_api

    def goes_on(self, shard: tuple[int, int], session: str, seq: int) -> None:
        """Do nothing: this publisher stores no position."""


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


async def test_requested_heartbeats_reduce_the_room_for_commands_once_the_reserve_is_used_up(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """Thirty op 1 are answered at once; the answers count towards the send limit."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()

    async def ask_for_a_beat() -> None:
        beats = tracker.stats.heartbeat_sent_count
        await sim.send_op(Op.HEARTBEAT)
        await stage.until(lambda: tracker.stats.heartbeat_sent_count > beats)

    for _ in range(30):
        await ask_for_a_beat()
    sends = [asyncio.ensure_future(tracker.update_voice_state(sim.guild_ids[0], None)) for _ in range(120)]
    await stage.until(lambda: len(ops(sim, Op.VOICE_STATE_UPDATE)) >= 85)
    for _ in range(40):
        await stage.pass_time()
    assert len(ops(sim, Op.VOICE_STATE_UPDATE)) == 120 - 31  # IDENTIFY is counted too
    assert sim.violations == []
    for send in sends:
        send.cancel()


async def test_presences_wait_for_their_own_limit_and_delay_no_other_command(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """Five in 20 s: the sixth waits, a later voice state does not."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker = await stage.ready()
    began = clock.monotonic()
    games = [[{"name": str(number), "type": 0}] for number in range(7)]
    presences = [asyncio.ensure_future(tracker.set_presence(activities=game)) for game in games]
    await stage.until(lambda: sum(presence.done() for presence in presences) == 5)
    for _ in range(10):  # the sixth sleeps until its moment
        await stage.pass_time()
    await stage.result(tracker.update_voice_state(sim.guild_ids[0], None))
    assert clock.monotonic() - began < 3.0
    assert [presence.done() for presence in presences] == [True] * 5 + [False] * 2
    await stage.until(lambda: all(presence.done() for presence in presences))
    assert clock.monotonic() - began >= 20.0
    await stage.until(lambda: len(ops(sim, Op.PRESENCE_UPDATE)) == 7)
    assert [d["activities"] for d in ops(sim, Op.PRESENCE_UPDATE)] == games
    assert sim.violations == []


async def test_after_4008_commands_are_halved_for_a_minute(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """`SlowDown`: the next connection uses half of the window for a minute."""
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


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("op", [Op.HEARTBEAT, Op.IDENTIFY, Op.RESUME, Op.DISPATCH, Op.HEARTBEAT_ACK])
async def test_a_bot_cannot_send_the_control_planes_own_commands(start_memory_stage: StartMemoryStage, op: Op) -> None:
    """Heartbeat, IDENTIFY, RESUME, and the opcodes of the server."""
    stage = start_memory_stage()
    line = await stage.identified()
    sent = len(line.sent)
    with pytest.raises(InvalidCommand, match=f"op {op.value} cannot be sent by a bot"):
        await stage.tracker.send(op, {})
    assert len(line.sent) == sent


@pytest.mark.parametrize(
    ("op", "d", "says"),
    [
        (Op.PRESENCE_UPDATE, None, "must be an object, not NoneType"),
        (Op.PRESENCE_UPDATE, {"status": "asleep", "activities": []}, "status is 'asleep'; allowed: online"),
        (Op.PRESENCE_UPDATE, {"status": "idle", "activities": None}, "activities must be an array"),
        (Op.VOICE_STATE_UPDATE, VOICE, "None is not a guild or user id"),
        (Op.VOICE_STATE_UPDATE, {"guild_id": "here", **VOICE}, "'here' is not a guild or user id"),
        (Op.REQUEST_GUILD_MEMBERS, {"guild_id": "1"}, "needs user_ids, or a query"),
        (Op.REQUEST_GUILD_MEMBERS, {"guild_id": "1", "query": "", "limit": 0}, "need the intent guild_members"),
        (
            Op.REQUEST_GUILD_MEMBERS,
            {"guild_id": "1", "user_ids": list(range(101))},
            "101 user_ids; Discord takes 1 to 100",
        ),
        (Op.REQUEST_GUILD_MEMBERS, {"guild_id": "1", "user_ids": []}, "0 user_ids"),
        (Op.REQUEST_GUILD_MEMBERS, {"guild_id": "1", "user_ids": ["me"]}, "'me' is not a guild or user id"),
        (Op.REQUEST_SOUNDBOARD_SOUNDS, {"guild_ids": "1"}, "guild_ids must be an array"),
        (Op.REQUEST_CHANNEL_INFO, {"guild_id": True, "fields": []}, "True is not a guild or user id"),
        (99, {"odd": object()}, "cannot be written as JSON"),
        ("3", {}, "an opcode is an integer"),
        (-1, {}, "an opcode is an integer from 0 to 255"),
        (10**30, {}, "an opcode is an integer from 0 to 255"),
        (99, {"n": 10**5_000}, "cannot be written as JSON"),
        (
            Op.VOICE_STATE_UPDATE,
            {**VOICE, "guild_id": "9" * 5_000},
            r"'9+… \(5,002 characters\) is not a guild or user id",
        ),
        (Op.VOICE_STATE_UPDATE, {**VOICE, "guild_id": "1", "channel_id": "here"}, "'here' is not a guild or user id"),
        (Op.VOICE_STATE_UPDATE, {**VOICE, "guild_id": 1 << 64}, "18446744073709551616 is not a guild or user id"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "nonce": "n" * 33}, "nonce has 33 bytes; Discord takes 32"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "nonce": "é€" * 7}, "nonce has 35 bytes"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "nonce": 7}, "nonce must be a string, not int"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "user_ids": ["2"]}, "user_ids or a query, not both"),
        (Op.REQUEST_GUILD_MEMBERS, {"guild_id": "1", "query": "ann"}, "a query .* with a limit"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "limit": None}, "a query .* with a limit"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "limit": 0}, "limit is 0; Discord takes 1 to 100 with a query"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "limit": 101}, "limit is 101"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "limit": -1}, "limit is -1"),
        (Op.REQUEST_GUILD_MEMBERS, {**ANN, "presences": "yes"}, "presences must be true or false"),
        (Op.PRESENCE_UPDATE, {"status": "idle", "activities": [], "since": 10**30}, "since is 1000"),
    ],
)
async def test_a_command_for_which_discord_would_close_the_connection_is_refused(
    start_memory_stage: StartMemoryStage, op: Any, d: Any, says: str
) -> None:
    """A command for which Discord would close with 4001 or 4014 is not sent; the error names the reason."""
    stage = start_memory_stage()
    line = await stage.identified()
    sent = len(line.sent)
    with pytest.raises(InvalidCommand, match=says) as refused:
        await stage.tracker.send(op, d)
    assert (refused.value.reason, refused.value.retry_after) == ("invalid", None)
    assert len(line.sent) == sent


async def test_an_opcode_that_is_newer_than_this_version_is_sent(start_memory_stage: StartMemoryStage) -> None:
    """Discord adds opcodes now and then."""
    stage = start_memory_stage()
    line = await stage.identified()
    await stage.result(stage.tracker.send(44, {"new": True}))
    assert line.sent[-1] == {"op": 44, "d": {"new": True}}


async def test_a_command_that_may_not_wait_is_refused_with_the_time_to_wait(
    start_memory_stage: StartMemoryStage,
) -> None:
    """`timeout` 0 means at once or not at all; `retry_after` is the time until there is room."""
    stage = start_memory_stage()
    await stage.identified()
    for _ in range(5):
        await stage.result(stage.tracker.set_presence(timeout=0))
    with pytest.raises(CommandRateLimited, match=r"as many presence updates .* try again in 2\d\.\d s") as limited:
        await stage.tracker.set_presence(timeout=0)
    assert limited.value.reason == "rate_limited"
    assert limited.value.retry_after == pytest.approx(20.5, abs=0.7)
    with pytest.raises(CommandRateLimited):
        await stage.result(stage.tracker.set_presence(timeout=5.0))
    await stage.result(stage.tracker.set_presence(timeout=20.0))
    assert (stage.tracker.stats.command_sent_count, stage.tracker.stats.command_refused_count) == (6, 2)


async def test_a_command_that_is_queued_before_the_end_of_the_sending_task_is_noticed_is_sent(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """The task ends when its queue is empty; a command that comes in the same turn must start another one."""
    line = exchange.prepare()
    original, requests = line.send, list[asyncio.Future[GuildMembers]]()

    async def send(data: bytes) -> None:
        await original(data)
        if b'"op":44' in data:
            requests.append(asyncio.ensure_future(stage.tracker.request_guild_members(1, query="ann", limit=10)))

    line.send = send  # type: ignore[method-assign]  # a write that does not suspend
    stage = start_memory_stage()
    await stage.identified()
    await stage.result(stage.tracker.send(44, {"number": 0}))
    await stage.until(lambda: line.ops(Op.REQUEST_GUILD_MEMBERS))
    requests[0].cancel()


async def test_the_queue_is_bounded(start_memory_stage: StartMemoryStage) -> None:
    """A thousand commands wait; one more is refused at once and the others stay queued."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    await stage.in_state(State.RESTARTING)
    waiting = [asyncio.ensure_future(stage.tracker.send(44, {"number": number})) for number in range(1000)]
    await asyncio.sleep(0)
    with pytest.raises(CommandRateLimited, match="1,000 commands already wait for shard 0"):
        await stage.tracker.send(44, {"number": 1000})
    for one in waiting[1:]:
        one.cancel()
    line = await stage.resuming(2)
    line.feed(line.dispatched("RESUMED"))
    await stage.until(waiting[0].done)
    assert others(line) == [{"number": 0}]


# ---------------------------------------------------------------- across connections


async def test_commands_that_wait_when_ready_is_lost_are_sent_in_order_on_the_next_session(
    start_memory_stage: StartMemoryStage,
) -> None:
    """A command that was being written is written again, before the others."""
    stage = start_memory_stage()
    first = await stage.identified()
    first.writes.clear()
    sends = [asyncio.ensure_future(stage.tracker.send(44, {"number": number})) for number in range(3)]
    await stage.pass_time()
    first.lose()
    await stage.in_state(State.RESTARTING)
    sends.append(asyncio.ensure_future(stage.tracker.send(44, {"number": 3})))
    second = await stage.resuming(2)
    await stage.pass_time()
    assert others(second) == []
    second.feed(second.dispatched("RESUMED"))
    await stage.until(lambda: all(send.done() for send in sends))
    assert others(second) == [{"number": number} for number in range(4)]
    assert others(first) == []


async def test_a_command_to_a_paused_shard_is_refused_with_what_ends_the_pause(
    start_memory_stage: StartMemoryStage,
) -> None:
    stage = start_memory_stage()
    await stage.identified()
    stage.tracker.pause_shard(0)
    await stage.in_state(State.RESTARTING)
    with pytest.raises(ShardNotReady, match=r"shard 0 is paused by an operator since .*shards unpause 0`$"):
        await stage.tracker.send(44, {}, timeout=0)


async def test_a_command_with_a_timeout_is_refused_without_a_session(start_memory_stage: StartMemoryStage) -> None:
    """`not_ready` at once, or after the timeout; a cancelled command is removed from the queue."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    await stage.in_state(State.RESTARTING)
    with pytest.raises(ShardNotReady, match="shard 0 has no session now") as refused:
        await stage.tracker.send(44, {"number": 0}, timeout=0)
    assert refused.value.reason == "not_ready"
    with pytest.raises(ShardNotReady):
        await stage.result(stage.tracker.send(44, {"number": 1}, timeout=0.2))
    given_up = asyncio.ensure_future(stage.tracker.send(44, {"number": 2}))
    await asyncio.sleep(0)
    given_up.cancel()
    kept = asyncio.ensure_future(stage.tracker.send(44, {"number": 3}))
    line = await stage.resuming(2)
    line.feed(line.dispatched("RESUMED"))
    await stage.until(kept.done)
    assert others(line) == [{"number": 3}]


async def test_until_the_gateway_is_looked_up_a_command_waits_for_a_shard(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """With ``shards = "auto"`` the shard of a guild is not known yet; a command that may not wait is refused."""
    exchange.answers.clear()
    stage = start_memory_stage()
    await stage.in_state(State.DISCONNECTED)
    patient = asyncio.ensure_future(stage.tracker.send(44, {"number": 1}))
    with pytest.raises(ShardNotReady, match="there is no shard: the look-up of the gateway is not done"):
        await stage.tracker.set_presence(timeout=0)
    with pytest.raises(ShardNotReady):
        await stage.result(stage.tracker.set_presence(timeout=0.3))
    with pytest.raises(ShardNotReady):
        await stage.tracker.request_guild_members(1, query="a", limit=1, wait=False)
    exchange.answers.set()
    line = await stage.identified()
    await stage.until(patient.done)
    assert others(line) == [{"number": 1}]


async def test_a_plane_that_ends_before_the_look_up_refuses_the_waiting_commands(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """Because there will be no shard."""
    exchange.answers.clear()
    stage = start_memory_stage()
    await stage.in_state(State.DISCONNECTED)
    waiting = asyncio.ensure_future(stage.tracker.set_presence())
    await stage.stop()
    with pytest.raises(ShardNotReady, match="the control plane has ended"):
        await waiting


async def test_a_shutdown_refuses_waiting_and_later_commands(start_memory_stage: StartMemoryStage) -> None:
    """No caller waits for a control plane that has ended."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.lose()
    await stage.in_state(State.RESTARTING)
    waiting = asyncio.ensure_future(stage.tracker.set_presence())
    await stage.stop()
    with pytest.raises(ShardNotReady, match="shard 0 has ended"):
        await waiting
    with pytest.raises(ShardNotReady, match="shard 0 has ended"):
        await stage.tracker.set_presence()


async def test_a_new_session_gets_the_last_presence_again(start_memory_stage: StartMemoryStage) -> None:
    """IDENTIFY starts without a presence. After a RESUME Discord still has it."""
    stage = start_memory_stage()
    line = await stage.identified()
    await stage.result(stage.tracker.set_presence(status="dnd"))
    line.lose()
    resumed = await stage.resuming(2)
    resumed.feed(resumed.dispatched("RESUMED"))
    await stage.ready(generation=2)
    await stage.pass_time()
    assert resumed.ops(Op.PRESENCE_UPDATE) == []
    resumed.feed({"op": Op.INVALID_SESSION, "d": False})
    anew = await stage.line(3)
    anew.hello()
    await stage.until(lambda: anew.ops(Op.IDENTIFY))
    anew.ready("s2")
    await stage.until(lambda: anew.ops(Op.PRESENCE_UPDATE))
    assert [d["status"] for d in anew.ops(Op.PRESENCE_UPDATE)] == ["dnd"]


async def test_a_queued_presence_is_sent_on_the_next_session(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """The newest of a burst is sent, once Discord's limit allows; the others in between are not."""
    sim = await start_simulator(clock=clock)
    bus = Answering("bus")
    stage = start_stage(sim, clock=clock, publishers=[bus])
    await stage.ready()
    answers = [
        await stage.result(
            bus.bus_api.command("presence", {"status": one, "activities": []}, shard=None, guild_id=None)
        )
        for one in ("online", "dnd", "idle", "online", "dnd", "online", "idle", "invisible")
    ]
    assert [bool(answer) for answer in answers] == [False] * 5 + [True] * 3
    await sim.close(4000)
    await stage.ready(generation=2)
    await stage.until(lambda: len(ops(sim, Op.PRESENCE_UPDATE)) == 6, within=30.0)
    assert [d["status"] for d in ops(sim, Op.PRESENCE_UPDATE)][4:] == ["dnd", "invisible"]
    assert sim.violations == []


async def test_a_newer_presence_that_waits_replaces_the_last_one(
    start_memory_stage: StartMemoryStage,
) -> None:
    """The old presence is not shown again, not even for a moment."""
    stage = start_memory_stage()
    line = await stage.identified()
    await stage.result(stage.tracker.set_presence(status="dnd"))
    line.feed({"op": Op.INVALID_SESSION, "d": False})
    await stage.in_state(State.RESTARTING)
    newer = asyncio.ensure_future(stage.tracker.set_presence(status="idle"))
    anew = await stage.line(2)
    anew.hello()
    await stage.until(lambda: anew.ops(Op.IDENTIFY))
    anew.ready("s2")
    await stage.until(newer.done)
    assert [d["status"] for d in anew.ops(Op.PRESENCE_UPDATE)] == ["idle"]


async def test_a_write_error_ends_the_connection_and_the_command_is_sent_on_the_next_one(
    start_memory_stage: StartMemoryStage,
) -> None:
    """Every write error except a closed socket is reported as a failure of the connection."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.write_error = RuntimeError("torn wire")
    sending = asyncio.ensure_future(stage.tracker.send(44, {"number": 0}))
    second = await stage.resuming(2)
    assert "torn wire" in str(stage.tracker.shards[0].cause)
    second.feed(second.dispatched("RESUMED"))
    await stage.until(sending.done)
    assert others(second) == [{"number": 0}]


async def test_after_a_write_to_a_closed_socket_the_processor_still_reads_the_close_code(
    start_memory_stage: StartMemoryStage,
) -> None:
    """4004 can still be read from a socket that cannot be written to: the error is fatal."""
    stage = start_memory_stage()
    line = await stage.identified()
    line.write_error = Closed(None, "network")
    sending = asyncio.ensure_future(stage.tracker.send(44, {"number": 0}))
    await stage.fake.advance(1.0)
    assert stage.tracker.state is State.READY
    line.lose(4004)
    assert isinstance(await stage.end(), FatalCloseError)
    with pytest.raises(ShardNotReady, match="shard 0 has ended"):
        await sending


# ---------------------------------------------------------------- shards


async def test_each_command_is_sent_to_its_shard(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """A presence to all shards, other commands by ``(guild_id >> 22) % count``, op 31 split over the shards of its guilds."""
    sim = await start_simulator(clock=clock, guilds=4, max_concurrency=2)
    stage = start_stage(sim, "gateway.shards=2", clock=clock)
    await stage.until(lambda: is_up(stage))
    tracker = stage.tracker
    guild = next(guild for guild in sim.guild_ids if shard_of_guild(guild, 2) == 1)
    await stage.result(tracker.set_presence())
    await stage.result(tracker.update_voice_state(guild, None))
    sounds = {"guild_ids": [str(guild_id) for guild_id in sim.guild_ids]}
    await stage.result(tracker.send(Op.REQUEST_SOUNDBOARD_SOUNDS, sounds))
    await stage.result(tracker.send(Op.PRESENCE_UPDATE, {"status": "idle", "activities": []}, shard=1))
    await stage.until(lambda: len(sim.received) >= 8)
    assert sorted(shards(sim, Op.PRESENCE_UPDATE), key=str) == [0, 1, 1]
    assert shards(sim, Op.VOICE_STATE_UPDATE) == [1]
    asked = [frame for frame in sim.received if frame.op == Op.REQUEST_SOUNDBOARD_SOUNDS]
    for frame in asked:
        assert {shard_of_guild(guild_id, 2) for guild_id in frame.d["guild_ids"]} == {frame.shard}
    assert sorted(guild_id for frame in asked for guild_id in frame.d["guild_ids"]) == sorted(sounds["guild_ids"])
    with pytest.raises(NoSuchShard, match=r"op 44 without a guild_id does not determine one of 2 shards; pass shard="):
        await tracker.send(44, {})
    with pytest.raises(NoSuchShard, match=r"there is no shard 2 of 2 in this process; its shards are: 0, 1") as refused:
        await tracker.send(44, {}, shard=2)
    assert refused.value.reason == "no_such_shard"
    assert sim.violations == []


async def test_a_guild_of_a_shard_that_runs_elsewhere_is_refused(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """``shards = { ids = [1], of = 2 }``: the other half belongs to another process."""
    sim = await start_simulator(clock=clock, guilds=4)
    stage = start_stage(sim, "gateway.shards={ids=[1],of=2}", clock=clock)
    await stage.until(lambda: is_up(stage))
    guild = next(guild for guild in sim.guild_ids if shard_of_guild(guild, 2) == 0)
    with pytest.raises(NoSuchShard, match="there is no shard 0 of 2 in this process; its shards are: 1"):
        await stage.tracker.update_voice_state(guild, None)
    with pytest.raises(NoSuchShard):
        await stage.tracker.request_guild_members(guild, query="a", limit=1)


def is_up(stage: Stage) -> bool:
    """Return whether every shard is Ready."""
    try:
        return all(shard.state is State.READY for shard in stage.tracker.shards)
    except NotStarted:
        return False


def shards(sim: Simulator, op: Op) -> list[int | None]:
    """Return the shard of every frame with this opcode."""
    return [frame.shard for frame in sim.received if frame.op == op]


# ---------------------------------------------------------------- by name, and from other threads


async def test_commands_by_name_are_those_of_the_bus(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock
) -> None:
    """``d`` as JSON; a separate ``guild_id`` is added to it."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, clock=clock)
    tracker, guild = await stage.ready(), sim.guild_ids[0]
    await stage.result(tracker.command("presence", {"status": "idle", "activities": []}))
    await stage.result(tracker.command("voice_state", VOICE, guild_id=str(guild)))
    await stage.result(tracker.command("members", {"query": "a", "limit": 5, "nonce": "mine"}, guild_id=guild))
    await stage.result(tracker.command("channel_info", {"fields": ["status"]}, guild_id=guild))
    await stage.result(tracker.command("soundboard_sounds", {"guild_ids": [str(guild)]}))
    await stage.until(lambda: ops(sim, Op.REQUEST_SOUNDBOARD_SOUNDS))
    assert ops(sim, Op.VOICE_STATE_UPDATE) == [{"guild_id": str(guild), **VOICE}]
    assert ops(sim, Op.REQUEST_GUILD_MEMBERS)[0]["nonce"] == "mine"
    await stage.until(lambda: {"GUILD_MEMBERS_CHUNK", "CHANNEL_INFO"} <= {e.type for e in stage.recorder.events})
    with pytest.raises(InvalidCommand, match="there is no command 'shutdown'; the commands are: presence, members"):
        await tracker.command("shutdown", {})


async def test_commands_may_be_awaited_on_another_loop(sim: Simulator, start_stage: StartStage) -> None:
    """A thread with its own event loop awaits the same methods; cancelling there removes the command from the queue."""
    stage = start_stage(sim, clock=SystemClock())

    async def elsewhere() -> GuildMembers:
        tracker = await stage.ref.ready(5)
        await tracker.set_presence(status="idle")
        for _ in range(4):
            await tracker.set_presence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await tracker.set_presence(status="dnd")
        return await tracker.request_guild_members(sim.guild_ids[0], query="", limit=5)

    found = await asyncio.to_thread(asyncio.run, elsewhere())
    assert len(found.members) == 5
    assert [d["status"] for d in ops(sim, Op.PRESENCE_UPDATE)] == ["idle", *["online"] * 4]
    await stage.stop()


async def test_a_thread_without_a_loop_uses_the_background_handle(sim: Simulator, tmp_path: Path) -> None:
    """`handle.call` returns the result of the coroutine or raises its error; after the end it raises NotRunning."""
    config = tmp_path / "bot.toml"
    config.write_text(
        f'gateway.api = "{sim.api_url}"\nsession.store = ""\nhttp.bind = ""\n[publishers.sink]\nkind = "channel"\n'
    )
    handle = serve_in_background(client=BotClient(sim.token), config_file_path=config)

    def in_a_thread() -> GuildMembers:
        tracker = handle.tracker
        handle.call(tracker.set_presence(status="idle"), timeout=5.0)
        with pytest.raises(InvalidCommand):
            handle.call(tracker.send(Op.IDENTIFY, {}))
        found = handle.call(tracker.request_guild_members(sim.guild_ids[0], query="", limit=3))
        handle.shutdown()
        with pytest.raises(NotRunning, match="has ended"):
            handle.call(tracker.set_presence())
        return found

    assert len((await asyncio.to_thread(in_a_thread)).members) == 3
    assert [d["status"] for d in ops(sim, Op.PRESENCE_UPDATE)] == ["idle"]


# ---------------------------------------------------------------- the page


PAGE = (Path(__file__).parent.parent.parent / "docs" / "outbound.md").read_text(encoding="utf-8")


async def test_the_example_of_the_page_runs(
    start_simulator: Start, start_stage: StartStage, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of docs/outbound.md is run unchanged."""
    sim = await start_simulator(clock=clock)
    stage = start_stage(sim, "log.level=error", clock=clock)
    tracker = await stage.ready()
    names: dict[str, Any] = {"discorder": discorder}
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(example, names)  # noqa: S102  # our own page
    await stage.result(names["greet"](tracker, sim.guild_ids[0], 7))
    await stage.until(lambda: ops(sim, Op.REQUEST_CHANNEL_INFO))
    assert [frame.op for frame in sim.received if frame.op > Op.IDENTIFY] == [3, 4, 8, 43]
    assert sim.violations == []
    assert "rate_limited" not in capsys.readouterr().out


def test_the_page_lists_every_refusal_and_every_name() -> None:
    """With the class, the word on the bus and the names of the commands."""
    for refusal in CommandRefused.__subclasses__():
        assert f"`{refusal.__name__}`" in PAGE
    for reason in ("rate_limited", "too_large", "no_such_shard", "not_ready", "invalid", "no_answer"):
        assert f"| `{reason}` |" in PAGE
    for name in COMMANDS:
        assert f"`{name}`" in PAGE


# ---------------------------------------------------------------- an old socket


async def test_a_write_that_ignores_its_cancellation_does_not_count_as_sent(
    start_memory_stage: StartMemoryStage, exchange: Exchange
) -> None:
    """It wrote to an abandoned socket; the command is sent on the next session."""
    line = exchange.prepare()
    obedient, release = line.send, asyncio.Event()

    async def send(data: bytes) -> None:
        while b'"op":44' in data and not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        await obedient(data)

    line.send = send  # type: ignore[method-assign]  # a transport that ignores cancellation
    stage = start_memory_stage()
    await stage.identified()
    sending = asyncio.ensure_future(stage.tracker.send(44, {"number": 0}))
    await stage.pass_time()
    line.lose()
    await stage.in_state(State.RESTARTING)
    release.set()
    await stage.pass_time()
    assert not sending.done()
    second = await stage.resuming(2)
    second.feed(second.dispatched("RESUMED"))
    await stage.until(sending.done)
    assert others(second) == [{"number": 0}]
    assert stage.tracker.stats.command_sent_count == 1
