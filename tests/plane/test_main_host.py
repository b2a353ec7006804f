"""The look-up beside the shards, and which host a shard dials: which failures end a plane and which do not."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from discorder.clock import FakeClock
from discorder.errors import AttemptsExhausted, ConfigError, ConnectFailed, GatewayUnreachable
from discorder.rest import GatewayInfo
from discorder.simulator import Simulator
from tests.edge import Edge, blocked, login_page
from tests.harness import StartStage


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"session.store={tmp_path / 'sessions.sqlite3'}"


async def never() -> GatewayInfo:
    await asyncio.Event().wait()
    raise AssertionError


async def _stored(sim: Simulator, start_stage: StartStage, store: str, clock: FakeClock) -> None:
    """Run a plane that leaves its session in the store."""
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    await first.stop()


async def test_a_cold_start_looks_up_once(sim: Simulator, start_stage: StartStage) -> None:
    """The identify gate uses the answer of the plane's own look-up."""
    stage = start_stage(sim)
    await stage.ready()
    assert [request.path for request in sim.rest_requests] == ["/gateway/bot"]


async def test_max_attempts_counts_look_ups(sim: Simulator, edge: Edge, start_stage: StartStage) -> None:
    """An unreachable API ends the plane like an unreachable gateway."""
    edge.instead = login_page
    error = await start_stage(sim, f"gateway.api={edge.api}", "gateway.max_attempts=2").end(within=60.0)
    assert isinstance(error, GatewayUnreachable)
    assert error.exit_code == 69
    assert edge.asked == 2


async def test_with_neither_api_nor_hosts_max_attempts_ends_a_stored_session_too(
    sim: Simulator, edge: Edge, start_stage: StartStage, store: str
) -> None:
    """The error names the session, and says how to drop it."""
    clock = FakeClock()
    await _stored(sim, start_stage, store, clock)
    edge.instead = blocked
    await sim.refuse_upgrades(503)
    stage = start_stage(
        sim, store, f"gateway.api={edge.api}", "gateway.max_attempts=2", "gateway.shards=1", clock=clock
    )
    error = await stage.end(within=300.0)
    assert isinstance(error, AttemptsExhausted)
    (note,) = error.__notes__
    assert "the stored session" in note
    assert "discorder sessions drop" in note


async def test_a_stored_session_whose_host_is_gone_is_resumed_on_the_main_host_under_fail_on_error(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    clock = FakeClock()
    await _stored(sim, start_stage, store, clock)
    await sim.refuse_upgrades(503, "resume")
    second = start_stage(sim, store, "gateway.fail_on_error=true", "gateway.shards=1", clock=clock)
    await second.ready(generation=2)
    assert (sim.identifies, sim.resumed, sim.refused_upgrades) == (1, 1, 1)


async def test_a_stored_session_that_no_host_takes_is_named_under_fail_on_error(
    sim: Simulator, start_stage: StartStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = FakeClock()
    await _stored(sim, start_stage, store, clock)
    await sim.refuse_upgrades(503)
    error = await start_stage(sim, store, "gateway.fail_on_error=true", "gateway.shards=1", clock=clock).end()
    assert isinstance(error, ConnectFailed)
    assert "discorder sessions drop" in error.__notes__[0]
    assert "A stored session could not be resumed" in capsys.readouterr().err


async def test_a_host_that_is_known_is_dialled_while_the_look_up_is_down(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """The resume host fails once and the main host is unknown: 2 s later the resume host is dialled again."""
    clock = FakeClock()
    await _stored(sim, start_stage, store, clock)
    await sim.refuse_upgrades(503, "resume")
    second = start_stage(sim, store, "gateway.shards=1", clock=clock, look_up=never)
    await second.until(lambda: sim.refused_upgrades == 1)
    began = clock.monotonic()
    await sim.heal()
    await second.ready(generation=2)
    assert clock.monotonic() - began < 5.0
    assert (sim.identifies, sim.resumed) == (1, 1)


@pytest.mark.parametrize("limit", ["gateway.fail_on_error=true", "gateway.max_attempts=2"])
async def test_a_main_host_that_is_named_late_has_its_turn(
    sim: Simulator, edge: Edge, start_stage: StartStage, store: str, limit: str
) -> None:
    """The resume host refuses, and the look-up takes 8 s: the dials until then do not count for either limit."""
    clock = FakeClock()
    await _stored(sim, start_stage, store, clock)
    await sim.refuse_upgrades(503, "resume")
    edge.wait = partial(clock.sleep, 8.0)
    second = start_stage(sim, store, limit, f"gateway.api={edge.api}", "gateway.shards=1", clock=clock)
    await second.ready(within=60.0)
    assert (sim.identifies, sim.resumed) == (1, 1)


@pytest.mark.parametrize("shards", ["4097", f"{{ ids = {list(range(4097))}, of = 5000 }}"], ids=["count", "ids"])
async def test_more_configured_shards_than_one_process_runs_are_refused(
    sim: Simulator, start_stage: StartStage, shards: str
) -> None:
    error = await start_stage(sim, f"gateway.shards={shards}").end()
    assert isinstance(error, ConfigError)
    assert "4097 shards, and one process runs 4096 at most" in str(error)


async def test_an_api_in_clear_text_needs_leave(sim: Simulator, start_stage: StartStage) -> None:
    error = await start_stage(sim, "gateway.api=http://api.example/v10").end()
    assert isinstance(error, ConfigError)
    assert "gateway.insecure_api" in str(error)
