"""The commands of an operator beside `discorder serve --processes 2`: they reach both processes by the one configuration."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from discorder.simulator import Simulator
from tests.commandline import Command, Outcome
from tests.serving import Serve, Serving

pytestmark = [pytest.mark.system, pytest.mark.heavy]
Ask = Callable[..., Awaitable[Outcome]]


def two_free_ports() -> int:
    """Return the first of two consecutive ports that are free."""
    while True:
        with ExitStack() as opened, socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            second = opened.enter_context(socket.socket())
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=2, shards=2, max_concurrency=2, rate=0) as simulator:
        yield simulator


@pytest.fixture
def config(sim: Simulator, tmp_path: Path) -> Path:
    file = tmp_path / "two.toml"
    file.write_text(
        f'[gateway]\napi = "{sim.api_url}"\nshards = 2\n[session]\nstore = "{tmp_path / "two.sqlite3"}"\n'
        f'[http]\nbind = "127.0.0.1:{two_free_ports()}"\noperator_token_file = "{tmp_path / "token"}"\n'
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


async def test_every_process_is_asked_and_a_shutdown_stops_all(planes: Serving, sim: Simulator, ask: Ask) -> None:
    healthy = await ask("healthcheck", "--ready")
    assert (healthy.code, healthy.out.count("ready: Well")) == (0, 2), healthy.out
    status = await ask("status")
    assert (status.code, status.out.count("Well: the shard serves")) == (0, 2), status.out + status.err
    assert "process 0 of 2" in status.out
    assert "process 1 of 2" in status.out
    url = re.findall(r"This is process 1 of 2: \S+, (http://127.0.0.1:\d+)", status.out)[0]
    async with aiohttp.ClientSession() as session, session.get(url) as page:
        html = await page.text()
    assert "process 1 of 2" in html
    assert f"all processes: http://127.0.0.1:{int(url.rpartition(':')[2]) - 1}, {url}" in html
    paused = await ask("shards", "pause", "1")
    assert (paused.code, "shard 1 is paused" in paused.out) == (0, True), paused.err
    status = await ask("status")
    assert status.out.index("process 1 of 2") < status.out.index("process 0 of 2")  # the worst first
    absent = await ask("shards", "restart", "7")
    assert absent.code != 0
    assert "no process has a shard 7; there are: 0, 1" in absent.err
    stopped = await ask("shutdown")
    assert (stopped.code, "all 2 processes shut down" in stopped.out) == (0, True), stopped.err
    assert await planes.ends() == 0, planes.log
    assert "A process was asked to stop, which stops all of them" in planes.log
    assert planes.log.count("Shut down completely") == 2
    assert all(close.code != 1000 for close in sim.closes), sim.closes


async def test_a_process_that_does_not_answer_makes_the_whole_unhealthy(planes: Serving, ask: Ask) -> None:
    os.kill(pid_of(planes, 1), signal.SIGSTOP)
    try:
        health, status = await ask("healthcheck", "--ready"), await ask("status")
    finally:
        os.kill(pid_of(planes, 1), signal.SIGCONT)
    assert (health.code, health.out.startswith("process 1: no control plane answers")) == (1, True), health.out
    assert "process 0: ready: Well" in health.out
    assert (status.code, status.out.startswith("process 1 does not answer")) == (69, True), status.out


async def test_process_1_is_found_without_process_0(planes: Serving, ask: Ask) -> None:
    """A shutdown says goodbye for all of them; process 0, which waits to be started again, does not keep the others."""
    os.kill(pid_of(planes, 0), signal.SIGKILL)
    await planes.says("A process crashed and will be started again")
    health = await ask("healthcheck")
    stopped = await ask("shutdown", "--goodbye")
    assert health.code == 1 or "Started a process process=0" in planes.log
    assert (stopped.code, "the sessions end" in stopped.out) == (0, True), stopped.err
    assert await planes.ends() == 0, planes.log


async def test_a_goodbye_to_one_reaches_all(planes: Serving, sim: Simulator, ask: Ask) -> None:
    assert (await ask("shutdown", "--goodbye")).code == 0
    assert await planes.ends() == 0, planes.log
    assert [close.code for close in sim.closes] == [1000, 1000]


async def test_a_signal_to_one_stops_all(planes: Serving) -> None:
    os.kill(pid_of(planes, 1), signal.SIGTERM)
    assert await planes.ends() == 0, planes.log
    assert planes.log.count("Shut down completely") == 2
