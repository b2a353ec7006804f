"""``make compare``: the control plane and three libraries under the same faults, each against a simulator of its own.

Every client notes the number of each event that it gets. A simulator numbers what it sends and keeps its sessions through every
fault, so each event that is missing at the end was lost by the client. Nothing is judged: the table goes to ``--output``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from discorder.clock import SystemClock
from discorder.simulator import Simulator
from tests.bench.subjects import NODE_FOLDER, install_discordjs
from tests.compare.clients import CLIENTS
from tests.endurance.evidence import read_rows
from tests.endurance.process import ChildProcess, PlaneProcess
from tests.endurance.proxy import LOOPBACK, Fault, Proxy
from tests.endurance.waiting import until

KIND = "MESSAGE_DELETE"  # an event that every library knows and that needs nothing from its cache
RATE = 50  # events a second
HEARTBEAT_MS = 3_000
START_WITHIN = 60.0  # seconds
CALM = 3.0  # seconds of events before the first fault, and after the last
CATCH_UP = 90.0  # seconds for a client to come back and get what it missed
FOLDER = Path(__file__).parent


class Client:
    """A library, or the control plane with a required file. ``port``: the proxy before the simulator."""

    def __init__(self, name: str, folder: Path, sim: Simulator, port: int) -> None:
        self.name = name
        self._notes = folder / "events"
        gateway, api = f"ws://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{port}/api/v10"
        self._plane = PlaneProcess(folder, sim, api=api) if name == "discorder" else None
        self.process: ChildProcess = self._plane or ChildProcess(folder / "log", {})
        script, file = str(NODE_FOLDER / "compare.mjs"), str(self._notes)
        self._command = {
            "@discordjs/ws": ("node", [script, gateway, sim.token, file]),
        }.get(name, ("", ["-m", "tests.compare.clients", name, api, sim.token, gateway, file]))

    async def start(self) -> None:
        """Begin another life."""
        program, arguments = self._command
        if self._plane is not None:
            await self._plane.start()
        elif program:
            await self.process.begin(arguments, program)
        else:
            await self.process.begin(arguments)

    def got(self) -> set[int]:
        """Return the numbers of the events that it has."""
        if self._plane is None:
            return set(map(int, self._notes.read_text().split())) if self._notes.exists() else set()
        rows = read_rows(self._plane.audit) if self._plane.audit.exists() else []
        return {msgspec.json.decode(row.data)["number"] for row in rows if row.type == KIND}


@dataclass
class Stage:
    """One client, its simulator and the proxy between them."""

    client: Client
    sim: Simulator
    proxy: Proxy

    async def strike(self, fault: Fault) -> None:
        """Break the connection to the gateway once it stands."""
        await until(lambda: self.sim.connected_shards, CATCH_UP)
        self.proxy.strike(fault, random.Random(0), 0.0)
        await asyncio.sleep(CALM)


async def resets(stage: Stage) -> None:
    """Five resets of the connection."""
    for _ in range(5):
        await stage.strike(Fault.RESET)


async def requests(stage: Stage) -> None:
    """Discord asks for a new connection three times (op 7)."""
    for _ in range(3):
        await until(lambda: stage.sim.connected_shards, CATCH_UP)
        await stage.sim.reconnect()
        await asyncio.sleep(CALM)


async def half_open(stage: Stage) -> None:
    """The path dies without a word."""
    await stage.strike(Fault.HALF_OPEN)


async def unreachable(stage: Stage) -> None:
    """A reset, and Discord cannot be reached for 10 s."""
    stage.proxy.strike(Fault.RESET, random.Random(0), 0.0)
    await stage.proxy.refuse(10.0)


async def stopped(stage: Stage) -> None:
    """The process is stopped for 10 s (SIGSTOP), as by a machine that is suspended."""
    stage.client.process.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(10.0)
    stage.client.process.process.send_signal(signal.SIGCONT)


async def killed(stage: Stage) -> None:
    """kill -9, and a new start 3 s later."""
    await stage.client.process.kill()
    await asyncio.sleep(3.0)
    await stage.client.start()


async def upgraded(stage: Stage) -> None:
    """SIGTERM, and a new start at once."""
    with contextlib.suppress(TimeoutError):
        await stage.client.process.stop()
    await stage.client.process.kill()
    await stage.client.start()


FAULTS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "5 resets": resets,
    "3 × op 7": requests,
    "half-open": half_open,
    "unreachable for 10 s": unreachable,
    "SIGSTOP for 10 s": stopped,
    "kill -9": killed,
    "restart": upgraded,
}
NAMES = ("discorder", *CLIENTS, "@discordjs/ws")


@dataclass(frozen=True)
class Result:
    """``sent`` events, of which ``lost`` did not arrive, and the IDENTIFYs after the first."""

    sent: int
    lost: int
    identifies: int

    def __str__(self) -> str:
        return f"{self.lost:,} of {self.sent:,}" + (f" ({self.identifies} IDENTIFY)" if self.identifies else "")


async def run(name: str, fault: Callable[[Stage], Awaitable[None]]) -> Result:
    """Let ``fault`` happen to one client. Raises TimeoutError when the client never gets a session."""
    clock, sent = SystemClock(), 0
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        options = {"heartbeat_interval_ms": HEARTBEAT_MS, "missed_heartbeats": 0}
        async with Simulator(guilds=1, rate=0.0, **options) as sim, Proxy(_port(sim.gateway_url)) as proxy:  # type: ignore[arg-type]
            url = f"ws://{LOOPBACK}:{proxy.port}"
            sim.advertise(url, url)
            client = Client(name, Path(folder), sim, proxy.port)

            async def send() -> None:
                nonlocal sent
                while True:
                    await sim.dispatch(KIND, {"id": str(sent), "channel_id": "1", "guild_id": "1", "number": sent})
                    sent += 1
                    await clock.sleep(1 / RATE)

            try:
                await client.start()
                await until(lambda: sim.connected_shards, START_WITHIN)
                await asyncio.sleep(1.0)  # the guilds
                sending = asyncio.create_task(send())
                await asyncio.sleep(CALM)
                await fault(Stage(client, sim, proxy))
                await until(lambda: sim.connected_shards, CATCH_UP)
                await asyncio.sleep(CALM)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                return await _result(client, sim, sent)
            finally:
                await client.process.clean_up()


async def _result(client: Client, sim: Simulator, sent: int) -> Result:
    give_up_at = time.monotonic() + CATCH_UP / 3
    while (lost := sent - len(client.got())) and time.monotonic() < give_up_at:  # noqa: ASYNC110  # about another process
        await asyncio.sleep(0.5)
    return Result(sent, lost, sim.identifies - 1)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def table(results: dict[str, dict[str, str]], names: Sequence[str]) -> str:
    """Return the Markdown table: lost events by fault and client."""
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    lines += [f"| {fault} | " + " | ".join(row[name] for name in names) + " |" for fault, row in results.items()]
    return "\n".join(lines) + "\n"


async def _compare(faults: Sequence[str], names: Sequence[str], output: Path | None) -> None:
    results: dict[str, dict[str, str]] = {}
    for fault in faults:
        outcomes = await asyncio.gather(*(run(name, FAULTS[fault]) for name in names), return_exceptions=True)
        texts = [str(one) if isinstance(one, Result) else f"no session ({type(one).__name__})" for one in outcomes]
        results[fault] = dict(zip(names, texts, strict=True))
        print(f"{fault}: " + "; ".join(f"{name} {text}" for name, text in results[fault].items()), flush=True)
    text = table(results, names)
    print(text)
    if output is not None:
        output.write_text(text)  # noqa: ASYNC240  # at the end


def main() -> None:
    parser = argparse.ArgumentParser(prog="make compare", description=__doc__)
    parser.add_argument("--only", action="append", choices=FAULTS, help="only this fault; may be repeated")
    parser.add_argument("--output", type=Path, help="a file for the table")
    options = parser.parse_args()
    names = [name for name in NAMES if name != "@discordjs/ws" or shutil.which("npm")]
    if "@discordjs/ws" in names:
        install_discordjs()
        shutil.copy(FOLDER / "discordjs.mjs", NODE_FOLDER / "compare.mjs")
    asyncio.run(_compare(options.only or list(FAULTS), names, options.output))


if __name__ == "__main__":
    main()
