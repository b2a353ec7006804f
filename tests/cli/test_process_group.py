"""The commands of an operator beside `discorder serve --processes 2`: its one HTTP server speaks for both processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from discorder.simulator import Simulator
from tests.commandline import Command, Outcome
from tests.http.test_operate import lines_until, watching
from tests.ports import free_port
from tests.serving import Serve, Serving

pytestmark = [pytest.mark.system, pytest.mark.heavy]
Ask = Callable[..., Awaitable[Outcome]]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=2, shards=2, max_concurrency=2, rate=0) as simulator:
        yield simulator


@pytest.fixture
def config(sim: Simulator, tmp_path: Path) -> Path:
    file = tmp_path / "two.toml"
    file.write_text(
        f'[gateway]\napi = "{sim.api_url}"\nshards = 2\n[session]\nstore = "{tmp_path / "two.sqlite3"}"\n'
        f'[http]\nbind = "127.0.0.1:{free_port()}"\noperator_token_file = "{tmp_path / "token"}"\n'
        f'[publishers.zmq]\nbind = "ipc://{tmp_path}/bus"\n'
    )
    return file


@pytest.fixture
async def planes(serve: Serve, sim: Simulator, config: Path) -> Serving:
    """Two processes whose shards serve."""
    started = await serve("--processes", "2", config=config)
    async with asyncio.timeout(60):
        while started.log.count("Control plane started") < 2:  # noqa: ASYNC110  # lines of other processes
            await asyncio.sleep(0.02)
    return started


@pytest.fixture
def ask(discorder: Command, config: Path) -> Ask:
    async def asked(*arguments: str) -> Outcome:
        return await discorder(*arguments, "--config", str(config))

    return asked


def pid_of(serving: Serving, number: int) -> int:
    return int(re.findall(rf"Started a process process={number} pid=(\d+)", serving.log)[-1])


async def test_all_processes_are_one_for_an_operator(planes: Serving, sim: Simulator, ask: Ask) -> None:
    healthy = await ask("healthcheck", "--ready")
    assert (healthy.code, healthy.out) == (0, "ready: Well: all 2 shards serve\n")
    url = re.findall(r"Status page url=(\S+)", planes.log)
    assert len(url) == 1, planes.log
    paused = await ask("shards", "pause", "1")
    assert (paused.code, "shard 1 is paused" in paused.out) == (0, True), paused.err
    status = await ask("status")
    assert status.out.startswith("Not well: 1 of 2 shards does not serve\nProcess 1: An operator has paused it."), (
        status.out
    )
    assert "zmq of process 0" in status.out
    absent = await ask("shards", "restart", "7")
    assert absent.code != 0
    assert "no process has a shard 7" in absent.err
    async with aiohttp.ClientSession() as session, session.get(f"{url[0]}metrics") as metrics:
        assert 'discorder_shard_ready{process="1",shard="1"} 0.0' in await metrics.text()
    stopped = await ask("shutdown")
    assert (stopped.code, "all 2 processes shut down" in stopped.out) == (0, True), stopped.err
    assert await planes.ends() == 0, planes.log
    assert planes.log.count("Shut down completely") == 2
    assert all(close.code != 1000 for close in sim.closes), sim.closes


async def test_a_process_that_hangs_makes_the_whole_unhealthy(planes: Serving, ask: Ask) -> None:
    os.kill(pid_of(planes, 1), signal.SIGSTOP)
    try:
        health, status = await ask("healthcheck"), await ask("status")
    finally:
        os.kill(pid_of(planes, 1), signal.SIGCONT)
    assert (health.code, health.out) == (1, "not live: process 1: it does not answer\n")
    assert (status.code, status.out.split("\n")[0]) == (0, "Not well: 1 of 2 shards does not serve")
    assert "process 1: it does not answer" in " ".join(status.out.split())


async def test_a_crash_is_shown_live_and_over_once_the_process_serves_again(
    planes: Serving, environment: dict[str, str], config: Path
) -> None:
    async with watching(environment, "--config", str(config)) as process:
        await lines_until(process.stdout, "discorder 0.")
        os.kill(pid_of(planes, 1), signal.SIGKILL)
        await lines_until(process.stdout, "Not well: 1 of 2 shards does not serve")
        await lines_until(process.stdout, "Well: all 2 shards serve")
    assert "A process crashed and will be started again process=1" in planes.log


async def test_a_goodbye_reaches_all(planes: Serving, sim: Simulator, ask: Ask) -> None:
    assert (await ask("shutdown", "--goodbye")).code == 0
    assert await planes.ends() == 0, planes.log
    assert [close.code for close in sim.closes] == [1000, 1000]


async def test_a_signal_to_one_stops_all(planes: Serving) -> None:
    os.kill(pid_of(planes, 1), signal.SIGTERM)
    assert await planes.ends() == 0, planes.log
    assert planes.log.count("Shut down completely") == 2
    assert "A process was asked to stop, which stops all of them" in planes.log


async def test_a_port_that_is_taken_is_said_before_anything_starts(serve: Serve, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"http.bind=127.0.0.1:{taken.getsockname()[1]}"
        refused = await serve("--processes", "2", "--set", bind, config=config)
        assert await refused.ends() == 73
    assert "is in use" in refused.log
    assert "Started a process" not in refused.log
