"""A supervisor restarts `discorder serve` through a bad token, a busy port, a lost network and a full disk.

It knows nothing but exit codes, as systemd does. Over all of it exactly one IDENTIFY is spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from discorder.exits import HOPELESS
from discorder.sessions import bot_key, read_store
from discorder.simulator import Simulator
from tests.endurance.proxy import Proxy
from tests.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.heavy]
PAUSE = 0.1  # seconds between two starts; systemd's own default
SECONDS = 60.0


class Supervisor:
    """Starts the command again and again, as Restart=on-failure and RestartPreventExitStatus say."""

    def __init__(self, config: Path, environment: dict[str, str], *, full_disk: bool = False) -> None:
        self.codes: list[int] = []
        self.pid = 0
        self.log = ""
        command = f'exec "{sys.executable}" -m discorder serve --config "{config}"'
        self._command = ("sh", "-c", f"ulimit -f 0; {command}" if full_disk else command)
        self._environment = environment
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stderr=asyncio.subprocess.PIPE
            )
            self.pid = process.pid
            try:
                _, err = await process.communicate()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self.log += err.decode()
            self.codes.append(process.returncode or 0)
            if self.codes[-1] in {0} | HOPELESS:
                return
            await asyncio.sleep(PAUSE)

    async def sees(self, code: int, times: int = 1) -> None:
        """Wait until the process has ended so often with ``code``."""
        async with asyncio.timeout(SECONDS):
            while self.codes.count(code) < times:  # noqa: ASYNC110  # filled by a task
                await asyncio.sleep(0.02)

    async def gives_up(self) -> None:
        """Wait until it starts the process no more."""
        async with asyncio.timeout(SECONDS):
            await self._running

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


Supervise = Callable[..., Supervisor]


@pytest.fixture
async def supervise(environment: dict[str, str]) -> AsyncIterator[Supervise]:
    """Start supervisors; end them, and what they started, at the end."""
    started: list[Supervisor] = []

    def start(config: Path, token: str, *, full_disk: bool = False) -> Supervisor:
        started.append(Supervisor(config, environment | {"DISCORD_BOT_TOKEN": token}, full_disk=full_disk))
        return started[-1]

    yield start
    for one in started:
        await one.close()


def write(path: Path, api: str, store: Path, port: int) -> Path:
    path.write_text(
        f'[gateway]\napi = "{api}"\nmax_attempts = 2\n[session]\nstore = "{store}"\n'
        f'[publishers.zmq]\nbind = "tcp://127.0.0.1:{port}"\n'
    )
    return path


async def is_stored(store: Path, sim: Simulator) -> None:
    """Wait until the store holds a session of the bot."""
    async with asyncio.timeout(SECONDS):
        while not store.exists() or not read_store(store, bot_key(sim.token)).sessions:  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.02)


async def test_one_identify_is_spent_over_everything(supervise: Supervise, tmp_path: Path) -> None:
    async with Simulator(guilds=1, rate=20) as sim:
        target, bus = int(sim.api_url.split(":")[2].split("/")[0]), free_port(following=1)
        store = tmp_path / "sessions.sqlite3"
        async with Proxy(target) as proxy:
            line = proxy.port
            sim.advertise(f"ws://127.0.0.1:{line}", f"ws://127.0.0.1:{line}")
            config = write(tmp_path / "config.toml", f"http://127.0.0.1:{line}/api/v10", store, bus)

            # a bad token: the supervisor leaves it alone at once
            refused = supervise(config, "MTIz.wrong.token")
            await refused.gives_up()
            assert refused.codes == [77]

            # a busy port: it tries again until the port is free
            with socket.socket() as other:
                other.bind(("127.0.0.1", bus))
                other.listen()
                served = supervise(config, sim.token)
                await served.sees(73, times=3)
            assert sim.identifies == 0
            await is_stored(store, sim)
            assert sim.identifies == 1

        # a lost network: the process gives up, the supervisor does not
        await served.sees(69, times=2)
        async with Proxy(target, line):
            await sim.wait_for(lambda: sim.resumed == 1, timeout=SECONDS)
            assert set(served.codes) == {73, 69}

            # a full disk: what is stored is resumed, over and over
            await served.close()
            full = supervise(config, sim.token, full_disk=True)
            for life in (2, 3, 4):
                await sim.wait_for(lambda life=life: sim.resumed == life, timeout=SECONDS)  # type: ignore[misc]
                os.kill(full.pid, signal.SIGKILL)
                await full.sees(-signal.SIGKILL, times=life - 1)
            await full.close()
            assert sim.identifies == 1

            # a store that cannot be made: it does not even dial
            connects = sim.connects
            cold = supervise(
                write(tmp_path / "cold.toml", f"http://127.0.0.1:{line}/api/v10", Path("/proc/nowhere/s.sqlite3"), bus),
                sim.token,
            )
            await cold.sees(74, times=3)
            await cold.close()
            assert sim.connects == connects

            # everything is well again
            last = supervise(config, sim.token)
            await sim.wait_for(lambda: sim.resumed >= 5, timeout=SECONDS)
            os.kill(last.pid, signal.SIGTERM)
            await last.gives_up()
        assert last.codes == [0]
        assert (sim.identifies, sim.violations) == (1, [])
