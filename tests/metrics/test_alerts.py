"""Each alert fires when its symptom is there, judged by Prometheus' own tool from scrapes of a control plane."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from discorder.statemachine import State
from discorder.wire import Event, Op
from tests.harness import Stage, Unlucky
from tests.metrics.alert_rules import Monitor
from tests.metrics.gateway import Gateway

NOWHERE = "http://127.0.0.1:1/api/v10"  # nothing listens there
NOT_READY = ("DiscorderNoShardReady", "DiscorderShardsNotReady")


class Publisher:
    """A publisher that fails with ``error``, or without one never returns."""

    durable = True

    def __init__(self, error: OSError | None = None) -> None:
        self.name = "sink2"
        self._error = error

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()

    async def close(self) -> None: ...


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def start(gateway: Gateway, stages: list[Stage]) -> Callable[..., Stage]:
    """Return a function that starts a plane on the gateway."""

    def start(*settings: str, **around: Any) -> Stage:
        stage = Stage(
            *settings,
            **{"clock": gateway.clock, "dial": gateway.dial, "look_up": gateway.look_up, "rng": Unlucky(), **around},
        )
        stages.append(stage)
        return stage

    return start


@pytest.fixture
async def stage(start: Callable[..., Stage]) -> Stage:
    """A plane with one shard that is Ready."""
    stage = start()
    await stage.ready()
    return stage


# ---------------------------------------------------------------- shards


async def test_a_bot_that_is_well_has_no_alert(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    """Events come, and once Discord asks for a new connection."""
    monitor = Monitor(stage)
    await monitor.watch(10)
    line = gateway.lines[0]
    line.feed(line.dispatched("MESSAGE_CREATE"), {"op": Op.RECONNECT})
    await stage.ready(2)
    await monitor.watch(10)
    monitor.firing(tmp_path)


async def test_no_shard_ready(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    gateway.refuses.add(0)
    gateway.lines[0].lose()
    await monitor.watch(7)
    monitor.firing(tmp_path, *NOT_READY, "DiscorderRestartLoop")


async def test_a_shard_that_an_operator_has_paused_is_no_alert(stage: Stage, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    stage.tracker.pause_shard(0)
    await monitor.watch(7)
    assert stage.tracker.state is not State.READY
    monitor.firing(tmp_path)


async def test_some_shards_not_ready(start: Callable[..., Stage], gateway: Gateway, tmp_path: Path) -> None:
    stage = start("gateway.shards=2")
    await stage.until(lambda: len(gateway.of_shard) == 2)
    await stage.until(lambda: {shard.state for shard in stage.tracker.shards} == {State.READY})
    monitor = Monitor(stage)
    gateway.refuses.add(1)
    gateway.of_shard[1].lose()
    await monitor.watch(7)
    monitor.firing(tmp_path, "DiscorderShardsNotReady", "DiscorderRestartLoop")


async def test_a_shard_that_restarts_again_and_again(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    for generation in range(2, 8):
        await monitor.watch(1)
        gateway.of_shard[0].lose()
        await stage.ready(generation)
    monitor.scrape()
    monitor.firing(tmp_path, "DiscorderRestartLoop")


async def test_slow_heartbeats(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    gateway.ack_after = 3.0
    await monitor.watch(16)
    assert stage.tracker.stats.restart_count == 0
    monitor.firing(tmp_path, "DiscorderHeartbeatsSlow")


async def test_a_gateway_that_breaks_its_protocol(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    gateway.spoiled = 3
    gateway.lines[0].lose()
    await stage.ready(5, within=120.0)
    await monitor.watch(0.5)
    monitor.firing(tmp_path, "DiscorderTriggersRejected")


# ---------------------------------------------------------------- IDENTIFYs


async def test_few_identifies_are_left(start: Callable[..., Stage], gateway: Gateway, tmp_path: Path) -> None:
    stage = start()
    await stage.ready()
    monitor = Monitor(stage)
    gateway.remaining = 150
    await monitor.watch(6)
    end_session(gateway)
    await stage.ready(2)
    await monitor.watch(1)
    monitor.firing(tmp_path, "DiscorderIdentifyBudgetLow", "DiscorderForeignIdentifies", "DiscorderEventsLost")


async def test_no_identify_is_left(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    gateway.remaining = 90
    await monitor.watch(6)
    end_session(gateway)
    await monitor.watch(6)
    spent = ("DiscorderIdentifyBudgetLow", "DiscorderIdentifyBudgetSpent", "DiscorderForeignIdentifies")
    monitor.firing(tmp_path, *spent, *NOT_READY)


@pytest.mark.heavy
async def test_another_program_uses_the_token(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    gateway.remaining = 900
    await monitor.watch(6)
    end_session(gateway)
    await stage.ready(2)
    await monitor.watch(30)  # the lost session is forgotten after 15 minutes, the other program after an hour
    monitor.firing(tmp_path, "DiscorderForeignIdentifies")


async def test_the_look_up_fails(start: Callable[..., Stage], tmp_path: Path) -> None:
    stage = start(f"gateway.api={NOWHERE}", look_up=None)
    await stage.in_state(State.DISCONNECTED)
    monitor = Monitor(stage)
    await monitor.watch(7)
    monitor.firing(tmp_path, "DiscorderLookUpFailing", *NOT_READY)


# ---------------------------------------------------------------- events and publishers


async def test_a_session_is_lost(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    await monitor.watch(1)
    end_session(gateway)
    await stage.ready(2)
    await monitor.watch(1)
    monitor.firing(tmp_path, "DiscorderEventsLost")


async def test_a_publisher_lags(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    stage.tracker.add_publisher(Publisher(), required=True)
    monitor = Monitor(stage)
    send(gateway, 1)
    await monitor.watch(2)
    monitor.firing(tmp_path, "DiscorderPublisherLagging")


async def test_a_publisher_drops_events(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    stage.tracker.add_publisher(Publisher())
    monitor = Monitor(stage)
    send(gateway, 11_000)
    await monitor.watch(0.25)
    monitor.firing(tmp_path, "DiscorderPublisherDropping")


async def test_a_publisher_is_parked(stage: Stage, gateway: Gateway, tmp_path: Path) -> None:
    stage.tracker.add_publisher(Publisher(OSError("disk full")))
    monitor = Monitor(stage)
    send(gateway, 1)
    await monitor.watch(3)
    monitor.firing(tmp_path, "DiscorderPublisherParked", "DiscorderPublisherDropping")


# ---------------------------------------------------------------- the process


@pytest.mark.heavy
async def test_the_event_loop_is_held_up(stage: Stage, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    time.sleep(2.5)  # noqa: ASYNC251  # this is the fault
    await monitor.watch_until(lambda: stage.tracker.loop_lag.now > 1.0)
    monitor.firing(tmp_path, "DiscorderLoopHeldUp")


async def test_the_store_cannot_be_used(start: Callable[..., Stage], tmp_path: Path) -> None:
    """A newer version of Discorder wrote it."""
    path = tmp_path / "sessions.sqlite3"
    stage = start(f"session.store={path}")
    await stage.ready()
    await stage.stop()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 999")
    stage = start(f"session.store={path}")
    await stage.ready()
    monitor = Monitor(stage)
    await monitor.watch(2)
    monitor.firing(tmp_path, "DiscorderStoreUnhealthy")


async def test_the_open_files_come_near_the_limit(stage: Stage, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    with few_files():
        await monitor.watch(6)
    monitor.firing(tmp_path, "DiscorderFilesNearLimit")


@contextmanager
def few_files() -> Iterator[None]:
    """Lower the limit of open files to a little more than are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 2, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_the_process_does_not_answer(stage: Stage, tmp_path: Path) -> None:
    monitor = Monitor(stage)
    for _ in range(6):
        monitor.fail()
    monitor.firing(tmp_path, "DiscorderDown")


def end_session(gateway: Gateway) -> None:
    """Let Discord end the session of shard 0."""
    gateway.of_shard[0].feed({"op": Op.INVALID_SESSION, "d": False})


def send(gateway: Gateway, events: int) -> None:
    """Send events to shard 0."""
    line = gateway.of_shard[0]
    line.feed(*(line.dispatched("MESSAGE_CREATE") for _ in range(events)))
