"""discord.py 2.7, unmodified but for its base URLs, against the simulator."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yarl

from discorder.simulator import Simulator

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # discord.py 2.7 imports audioop
    import discord

Start = Callable[..., Awaitable[Simulator]]


@asynccontextmanager
async def running(
    sim: Simulator, kind: type[discord.Client], monkeypatch: pytest.MonkeyPatch, seen: Any
) -> AsyncIterator[discord.Client]:
    """A client that is ready; ``seen`` counts what it parses."""
    monkeypatch.setattr("discord.http.Route.BASE", sim.api_url)
    monkeypatch.setattr("discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY", yarl.URL(sim.gateway_url))
    ready = asyncio.Event()
    client = kind(intents=discord.Intents.all(), enable_debug_events=True, guild_ready_timeout=0.2)

    @client.event
    async def on_ready() -> None:
        ready.set()

    @client.event
    async def on_socket_event_type(event_type: str) -> None:
        seen.add(event_type)

    async with client:
        task = asyncio.create_task(client.start(sim.token))
        waiter = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiter}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        assert ready.is_set(), task
        yield client
    await asyncio.gather(task, return_exceptions=True)


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Log records of warning level or above, but for the notice, once per process, that voice libraries are missing."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "voice will NOT be supported" not in record.getMessage()
    ]


@pytest.mark.parametrize("kind", [discord.Client, discord.AutoShardedClient])
async def test_every_payload_is_parsed_without_a_warning(
    kind: type[discord.Client],
    start_simulator: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seen: Any,
) -> None:
    """READY, the guilds and all 135 frames pass through discord.py's parsers; nothing is logged as a warning."""
    sim = await start_simulator()
    async with running(sim, kind, monkeypatch, seen) as client:
        assert len(client.guilds) == 3
        assert all(not guild.unavailable and guild.member_count == 9 for guild in client.guilds)
        await seen.all_payloads(sim)
    assert problems(caplog) == []
    assert sim.violations == []


@pytest.mark.parametrize("kind", [discord.Client, discord.AutoShardedClient])
async def test_it_resumes_after_a_dropped_connection(
    kind: type[discord.Client],
    start_simulator: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seen: Any,
) -> None:
    """A reset connection leads to RESUME on the resume host; what was missed is replayed and nothing identifies anew."""
    sim = await start_simulator()
    async with running(sim, kind, monkeypatch, seen):
        await seen.resume_after_drop(sim)
    assert problems(caplog) == []


@pytest.mark.heavy
async def test_several_shards_start_in_one_process(
    start_simulator: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    """An AutoShardedClient asks how many shards to start, 5 s apart, and gets each guild on its shard."""
    sim = await start_simulator(shards=2, guilds=4, identify_spacing=5.0)
    async with running(sim, discord.AutoShardedClient, monkeypatch, seen) as client:
        assert sorted(guild.shard_id for guild in client.guilds) == [0, 0, 1, 1]
    assert problems(caplog) == []
    assert sim.violations == []


async def test_the_living_guilds_are_parsed_without_a_warning(
    start_simulator: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    """Hundreds of made-up events resolve in discord.py's caches."""
    sim = await start_simulator(rate=1000)
    async with running(sim, discord.Client, monkeypatch, seen) as client:
        await sim.wait_for(lambda: len(sim.sent) > 800)
        await sim.drop()
        await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
        assert seen.counts["MESSAGE_CREATE"] > 50
        assert client.cached_messages
    assert problems(caplog) == []
