"""A control plane behind proxies whose connections break all the time, in every way that a network has: nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.endurance.outcome import START_WITHIN, Outcome, simulator
from tests.endurance.process import PlaneProcess
from tests.endurance.proxy import LOOPBACK, Fault, Proxy
from tests.endurance.waiting import readies, until


@dataclass(frozen=True, slots=True)
class Weather:
    """A fault every ``every`` seconds for ``seconds``; a stall lasts up to ``stall`` seconds."""

    seconds: float = 120.0
    every: float = 0.5
    stall: float = 4.0
    shards: int = 4
    rate: float = 200.0
    heartbeat_ms: int = 3_000
    seed: int = 0


@dataclass(slots=True)
class WeatherOutcome(Outcome):
    """``struck``: how often which fault broke a connection."""

    struck: Counter[Fault] = field(default_factory=Counter)


async def run(weather: Weather, folder: Path) -> WeatherOutcome:
    """The plane sees nothing but the two proxies, REST included."""
    outcome, rng = WeatherOutcome(), random.Random(weather.seed)
    options = {"max_concurrency": weather.shards, "heartbeat_interval_ms": weather.heartbeat_ms}
    options["missed_heartbeats"] = 0  # a server that closes with 4009 ends the session
    async with (
        simulator(weather.shards, weather.rate, weather.seed, **options) as sim,
        Proxy(_port(sim.gateway_url)) as main,
        Proxy(_port(sim.resume_url)) as resume,
    ):
        sim.advertise(f"ws://{LOOPBACK}:{main.port}", f"ws://{LOOPBACK}:{resume.port}")
        api = f"http://{LOOPBACK}:{main.port}/api/v10"
        plane = PlaneProcess(folder, sim, shards=weather.shards, api=api)
        try:
            await plane.start()
            await until(lambda: readies(plane.audit) == weather.shards, START_WITHIN)
            outcome.struck = await _storm(weather, rng, (main, resume))
            await outcome.take_stock(sim, plane, weather.shards)
            await outcome.stop(plane)
        finally:
            await plane.clean_up()
    return outcome


async def _storm(weather: Weather, rng: random.Random, proxies: tuple[Proxy, Proxy]) -> Counter[Fault]:
    """Break connections of both proxies at random."""
    struck: Counter[Fault] = Counter()
    end = time.monotonic() + weather.seconds
    while time.monotonic() < end:
        fault = rng.choice(list(Fault))
        seconds = rng.uniform(0.0, weather.stall)
        first, second = rng.sample(proxies, 2)
        if first.strike(fault, rng, seconds) or second.strike(fault, rng, seconds):
            struck[fault] += 1
        await asyncio.sleep(weather.every)
    return struck


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
