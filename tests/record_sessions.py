"""Record the files in tests/sessions again: `.venv/bin/python -m tests.record_sessions [NAME…]`; without a name, all of them.

Each scenario runs a control plane with its recorder against a simulator, in real time on real sockets. The functions here
make the simulator act; tests/test_recorded_sessions.py states what the control plane has to do.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from discorder.config import load_config
from discorder.control_plane import TrackerRef, serve_config, shutdown
from discorder.errors import FatalCloseError
from discorder.plane import PlaneDependencies
from discorder.rest import BotClient, GatewayInfo, SessionStartLimit
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.tracker import GatewayTracker

FOLDER = Path(__file__).resolve().parent / "sessions"
SETTINGS = ("gateway.compress=zlib-stream", "publishers.sink.kind=channel", "log.level=error")
SHORT_INTERVAL = 2_000  # ms between heartbeats, where a scenario is about them
WRONG_TOKEN = "MTIz.of-another-bot.not-a-secret"
POLL_INTERVAL = 0.002  # seconds


@dataclass
class Run:
    """One run of a control plane against a simulator."""

    sim: Simulator
    tracker: GatewayTracker
    sent_before: int  # events of the simulator to earlier runs
    messages: int = 0

    async def until(self, predicate: Callable[[], object], seconds: float = 240.0) -> None:
        async with asyncio.timeout(seconds):
            while not predicate():  # noqa: ASYNC110  # the tracker has no event to wait for
                await asyncio.sleep(POLL_INTERVAL)

    async def ready(self, generation: int) -> None:
        """Wait until every shard is Ready on its ``generation``-th connection and every event sent has been published."""

        def is_ready() -> bool:
            shards = self.tracker.shards
            published = self.tracker.stats.published_event_count
            all_ready = all(shard.state is State.READY and shard.generation == generation for shard in shards)
            return all_ready and published == len(self.sim.sent) - self.sent_before

        await self.until(is_ready)

    async def dispatch(self, count: int = 1) -> None:
        """Send ``count`` small events."""
        for _ in range(count):
            self.messages += 1
            await self.sim.dispatch(
                "MESSAGE_CREATE", {"id": str(self.messages), "content": f"message {self.messages} – é 🔥"}
            )

    async def wait_for_acks(self, acknowledged: int) -> None:
        await self.until(lambda: self.tracker.stats.heartbeat_received_count >= acknowledged)


Steps = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """Start ``steps`` once the tracker exists; afterwards stop the plane, unless it has ended by itself."""

    steps: Steps
    options: dict[str, Any] = field(default_factory=dict)
    settings: Sequence[str] = ()
    token: str | None = None  # None: the simulator's token
    goodbye: bool = False
    stored: bool = False  # an earlier run has stored its session


async def all_event_types(run: Run) -> None:
    """Send every sample payload, except RESUMED, which needs a RESUME, and a second READY."""
    await run.ready(1)
    await run.sim.play_all_payloads(without={"READY", "RESUMED"})
    await run.ready(1)
    await run.sim.reconnect()
    await run.ready(2)


def interrupted(interrupt: Callable[[Simulator], Awaitable[None]], *, before: int = 3, after: int = 2) -> Steps:
    """Return the steps of a session with ``before`` events that goes on with ``after`` events on a second connection."""

    async def steps(run: Run) -> None:
        await run.ready(1)
        await run.dispatch(before)
        await run.ready(1)
        await interrupt(run.sim)
        await run.dispatch(after)
        await run.ready(2)

    return steps


async def zombie(run: Run) -> None:
    await run.ready(1)
    await run.wait_for_acks(2)
    await run.sim.swallow_acks()
    await run.until(lambda: run.tracker.state is State.RESTARTING)
    await run.sim.heal()
    await run.dispatch(2)
    await run.ready(2)
    await run.wait_for_acks(3)


async def ends(run: Run) -> None:
    await run.until(lambda: run.tracker.state is State.EXITED)


async def flapping(run: Run) -> None:
    """Invalidate the session right after READY, five times."""
    for generation in range(1, 6):
        await run.ready(generation)
        await run.sim.close(4009)
    await run.ready(6)


async def resume_host_refuses(run: Run) -> None:
    await run.ready(1)
    await run.sim.refuse_upgrades(503, host="resume")
    await run.sim.close(4000)
    await run.dispatch(2)
    await run.ready(3)


async def resume_refused(run: Run) -> None:
    """Expire the session before the client sends RESUME."""
    await run.ready(1)
    await run.sim.close(4000)
    await run.ready(3)


async def garbage(run: Run) -> None:
    """Send a frame that is not JSON, then bytes that are not a zlib stream."""
    await run.ready(1)
    await run.sim.send_payload(b'{"op":0,"t":"MESSAGE_CREATE"')
    await run.ready(2)
    await run.sim.send_binary(b"\xff\xff not deflated \x00\x00\xff\xff")
    await run.dispatch(2)
    await run.ready(3)


async def quiet(run: Run) -> None:
    await run.ready(1)
    await run.dispatch(3)
    await run.ready(1)


async def two_shards(run: Run) -> None:
    await run.ready(1)
    await run.sim.close(4000, shard=1)
    await run.dispatch(2)
    await run.until(lambda: run.tracker.shards[1].stats.resume_count == 1)
    await run.until(lambda: run.tracker.stats.published_event_count == len(run.sim.sent))


SCENARIOS = {
    "all-event-types": Scenario(all_event_types, {"guilds": 3}),
    "reconnect": Scenario(interrupted(lambda sim: sim.reconnect())),
    "invalid-resumable": Scenario(interrupted(lambda sim: sim.invalidate(True), after=0)),
    "invalid": Scenario(interrupted(lambda sim: sim.invalidate(False))),
    "zombie": Scenario(zombie, {"heartbeat_interval_ms": SHORT_INTERVAL}),
    "server-close-4000": Scenario(interrupted(lambda sim: sim.close(4000))),
    "close-4004": Scenario(ends, token=WRONG_TOKEN),
    "close-4014": Scenario(ends, {"approved_intents": 0}, ["gateway.intents=['guilds','guild_members']"]),
    "flapping": Scenario(flapping),
    "long-replay": Scenario(interrupted(lambda sim: sim.close(4000), before=10, after=500)),
    "resume-host-refuses": Scenario(resume_host_refuses),
    "resume-refused": Scenario(resume_refused, {"session_ttl": 0.05}),
    "garbage": Scenario(garbage),
    "stored-session": Scenario(quiet, stored=True),
    "goodbye": Scenario(quiet, goodbye=True),
    "two-shards": Scenario(two_shards, {"guilds": 2, "max_concurrency": 2}, ["gateway.shards=2"]),
}


async def run_scenario(scenario: Scenario, sim: Simulator, store: Path | str, record: Path | None) -> None:
    """Run a control plane from start to end."""
    settings = [*SETTINGS, *scenario.settings, f"gateway.api={sim.api_url}", f"session.store={store}"]
    ref = TrackerRef()
    sent_before = len(sim.sent)
    serving = asyncio.create_task(
        serve_config(
            lambda: load_config(None, settings),
            client=BotClient(scenario.token or sim.token),
            tracker_ref=ref,
            dependencies=_plane_dependencies(scenario, sim),
            record=record,
        )
    )
    tracker = await asyncio.to_thread(ref.wait)
    scenario_run = Run(sim, tracker, sent_before)
    await (quiet(scenario_run) if record is None else scenario.steps(scenario_run))
    await shutdown(tracker, goodbye=scenario.goodbye)
    try:
        await serving
    except FatalCloseError as error:
        print(f"  ended with {error}")  # noqa: T201  # a tool for the command line


def _plane_dependencies(scenario: Scenario, sim: Simulator) -> PlaneDependencies:
    """Fix the back-offs, and skip the look-up for a wrong token so that the gateway refuses it."""

    async def look_up() -> GatewayInfo:
        limit = SessionStartLimit(total=1000, remaining=1000, reset_after_ms=0, max_concurrency=1)
        return GatewayInfo(url=sim.gateway_url, shards=1, session_start_limit=limit)

    return PlaneDependencies(rng=random.Random(7), look_up=look_up if scenario.token else None)


async def record(name: str) -> Path:
    """Record one scenario, and replace its file only after the run has succeeded."""
    scenario = SCENARIOS[name]
    path = FOLDER / f"{name}.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        store = Path(folder) / "sessions.sqlite" if scenario.stored else ""
        async with Simulator(**{"guilds": 1, "seed": 1, **scenario.options}) as sim:
            if scenario.stored:
                await run_scenario(scenario, sim, store, None)
            await run_scenario(scenario, sim, store, made)
            if sim.violations:
                msg = f"{name}: {sim.violations}"
                raise RuntimeError(msg)
        path.write_bytes(made.read_bytes())
    return path


def record_file(name: str) -> str:
    path = asyncio.run(record(name))
    return f"{path.name}: {path.stat().st_size / 1024:.0f} KiB"


def main(names: list[str]) -> None:
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown:
        sys.exit(f"no such session: {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}")
    FOLDER.mkdir(exist_ok=True)
    with ProcessPoolExecutor(max_workers=4) as pool:
        for line in pool.map(record_file, names or SCENARIOS):
            print(line, flush=True)  # noqa: T201  # a tool for the command line


if __name__ == "__main__":
    main(sys.argv[1:])
