"""What the session survives, against the simulator: each interruption, and then every event was published once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from discorder.clock import FakeClock
from discorder.errors import (
    AttemptsExhausted,
    AuthenticationFailed,
    ConnectFailed,
    FatalCloseError,
    GatewayUnreachable,
)
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op, session_label

if TYPE_CHECKING:
    from tests.stage import Caught, StartStage

Start = Callable[..., Awaitable[Simulator]]
Catch = Callable[..., "Caught"]
Interrupt = Callable[[Simulator], Awaitable[None]]

INTERRUPTIONS: dict[str, Interrupt] = {
    "op 7": lambda sim: sim.reconnect(),
    "op 9 true": lambda sim: sim.invalidate(resumable=True),
    "drop": lambda sim: sim.drop(),
    **{
        f"close {code}": lambda sim, code=code: sim.close(code)  # type: ignore[misc]  # a default binds the loop's value
        for code in (1000, 1001, 4000, 4001, 4002, 4003, 4005, 4008, 4321)
    },
    "garbage": lambda sim: sim.send_payload(b'{"op":0,'),
    "no JSON object": lambda sim: sim.send_payload(b"[]"),
    "invalid UTF-8": lambda sim: sim.send_payload(b'{"op":0,"t":"X","s":99,"d":"\xff"}'),
    "s beyond 64 bit": lambda sim: sim.send_payload(b'{"op":0,"t":"X","s":9223372036854775808,"d":{}}'),
    "a negative s": lambda sim: sim.send_payload(b'{"op":0,"t":"X","s":-1,"d":{}}'),
    "s going back": lambda sim: sim.send_payload(b'{"op":0,"t":"X","s":1,"d":{}}'),
    "no s": lambda sim: sim.send_payload(b'{"op":0,"t":"X","d":{}}'),
    "no t": lambda sim: sim.send_payload(b'{"op":0,"s":99,"d":{}}'),
    "no d": lambda sim: sim.send_payload(b'{"op":0,"t":"X","s":99}'),
    "a second READY": lambda sim: sim.send_payload(
        b'{"op":0,"t":"READY","s":99,"d":{"session_id":"other","resume_gateway_url":"ws://127.0.0.1:9"}}'
    ),
    "a second Hello": lambda sim: sim.send_op(Op.HELLO, {"heartbeat_interval": 1000}),
    "a Hello that cannot be": lambda sim: sim.send_op(Op.HELLO, {"heartbeat_interval": 0}),
    "an op 9 that is no bool": lambda sim: sim.send_op(Op.INVALID_SESSION, "perhaps"),
}


async def say(sim: Simulator, count: int = 3) -> None:
    for number in range(count):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})


@pytest.mark.parametrize("interrupt", INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys())
async def test_an_interruption_is_resumed_and_nothing_is_lost(
    sim: Simulator, start_stage: StartStage, catch: Catch, interrupt: Interrupt
) -> None:
    """RESUME with the seq of the last event that was handed over, no second IDENTIFY, every event once and in order.

    A seq that is too low would publish an event twice, one that is too high would lose it.
    """
    stage = start_stage(sim)
    tracker = await stage.ready()
    caught = catch(sim, stage)
    await say(sim)
    await caught.up()
    last = stage.recorder.events[-1]
    await interrupt(sim)
    await say(sim)
    await stage.ready(generation=2)
    await caught.up()
    assert (sim.identifies, sim.resumes, sim.resumed) == (1, 1, 1)
    (resume,) = [frame.d for frame in sim.received if frame.op == Op.RESUME]
    assert resume["seq"] >= last.seq
    assert session_label(resume["session_id"]) == last.session
    assert stage.ref.value is tracker
    assert tracker.stats.restart_count == tracker.stats.resume_count == 1
    assert not any(close.by == "client" and close.code in {1000, 1001} for close in sim.closes)


@pytest.mark.parametrize(
    "interrupt", [lambda sim: sim.invalidate(), lambda sim: sim.close(4007), lambda sim: sim.close(4009)]
)
async def test_a_session_that_is_gone_is_followed_by_a_new_one(
    sim: Simulator, start_stage: StartStage, catch: Catch, interrupt: Interrupt
) -> None:
    """Op 9 false, 4007 and 4009: one more IDENTIFY, not before Discord's spacing, and no RESUME."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    first = tracker.session_label
    caught = catch(sim, stage)
    await say(sim)
    await interrupt(sim)
    await stage.ready(generation=2)
    await caught.up()
    assert (sim.identifies, sim.resumes) == (2, 0)
    assert tracker.session_label != first
    assert tracker.seq == sim.sent[-1][1]
    assert len(sim.sessions) == 1


async def test_a_resume_host_that_refuses_costs_the_session_nothing(
    sim: Simulator, start_stage: StartStage, catch: Catch
) -> None:
    """The main host is tried with the same session: back within 15 s, no IDENTIFY (fault case 1)."""
    stage = start_stage(sim)
    await stage.ready()
    caught = catch(sim, stage)
    await sim.refuse_upgrades(503, "resume")
    await sim.drop()
    await say(sim)
    lost_at = stage.clock.monotonic()
    await stage.ready(generation=3, within=15.0)
    assert stage.clock.monotonic() - lost_at < 15.0
    await caught.up()
    assert (sim.identifies, sim.resumed, sim.refused_upgrades) == (1, 1, 1)


async def test_a_host_that_sends_no_hello_is_given_up_after_15_seconds(sim: Simulator, start_stage: StartStage) -> None:
    """A connection is no session: without a deadline on Hello it would wait for ever (fault case 2)."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    await sim.withhold_hello()
    await sim.drop()
    await stage.in_state(State.CONNECTING, generation=2)
    began = stage.clock.monotonic()
    await stage.until(lambda: stage.states[-1] is not State.CONNECTING)
    assert 14.5 < stage.clock.monotonic() - began < 15.5
    assert "Hello did not come within 15 s" in (tracker.shards[0].cause or "")
    await sim.heal()
    await stage.ready(generation=3)
    assert (sim.identifies, sim.resumed) == (1, 1)


@pytest.mark.parametrize("how", ["acks are swallowed", "the socket is half open"])
async def test_a_zombie_is_noticed_within_one_and_a_half_intervals_of_the_last_frame(
    start_simulator: Start, start_stage: StartStage, catch: Catch, how: str
) -> None:
    """A beat is unanswered for half an interval and no frame came since: RESUME on a new connection (fault case 3)."""
    sim = await start_simulator(heartbeat_interval_ms=10_000)
    stage = start_stage(sim)
    tracker = await stage.ready()
    caught = catch(sim, stage)
    await stage.until(lambda: tracker.stats.heartbeat_received_count == 2)
    quiet_since = stage.clock.monotonic()
    await (sim.swallow_acks() if how == "acks are swallowed" else sim.stall())
    await stage.until(lambda: tracker.state is not State.READY)
    assert stage.clock.monotonic() - quiet_since <= 15.1
    assert "no ACK for a heartbeat" in (tracker.shards[0].cause or "")
    await sim.heal()
    await stage.ready(generation=2)
    await caught.up()
    assert (sim.identifies, sim.resumed) == (1, 1)


async def test_a_quiet_guild_is_no_reason_to_restart(start_simulator: Start, start_stage: StartStage) -> None:
    """Nothing but ACKs for a quarter of an hour: no restart, healthy all the time (fault case 17)."""
    sim = await start_simulator(guilds=0, heartbeat_interval_ms=41_250)
    stage = start_stage(sim)
    assert isinstance(stage.clock, FakeClock)
    tracker = await stage.ready()
    for _ in range(90):
        await stage.clock.advance(10.0)
        assert tracker.state is State.READY
    assert tracker.stats.restart_count == 0
    assert tracker.stats.heartbeat_received_count >= 20


@pytest.mark.parametrize(
    ("code", "exit_code"), [(4004, 77), (4010, 78), (4011, 78), (4012, 78), (4013, 77), (4014, 77)]
)
async def test_a_fatal_close_ends_the_plane_and_is_not_redialled(
    sim: Simulator, start_stage: StartStage, code: int, exit_code: int
) -> None:
    """The error reaches the caller of `serve`, with code, remedy and exit code; one connection, one IDENTIFY (fault case 7)."""
    stage = start_stage(sim)
    await stage.ready()
    await sim.close(code)
    error = await stage.end()
    assert isinstance(error, FatalCloseError)
    assert (error.code, error.exit_code) == (code, exit_code)
    assert error.remedy in str(error)
    assert error.remedy
    await asyncio.sleep(0.02)
    assert (sim.connects, sim.identifies) == (1, 1)
    assert stage.tracker.state is State.EXITED


async def test_intents_that_the_gateway_refuses_cost_one_identify(
    start_simulator: Start, start_stage: StartStage
) -> None:
    """Discord answers IDENTIFY with 4014, and that is the end of it."""
    sim = await start_simulator(approved_intents=0)
    error = await start_stage(sim, 'gateway.intents=["message_content"]').end()
    assert isinstance(error, FatalCloseError)
    assert error.code == 4014
    assert sim.identifies == 1


async def test_a_token_that_rest_refuses_is_never_dialled_with(
    sim: Simulator, start_simulator: Start, start_stage: StartStage
) -> None:
    """401 for the look-up: no connection, no redial, `AuthenticationFailed`."""
    other = await start_simulator(token="another.token.altogether")
    error = await start_stage(sim, f"gateway.api={other.api_url}").end()
    assert isinstance(error, AuthenticationFailed)
    assert [request.status for request in other.rest_requests] == [401]
    assert other.connects == sim.connects == 0


async def test_under_fail_on_error_the_very_error_reaches_the_caller(sim: Simulator, start_stage: StartStage) -> None:
    """Act one of the walk-through: Unhealthy, then Exited, no restart in between."""
    stage = start_stage(sim, "gateway.fail_on_error=true")
    tracker = await stage.ready()
    thrown = RuntimeError("simulated failure")
    tracker.throw_to("processor", thrown)
    assert await stage.end() is thrown
    assert stage.states[-2:] == [State.UNHEALTHY, State.EXITED]
    assert sim.connects == 1
    assert [close.code for close in sim.closes] == [4000]


async def test_without_fail_on_error_the_same_throw_is_recovered_from(
    sim: Simulator, start_stage: StartStage, catch: Catch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Act two: the log says "Starting a new control plane", and the session is resumed."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    tracker.throw_to("processor", RuntimeError("simulated failure"))
    await stage.ready(generation=2)
    await catch(sim, stage).up()
    assert (sim.identifies, sim.resumed) == (1, 1)
    log = capsys.readouterr().err
    landmarks = ["Control plane is not healthy, stopping tasks", "Stopped task", "Sleeping before restart"]
    landmarks += ["Starting a new control plane", "Connecting to gateway", "Sending RESUME", "Control plane started"]
    places = [log.index(landmark, log.index("simulated failure")) for landmark in landmarks]
    assert log.count("Starting a new control plane") == 1
    assert places[3:] == sorted(places[3:])
    assert sim.token not in log


@pytest.mark.parametrize("task", ["heartbeat", "processor", "doctor", "master"])
async def test_a_throw_to_any_task_is_recovered_from(
    sim: Simulator, start_stage: StartStage, catch: Catch, task: str
) -> None:
    """Closed with 4000 each time, resumed within two seconds."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    thrown_at = stage.clock.monotonic()
    tracker.throw_to(task, RuntimeError("simulated failure"))
    await stage.ready(generation=2)
    assert stage.clock.monotonic() - thrown_at < 2.0
    await catch(sim, stage).up()
    assert (sim.identifies, sim.resumed) == (1, 1)
    assert [close.code for close in sim.closes] == [4000]


async def test_a_planned_interruption_restarts_even_under_fail_on_error(
    sim: Simulator, start_stage: StartStage, catch: Catch
) -> None:
    """Op 7 is not a failure."""
    stage = start_stage(sim, "gateway.fail_on_error=true")
    await stage.ready()
    await sim.reconnect()
    await stage.ready(generation=2)
    await catch(sim, stage).up()


async def test_a_first_dial_that_fails_ends_a_development_run(sim: Simulator, start_stage: StartStage) -> None:
    """The refused upgrade itself is raised."""
    await sim.refuse_upgrades(503)
    error = await start_stage(sim, "gateway.fail_on_error=true").end()
    assert isinstance(error, ConnectFailed)
    assert error.status == 503


async def test_max_attempts_gives_up_at_the_nth_consecutive_failure(sim: Simulator, start_stage: StartStage) -> None:
    """`AttemptsExhausted` says how many, and the last failure is its cause."""
    await sim.refuse_upgrades(503)
    error = await start_stage(sim, "gateway.max_attempts=3").end(within=120.0)
    assert isinstance(error, AttemptsExhausted)
    assert error.attempts == 3
    assert isinstance(error.__cause__, ConnectFailed)
    assert sim.refused_upgrades == 3


async def test_under_fail_on_error_a_gateway_that_cannot_be_looked_up_ends_serve(
    sim: Simulator, start_stage: StartStage
) -> None:
    """Five tries, then `GatewayUnreachable`."""
    error = await start_stage(sim, "gateway.fail_on_error=true", "gateway.api=http://127.0.0.1:9/api/v10").end(
        within=400.0
    )
    assert isinstance(error, GatewayUnreachable)


async def test_fifty_op_7_in_a_row_are_all_resumed(sim: Simulator, start_stage: StartStage, catch: Catch) -> None:
    """The floor delay is kept each time, and nobody identifies (fault case 4)."""
    stage = start_stage(sim)
    await stage.ready()
    began = stage.clock.monotonic()
    for generation in range(2, 52):
        await sim.reconnect()
        await say(sim, 1)
        await stage.ready(generation=generation)
    await catch(sim, stage).up()
    assert (sim.identifies, sim.resumed) == (1, 50)
    assert stage.clock.monotonic() - began >= 50 * 0.25


async def test_unknown_opcodes_and_events_pass_through(sim: Simulator, start_stage: StartStage, catch: Catch) -> None:
    """Counted, published byte for byte, never fatal."""
    stage = start_stage(sim)
    tracker = await stage.ready()
    await sim.send_op(99, {"new": True})
    await sim.dispatch_raw("EVENT_OF_TOMORROW", b'{"z": 1, "a" :[ 2]}')
    await catch(sim, stage).up()
    assert stage.recorder.events[-1].data == b'{"z": 1, "a" :[ 2]}'
    assert tracker.stats.unknown_opcodes == {99: 1}
    assert tracker.stats.events_by_type["EVENT_OF_TOMORROW"] == 1
    assert tracker.generation == 1


async def test_every_sample_payload_passes_byte_for_byte(
    start_simulator: Start, start_stage: StartStage, catch: Catch
) -> None:
    """What Discord sends is what a publisher gets."""
    sim = await start_simulator(keep_documents=True)
    stage = start_stage(sim)
    await stage.ready()
    await sim.play_all_payloads(without={"READY", "RESUMED"})
    await catch(sim, stage).up()
    assert [event.data for event in stage.recorder.events] == [document.data for document in sim.sent_documents]


FIRST_FRAMES: dict[str, tuple[bytes, ...]] = {
    "op 7 before Hello": (b'{"op":7}',),
    "op 9 before Hello": (b'{"op":9,"d":false}',),
    "a dispatch before Hello": (b'{"op":0,"t":"MESSAGE_CREATE","s":1,"d":{}}',),
    "garbage before Hello": (b"\x00",),
    "a dispatch without a session": (
        b'{"op":10,"d":{"heartbeat_interval":41250}}',
        b'{"op":0,"t":"MESSAGE_CREATE","s":1,"d":{}}',
    ),
    "RESUMED without RESUME": (
        b'{"op":10,"d":{"heartbeat_interval":41250}}',
        b'{"op":0,"t":"RESUMED","s":1,"d":{}}',
    ),
    "READY without IDENTIFY": (
        b'{"op":10,"d":{"heartbeat_interval":41250}}',
        b'{"op":0,"t":"READY","s":1,"d":{"session_id":"x","resume_gateway_url":"ws://127.0.0.1:9"}}',
    ),
    "op 7 between Hello and READY": (b'{"op":10,"d":{"heartbeat_interval":41250}}', b'{"op":7}'),
    "op 9 false between Hello and READY": (b'{"op":10,"d":{"heartbeat_interval":41250}}', b'{"op":9,"d":false}'),
    "op 9 true between Hello and READY": (b'{"op":10,"d":{"heartbeat_interval":41250}}', b'{"op":9,"d":true}'),
}


@pytest.mark.parametrize("frames", FIRST_FRAMES.values(), ids=FIRST_FRAMES.keys())
async def test_a_first_connection_that_misbehaves_is_replaced(
    sim: Simulator, start_stage: StartStage, catch: Catch, frames: tuple[bytes, ...]
) -> None:
    """Never a deadlock and never an event of a session that there is not; the next connection identifies (fault case 5)."""
    await sim.withhold_hello()
    stage = start_stage(sim)
    await sim.wait_for(lambda: sim.connects == 1)
    for frame in frames:
        await sim.send_payload(frame)
    await sim.stall()  # what it answers to that stays unread
    await stage.until(lambda: stage.tracker.generation == 2)
    await sim.heal()
    await stage.ready(generation=2)
    await stage.until(lambda: len(stage.recorder.events) == 3)
    assert [event.type for event in stage.recorder.events] == ["READY", "GUILD_CREATE", "GUILD_CREATE"]
    assert sim.resumes == 0
