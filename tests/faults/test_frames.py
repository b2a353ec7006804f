"""Case 21: frames that the protocol forbids, and those that it does not know yet."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable

import pytest

from discorder.simulator import Simulator
from discorder.simulator.compression import ZLIB_SUFFIX
from discorder.statemachine import State
from discorder.wire import Op
from tests.faults.fault import FREE, Fault, say
from tests.faults.places import before_hello, in_identifying, in_resuming
from tests.faults.table import Case
from tests.harness import Stage, StartStage

Start = Callable[..., Awaitable[Simulator]]

BREACHES: dict[str, bytes] = {
    "a second READY": b'{"op":0,"t":"READY","s":99,"d":{"session_id":"other","resume_gateway_url":"ws://127.0.0.1:9"}}',
    "garbage": b"\x00",
    "half a JSON object": b'{"op":0,',
    "no JSON object": b"[]",
    "invalid UTF-8": b'{"op":0,"t":"X","s":99,"d":"\xff"}',
    "s beyond 64 bit": b'{"op":0,"t":"X","s":9223372036854775808,"d":{}}',
    "s beyond everything": b'{"op":0,"t":"X","s":1' + b"0" * 5000 + b',"d":{}}',
    "a negative s": b'{"op":0,"t":"X","s":-1,"d":{}}',
    "s going back": b'{"op":0,"t":"X","s":1,"d":{}}',
    "no s": b'{"op":0,"t":"X","d":{}}',
    "op 9 that is no bool": b'{"op":9,"d":"perhaps"}',
    "no op": b'{"t":"X","s":99,"d":{}}',
    "an op that is no number": b'{"op":"dispatch","t":"X","s":99,"d":{}}',
}


async def all_arrived(sim: Simulator, stage: Stage) -> None:
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))


@pytest.mark.parametrize("frame", BREACHES.values(), ids=BREACHES.keys())
async def test_21_a_breach_in_ready_is_a_resumable_restart(
    case: Case, sim: Simulator, start_stage: StartStage, frame: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logged and counted; the RESUME asks for what follows the last event that was good, and everything comes once."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    await say(sim)
    await all_arrived(sim, stage)
    last = stage.recorder.events[-1]
    fault = Fault(case, sim, stage)
    await sim.send_payload(frame)
    await say(sim)
    await fault.recovered(2)
    assert await fault.cost() == FREE
    (resume,) = [frame.d for frame in sim.received if frame.op == Op.RESUME]
    assert last.seq <= resume["seq"] <= sim.sent[-1][1]
    assert (sim.resumed, tracker.stats.restart_count) == (1, 1)
    assert [close.code for close in sim.closes if close.by == "client"] == [4000]
    assert "not healthy" in capsys.readouterr().err


async def test_21_a_second_ready_in_its_place_in_the_stream(
    case: Case, sim: Simulator, start_stage: StartStage
) -> None:
    """With the next seq it is an event like any other; the session stays the one that is known, and is resumed."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    session = tracker.session_label
    fault = Fault(case, sim, stage)
    await sim.dispatch("READY", {"session_id": "other", "resume_gateway_url": "ws://127.0.0.1:9"})
    await say(sim)
    await fault.recovered(2)
    assert await fault.cost() == FREE
    assert (sim.resumed, tracker.session_label) == (1, session)


# the others are dropped before READY, or where they were seen before
UNREADABLE = {name: frame for name, frame in BREACHES.items() if name not in {"a second READY", "s going back", "no s"}}


@pytest.mark.parametrize("frame", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("state", [State.IDENTIFYING, State.RESUMING])
async def test_21_a_breach_before_ready_is_a_restart_with_what_there_was(
    case: Case, sim: Simulator, start_stage: StartStage, frame: bytes, state: State
) -> None:
    """A session that was to be resumed is resumed on the next connection; nothing of the breach is published."""
    stage = await (in_identifying if state is State.IDENTIFYING else in_resuming)(sim, start_stage)
    generation = stage.tracker.generation
    fault = Fault(case, sim, stage)
    await sim.send_payload(frame)
    await stage.until(lambda: stage.tracker.state is not state, within=1.0)
    await sim.heal()
    await say(sim)
    await fault.recovered(generation + 1)
    assert await fault.cost() == (1 if state is State.IDENTIFYING else 0, 0, 0)


FIRST_FRAMES: dict[str, tuple[bytes, ...]] = {
    "op 7": (b'{"op":7}',),
    "op 9": (b'{"op":9,"d":false}',),
    "a dispatch": (b'{"op":0,"t":"MESSAGE_CREATE","s":1,"d":{}}',),
    "garbage": (b"\x00",),
    "a Hello without a heartbeat": (b'{"op":10,"d":{"heartbeat_interval":0}}',),
    "a Hello that asks for beats without end": (b'{"op":10,"d":{"heartbeat_interval":1e-20}}',),
    "a Hello that asks for a beat a month": (b'{"op":10,"d":{"heartbeat_interval":2592000000}}',),
    "a Hello without d": (b'{"op":10}',),
}


@pytest.mark.parametrize("frames", FIRST_FRAMES.values(), ids=FIRST_FRAMES.keys())
async def test_21_a_connection_that_begins_wrongly_is_replaced(
    case: Case, sim: Simulator, start_stage: StartStage, frames: tuple[bytes, ...]
) -> None:
    """Instead of a Hello that can be used: never an event of a session that there is not."""
    stage = await before_hello(sim, start_stage)
    fault = Fault(case, sim, stage)
    for frame in frames:
        await sim.send_payload(frame)
    await sim.stall()  # what it answers to that stays unread
    await stage.until(lambda: stage.tracker.generation == 2)
    await sim.heal()
    await fault.recovered(2)
    assert await fault.cost() == (1, 0, 0)
    assert [event.type for event in stage.recorder.events] == ["READY", "GUILD_CREATE", "GUILD_CREATE"]
    assert sim.resumes == 0


BOMB = b'{"op":0,"t":"X","s":99,"d":"%b"}' % (b"0" * (65 * 1024 * 1024))


@pytest.mark.parametrize("compress", ["zlib-stream", "zstd-stream", "payload"])
async def test_21_a_decompression_bomb_is_a_breach(
    case: Case, start_simulator: Start, start_stage: StartStage, compress: str
) -> None:
    """65 MiB in some 65 KiB: given up without being read, and the session resumed."""
    sim = await start_simulator(max_backlog=1 << 30)
    stage = start_stage(sim, f"gateway.compress={compress}")
    await stage.ready()
    await all_arrived(sim, stage)
    fault = Fault(case, sim, stage)
    await sim.send_payload(BOMB)
    await say(sim)
    await fault.recovered(2)
    assert "larger than" in (stage.tracker.shards[0].transitions[-5].cause or "")
    assert await fault.cost() == FREE
    assert sim.resumed == 1


BROKEN: dict[str, bytes] = {
    "truncated": zlib.compress(b'{"op":11,"d":null}' * 50)[:-20],
    "corrupt": b"\xff" * 20 + ZLIB_SUFFIX,
    "ended": zlib.compress(b"{}") + ZLIB_SUFFIX,
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("compress", ["zlib-stream", "zstd-stream"])
async def test_21_a_compressed_stream_that_breaks_is_a_breach(
    case: Case, sim: Simulator, start_stage: StartStage, frame: bytes, compress: str
) -> None:
    """A truncated message shows when the next one comes. The new connection begins with a new decompressor."""
    stage = start_stage(sim, f"gateway.compress={compress}")
    await stage.ready()
    await all_arrived(sim, stage)
    fault = Fault(case, sim, stage)
    await sim.send_binary(frame)
    await say(sim)
    await fault.recovered(2)
    assert await fault.cost() == FREE
    assert (sim.resumed, stage.tracker.stats.restart_count) == (1, 1)


async def test_21_unknown_opcodes_and_events_pass_through(case: Case, sim: Simulator, start_stage: StartStage) -> None:
    """Counted, published byte for byte, never fatal."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    fault = Fault(case, sim, stage)
    await sim.send_op(99, {"new": True})
    await sim.dispatch_raw("EVENT_OF_TOMORROW", b'{"z": 1, "a" :[ 2]}')
    assert await fault.cost() == FREE
    assert stage.recorder.events[-1].data == b'{"z": 1, "a" :[ 2]}'
    assert tracker.stats.unknown_opcodes == {99: 1}
    assert tracker.stats.events_by_type["EVENT_OF_TOMORROW"] == 1
    assert tracker.generation == 1
