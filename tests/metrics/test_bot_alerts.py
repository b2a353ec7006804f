"""A bot of the façade that is away or does not keep up: the alerts, and the notes of the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from discorder.simulator.options import DEFAULT_TOKEN
from discorder.tracking.diagnosis import diagnose
from tests.facade.fronted import Fronted, facade_settings
from tests.harness import Stage, Unlucky
from tests.metrics.alert_rules import Monitor
from tests.metrics.gateway import Gateway


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def stage(gateway: Gateway, stages: list[Stage], tmp_path: Path) -> Stage:
    """A plane with one shard that is Ready, and a façade for the bot "main"."""
    stage = Stage(
        *facade_settings(tmp_path, "main"),
        clock=gateway.clock,
        dial=gateway.dial,
        look_up=gateway.look_up,
        rng=Unlucky(),
        token=DEFAULT_TOKEN,
    )
    stages.append(stage)
    await stage.ready()
    return stage


@pytest.fixture
async def fronted(stage: Stage, tmp_path: Path) -> AsyncIterator[Fronted]:
    async with aiohttp.ClientSession() as http:
        made = Fronted(lambda: stage.tracker, tmp_path, http)
        yield made
        await made.close()


async def test_a_bot_that_was_never_connected(stage: Stage, tmp_path: Path) -> None:
    """The alert comes while there is time to start it, the note when it would miss events."""
    monitor = Monitor(stage)
    await monitor.watch(1.5)
    monitor.firing(tmp_path, "DiscorderBotAway")
    assert list(stage.tracker.notes) == []
    await monitor.watch(1)
    (note,) = diagnose(stage.tracker).notes
    assert note.startswith("bot main has not been connected since the façade was opened")


async def test_no_facade_serves_the_bots(gateway: Gateway, stages: list[Stage], tmp_path: Path) -> None:
    """Its process does not run, or does not reach the control plane."""
    settings = [*facade_settings(tmp_path, "main", "stats"), "facade.bind="]
    stage = Stage(*settings, clock=gateway.clock, dial=gateway.dial, look_up=gateway.look_up, rng=Unlucky())
    stages.append(stage)
    await stage.ready()
    monitor = Monitor(stage)
    assert list(stage.tracker.notes) == []
    await monitor.watch(1.5)
    monitor.firing(tmp_path, "DiscorderFacadeDown")
    (note,) = stage.tracker.notes
    assert note.startswith(
        'no façade serves main, stats: facade.bind is "", and no `discorder facade` has reported for '
    )


async def test_a_bot_that_has_gone(stage: Stage, fronted: Fronted, tmp_path: Path) -> None:
    """The note says when it was there, and ends when it comes back."""
    monitor = Monitor(stage)
    bot = await fronted.bot("main", guilds=0)
    for _ in range(12):
        await bot.send(1, bot.seq)
        await monitor.watch(0.25)
    monitor.firing(tmp_path)
    assert list(stage.tracker.notes) == []
    await bot.gone()
    await monitor.watch(3)
    monitor.firing(tmp_path, "DiscorderBotAway")
    (note,) = stage.tracker.notes
    assert note.startswith("bot main was last connected at ")
    await fronted.bot("main", guilds=0)
    monitor.scrape()
    monitor.firing(tmp_path)
    assert list(stage.tracker.notes) == []


async def test_a_bot_that_does_not_keep_up(stage: Stage, fronted: Fronted, gateway: Gateway, tmp_path: Path) -> None:
    """It sends heartbeats and reads nothing."""
    monitor = Monitor(stage)
    bot = await fronted.bot("main", guilds=0)
    line = gateway.of_shard[0]
    for _ in range(20):
        line.feed(*(line.dispatched("MESSAGE_CREATE", {"guild_id": "1", "content": "x" * 50_000}) for _ in range(20)))
        await asyncio.sleep(0.01)
    for _ in range(9):
        await bot.send(1, bot.seq)
        await monitor.watch(0.25)
    monitor.firing(tmp_path, "DiscorderBotLagging")
    (note,) = stage.tracker.notes
    assert note.startswith("bot main has yet to get events of shard 0 that are 13")
