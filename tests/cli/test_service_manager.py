"""`discorder serve` under a service manager: this test opens the socket that systemd would, and reads what comes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from discorder.simulator import Simulator
from tests.serving import Serve

pytestmark = pytest.mark.system
WATCHDOG_SECONDS = 0.4

BLOCKED = """
import sys, threading, time, discorder
ref = discorder.TrackerRef()

def block():
    tracker = ref.wait()
    time.sleep(1.5)
    print("blocked", flush=True)
    tracker.plane.loop.call_soon_threadsafe(time.sleep, 3)

threading.Thread(target=block, daemon=True).start()
discorder.run(config_file_path=sys.argv[1], tracker_ref=ref)
"""


class Manager:
    """The end of NOTIFY_SOCKET that reads: every state in its order."""

    def __init__(self, path: Path) -> None:
        self.variables = {"NOTIFY_SOCKET": str(path)}
        self.states: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self._reading = asyncio.create_task(self._read())
        self._grown = asyncio.Event()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.states += (await loop.sock_recv(self._socket, 4096)).decode().split("\n")
            self._grown.set()

    async def gets(self, state: str, *, after: int = 0) -> int:
        """Wait for ``state``, behind the first ``after`` states; return how many there are up to it."""
        async with asyncio.timeout(60):
            while state not in self.states[after:]:
                self._grown.clear()
                await self._grown.wait()
        return self.states.index(state, after) + 1

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    opened = Manager(tmp_path / "notify")
    yield opened
    await opened.close()


@pytest.fixture
def watched(manager: Manager) -> dict[str, str]:
    """The variables of a service with a watchdog."""
    return manager.variables | {"WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6))}


async def test_a_service_from_its_start_to_its_end(serve: Serve, sim: Simulator, manager: Manager) -> None:
    serving = await serve(variables=manager.variables)
    await manager.gets("READY=1")
    await manager.gets("STATUS=Ready")
    serving.process.send_signal(signal.SIGHUP)
    reloading = await manager.gets("RELOADING=1")
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", manager.states[reloading])
    await manager.gets("READY=1", after=reloading)
    serving.process.send_signal(signal.SIGTERM)
    await manager.gets("STOPPING=1")
    assert await serving.ends() == 0
    assert "WATCHDOG=1" not in manager.states


@pytest.mark.heavy
async def test_a_reload_that_fails_ends_too(serve: Serve, sim: Simulator, manager: Manager, tmp_path: Path) -> None:
    """READY follows each RELOADING, and the next SIGHUP is served."""
    config, file = tmp_path / "own.toml", tmp_path / "own.log"

    def write(log: str) -> None:
        config.write_text(f'[gateway]\napi = "{sim.api_url}"\n[session]\nstore = ""\n[log]\nfile = "{log}"\n')

    write(str(file))
    serving = await serve(config=config, variables=manager.variables)
    seen = await manager.gets("READY=1")
    for log in ("/tmp/" + "x" * 300, "/tmp/" + "x" * 300, str(file)):  # noqa: S108  # a name that no file can have
        write(log)
        serving.process.send_signal(signal.SIGHUP)
        seen = await manager.gets("READY=1", after=await manager.gets("RELOADING=1", after=seen))
    assert serving.log.count("The configuration cannot be reloaded") == 2
    await serving.says("Reloaded the log's settings")
    serving.process.send_signal(signal.SIGTERM)
    assert await serving.ends() == 0


async def test_an_outage_of_discord_gets_no_good_process_killed(
    serve: Serve, sim: Simulator, manager: Manager, watched: dict[str, str]
) -> None:
    """The service is ready and feeds its watchdog although it gets no connection at all."""
    await sim.refuse_upgrades(503)
    serving = await serve(variables=watched)
    ready = await manager.gets("READY=1")
    for _ in range(5):
        ready = await manager.gets("WATCHDOG=1", after=ready)
    assert "STATUS=Ready" not in manager.states
    serving.process.send_signal(signal.SIGTERM)
    assert await serving.ends() == 0


@pytest.mark.heavy
async def test_a_start_that_waits_for_the_shards_is_not_ready_yet(
    serve: Serve, sim: Simulator, manager: Manager
) -> None:
    holder = await serve()
    await holder.says("Control plane started")
    waiting = await serve("--wait", "60", variables=manager.variables)
    await waiting.says("Waiting for the holder of the shards")
    await manager.gets("STATUS=Starting")
    assert "READY=1" not in manager.states
    holder.process.send_signal(signal.SIGTERM)
    await manager.gets("READY=1")


@pytest.mark.heavy
async def test_a_loop_that_is_blocked_feeds_no_watchdog(
    sim: Simulator, environment: dict[str, str], tmp_path: Path, manager: Manager, watched: dict[str, str]
) -> None:
    config = tmp_path / "script.toml"
    config.write_text(f'[gateway]\napi = "{sim.api_url}"\n[session]\nstore = ""\n[publishers.sink]\nkind = "channel"\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BLOCKED, str(config)),
        env=environment | watched | {"DISCORD_BOT_TOKEN": sim.token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"blocked\n"
    assert manager.states.count("WATCHDOG=1") >= 3
    await asyncio.sleep(WATCHDOG_SECONDS)
    fed = manager.states.count("WATCHDOG=1")
    await asyncio.sleep(3 * WATCHDOG_SECONDS)
    assert manager.states.count("WATCHDOG=1") == fed
    await manager.gets("WATCHDOG=1", after=len(manager.states))  # once the loop turns again
    process.terminate()
    assert await process.wait() == 0


@pytest.mark.heavy
async def test_several_processes_are_one_service(tmp_path: Path, serve: Serve, manager: Manager) -> None:
    """Ready when all are; one that hangs is killed and started again, and the service itself goes on."""
    async with Simulator(guilds=2, shards=2, max_concurrency=2, rate=20) as sim:
        config = tmp_path / "two.toml"
        config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\nshards = 2\n[session]\nstore = "{tmp_path / "two.sqlite3"}"\n'
            f'[publishers.zmq]\nbind = "ipc://{tmp_path}/bus"\n'
        )
        variables = manager.variables | {"WATCHDOG_USEC": "2000000"}
        serving = await serve("--processes", "2", config=config, variables=variables)
        await manager.gets("READY=1")
        await manager.gets("STATUS=2 processes")
        await sim.wait_for(lambda: sim.identifies == 2, timeout=60)
        hung = int(re.findall(r"Started a process process=1 pid=(\d+)", serving.log)[0])
        os.kill(hung, signal.SIGSTOP)
        await serving.says("A process does not answer and is killed")
        await sim.wait_for(lambda: sim.resumed == 1, timeout=60)
        fed = len(manager.states)
        await manager.gets("WATCHDOG=1", after=fed)
        assert (sim.identifies, manager.states.count("READY=1")) == (2, 1)
        serving.process.send_signal(signal.SIGTERM)
        await manager.gets("STOPPING=1")
        assert await serving.ends() == 0, serving.log
