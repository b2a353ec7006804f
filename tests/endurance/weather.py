"""A control plane behind proxies whose connections break all the time, in every way that a network has: nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from discorder.simulator import Simulator
from tests.endurance.evidence import Account
from tests.endurance.process import PlaneProcess
from tests.endurance.proxy import LOOPBACK, Fault, Proxy
from tests.endurance.waiting import caught_up, readies, until

START_WITHIN = 90.0
CAUGHT_UP_WITHIN = 120.0


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
class Outcome:
    """What happened, and what reached the file."""

    account: Account
    identifies: int
    resumed: int
    events: int
    exit_code: int
    log: str
    violations: list[str]
    faults: Counter[Fault] = field(default_factory=Counter)


async def run(weather: Weather, folder: Path) -> Outcome:
    """The plane sees nothing but the two proxies, REST included."""
    rng = random.Random(weather.seed)
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(
            Simulator(
                guilds=weather.shards,
                shards=weather.shards,
                max_concurrency=weather.shards,
                rate=weather.rate,
                seed=weather.seed,
                heartbeat_interval_ms=weather.heartbeat_ms,
                missed_heartbeats=0,  # a server that closes with 4009 ends the session
                keep_documents=True,
                history=2_000_000,
            )
        )
        main = await stack.enter_async_context(Proxy(_port(sim.gateway_url)))
        resume = await stack.enter_async_context(Proxy(_port(sim.resume_url)))
        sim.advertise(f"ws://{LOOPBACK}:{main.port}", f"ws://{LOOPBACK}:{resume.port}")
        api = f"http://{LOOPBACK}:{main.port}/api/v10"
        plane = PlaneProcess(folder, sim, shards=weather.shards, api=api)
        try:
            await plane.start()
            await until(lambda: readies(plane.audit) == weather.shards, START_WITHIN)
            faults = await _storm(weather, rng, (main, resume))
            await sim.set_rate(0.0)
            account = await caught_up(plane, sim, CAUGHT_UP_WITHIN)
            code = await plane.stop()
        finally:
            await plane.clean_up()
        return Outcome(
            account=account,
            identifies=sim.identifies,
            resumed=sim.resumed,
            events=len(sim.sent_documents),
            exit_code=code,
            log=plane.said(),
            violations=[str(violation) for violation in sim.violations],
            faults=faults,
        )


async def _storm(weather: Weather, rng: random.Random, proxies: tuple[Proxy, Proxy]) -> Counter[Fault]:
    """Strike, now here, now there."""
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


def faults(weather: Weather, outcome: Outcome) -> list[str]:
    """What a run must not show, in sentences."""
    found = [*outcome.account.faults, *outcome.violations]
    if outcome.account.missing:
        found.append(f"{outcome.account.missing.total()} events are missing")
    if outcome.account.duplicates.total():
        found.append(f"{outcome.account.duplicates.total()} events came twice, though the process lived on")
    if outcome.identifies != weather.shards:
        found.append(f"{outcome.identifies} identifies for {weather.shards} shards")
    if outcome.exit_code:
        found.append(f"exit code {outcome.exit_code}")
    return [*found, outcome.log] if found else []
