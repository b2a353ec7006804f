"""How a run recovers or ends, against the simulator: refusals, thrown failures, `fail_on_error`, and unchanged payloads.

The faults that a session survives are in tests/faults.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from discorder.errors import (
    AttemptsExhausted,
    AuthenticationFailed,
    ConnectFailed,
    FatalCloseError,
    GatewayUnreachable,
)
from discorder.simulator import Simulator
from discorder.statemachine import State

if TYPE_CHECKING:
    from tests.harness import Caught, StartStage

Start = Callable[..., Awaitable[Simulator]]
Catch = Callable[..., "Caught"]


async def test_intents_that_the_gateway_refuses_cost_one_identify(
    start_simulator: Start, start_stage: StartStage
) -> None:
    """Discord answers IDENTIFY with 4014, and the plane ends."""
    sim = await start_simulator(approved_intents=0)
    error = await start_stage(sim, 'gateway.intents=["message_content"]').end()
    assert isinstance(error, FatalCloseError)
    assert error.code == 4014
    assert sim.identifies == 1


async def test_a_token_that_rest_refuses_is_never_dialled_with(
    sim: Simulator, start_simulator: Start, start_stage: StartStage
) -> None:
    """The look-up gets 401: no connection, no redial, `AuthenticationFailed`."""
    other = await start_simulator(token="another.token.altogether")
    error = await start_stage(sim, f"gateway.api={other.api_url}").end()
    assert isinstance(error, AuthenticationFailed)
    assert [request.status for request in other.rest_requests] == [401]
    assert other.connects == sim.connects == 0


async def test_under_fail_on_error_the_very_error_reaches_the_caller(sim: Simulator, start_stage: StartStage) -> None:
    """Part one of the walk-through: Unhealthy, then Exited, without a restart."""
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
    """Part two: the log says "Starting a new control plane", and the session is resumed."""
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
    """The socket is closed with 4000 each time, and the session resumed within two seconds."""
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
    """The exception is that of the refused upgrade."""
    await sim.refuse_upgrades(503)
    error = await start_stage(sim, "gateway.fail_on_error=true").end()
    assert isinstance(error, ConnectFailed)
    assert error.status == 503


async def test_max_attempts_gives_up_at_the_nth_consecutive_failure(sim: Simulator, start_stage: StartStage) -> None:
    """`AttemptsExhausted` has the number, and the last failure is its cause."""
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


async def test_every_sample_payload_passes_byte_for_byte(
    start_simulator: Start, start_stage: StartStage, catch: Catch
) -> None:
    """A publisher gets exactly what Discord sends."""
    sim = await start_simulator(keep_documents=True)
    stage = start_stage(sim)
    await stage.ready()
    await sim.play_all_payloads(without={"READY", "RESUMED"})
    await catch(sim, stage).up()
    assert [event.data for event in stage.recorder.events] == [document.data for document in sim.sent_documents]
