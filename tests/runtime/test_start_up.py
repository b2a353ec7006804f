"""What a start costs: the modules that a process loads, and its CPU time beside the packages that it cannot do without."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from discorder.simulator import Simulator

pytestmark = pytest.mark.system
SERVER_ONLY = ("aiohttp", "loguru", "pydantic", "rich", "sqlite3", "transitions", "typer")
SERVER_PACKAGES = (
    "plane",
    "shard",
    "statemachine",
    "transport",
    "publishers",
    "rest",
    "sessions",
    "tracking",
    "config",
)
ROUNDS = 4  # the cheapest one counts: the first one compiles, and other work on the machine only adds


@pytest.fixture
def compiled(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment in which byte code is kept between two runs, as after an installation."""
    kept = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(tmp_path / "byte-code")}


def loaded_modules(code: str) -> set[str]:
    """Run ``code`` in a new process; return the names of the modules that are loaded at its end."""
    shown = subprocess.check_output([sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], text=True)
    return set(shown.splitlines()[-1].split())


def start(*arguments: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; return the CPU seconds that it has used."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def cheapest(*arguments: str, env: Mapping[str, str]) -> float:
    """Run Python with ``arguments`` to its end, several times; return the CPU seconds of the cheapest run."""
    return min(cpu_seconds(start(*arguments, env=env)) for _ in range(ROUNDS))


def test_a_bot_loads_nothing_of_the_server() -> None:
    loaded = loaded_modules(
        "import discorder; discorder.subscribe, discorder.Commands, discorder.run_bot, discorder.Event"
    )
    assert not loaded & {*SERVER_ONLY, *(f"discorder.{name}" for name in SERVER_PACKAGES)}


def test_importing_discorder_alone_loads_nothing_else() -> None:
    assert {name for name in loaded_modules("import discorder") if name.startswith("discorder.")} == set()


def test_the_help_loads_no_implementation() -> None:
    loaded = loaded_modules("from discorder.cli.outcome import run; run(['--help'])")
    assert not loaded & {*SERVER_ONLY, "asyncio", "msgspec", "zmq"} - {"typer"}


def test_the_help_costs_little_more_than_the_parser(compiled: dict[str, str]) -> None:
    parser = cheapest("-c", "import typer", env=compiled)
    assert cheapest("-m", "discorder", "--help", env=compiled) < 3 * parser


@pytest.mark.heavy
async def test_a_start_costs_little_more_than_its_packages(compiled: dict[str, str], tmp_path: Path) -> None:
    """From the start of the process to the first IDENTIFY, beside a process that imports the packages and does nothing."""
    packages = "import aiohttp, loguru, msgspec, pydantic, sqlite3, tenacity, transitions, typer, zmq"
    floor = await asyncio.to_thread(cheapest, "-c", packages, env=compiled)
    used = []
    async with Simulator(guilds=1, rate=0) as sim:
        settings = (f"gateway.api={sim.api_url}", "session.store=", f"publishers.zmq.bind=ipc://{tmp_path}/bus")
        options = [word for setting in settings for word in ("--set", setting)]
        for _ in range(ROUNDS):
            before = sim.identifies
            process = start("-m", "discorder", "serve", *options, env=compiled | {"DISCORD_BOT_TOKEN": sim.token})
            while sim.identifies == before and process.poll() is None:  # noqa: ASYNC110  # counted, not announced
                await asyncio.sleep(0.002)
            process.kill()
            used.append(cpu_seconds(process))
            assert process.returncode == -signal.SIGKILL
    assert min(used) < 3 * floor
