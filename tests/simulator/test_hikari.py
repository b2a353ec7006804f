"""hikari 2.7, unmodified but for its REST URL, against the simulator."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hikari
import pytest

from discorder.simulator import Simulator

Start = Callable[..., Awaitable[Simulator]]

EXPECTED = (
    "rate-limited on opcode 8",  # hikari's report of the RATE_LIMITED payload, which says just that
    "Will retry shortly",  # its report of a connection that a test has dropped
)


@asynccontextmanager
async def running(sim: Simulator, seen: Any) -> AsyncIterator[hikari.GatewayBot]:
    """A bot that is started; ``seen`` counts what it parses."""
    bot = hikari.GatewayBot(
        sim.token,
        rest_url=sim.api_url,
        intents=hikari.Intents.ALL,
        banner=None,
        logs=None,
        suppress_optimization_warning=True,
    )

    @bot.listen()
    async def on_payload(event: hikari.ShardPayloadEvent) -> None:
        seen.add(event.name)

    await bot.start(check_for_updates=False)
    try:
        yield bot
    finally:
        await bot.close()


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Log records of warning level or above, but for those that report what a test did."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and not any(text in record.getMessage() for text in EXPECTED)
    ]


async def test_every_payload_is_parsed_without_a_warning(
    start_simulator: Start, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    """READY, the guilds and all 135 frames pass through hikari's factories and cache; nothing is logged as a warning."""
    sim = await start_simulator()
    async with running(sim, seen) as bot:
        await seen.all_of(sim)
        assert len(bot.cache.get_available_guilds_view()) == 3
        await seen.all_payloads(sim)
    assert problems(caplog) == []
    assert sim.violations == []


async def test_it_resumes_after_a_dropped_connection(
    start_simulator: Start, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    """A reset connection leads to RESUME; what was missed is replayed and nothing identifies anew."""
    sim = await start_simulator()
    async with running(sim, seen):
        await seen.all_of(sim)
        await seen.resume_after_drop(sim)
    assert problems(caplog) == []


async def test_several_shards_start_as_the_simulator_recommends(
    start_simulator: Start, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    """hikari starts `max_concurrency` shards at once, each with its own guilds."""
    sim = await start_simulator(shards=2, guilds=4, max_concurrency=2, identify_spacing=5.0)
    async with running(sim, seen) as bot:
        await seen.all_of(sim)
        assert set(bot.shards) == {0, 1}
        assert len(bot.cache.get_available_guilds_view()) == 4
    assert problems(caplog) == []
    assert sim.violations == []


async def test_the_living_guilds_are_parsed_without_a_warning(
    start_simulator: Start, caplog: pytest.LogCaptureFixture, seen: Any
) -> None:
    """Hundreds of made-up events resolve in hikari's cache."""
    sim = await start_simulator(rate=1000)
    async with running(sim, seen):
        await sim.wait_for(lambda: len(sim.sent) > 800)
        await seen.wait_for(Counter({"MESSAGE_CREATE": 100}))
    assert problems(caplog) == []
