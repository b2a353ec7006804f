"""SIGHUP: `discorder serve` reopens its log and reads the log's settings again; no session notices, and no process ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from discorder.runtime.hangup import hangups_wait
from discorder.simulator import Simulator
from tests.serving import Serve, Serving

pytestmark = pytest.mark.system


def write(path: Path, sim: Simulator, log: str, *, publishers: str = '[publishers.sink]\nkind = "channel"\n') -> Path:
    store = path.parent / "sessions.sqlite3"
    path.write_text(f'[gateway]\napi = "{sim.api_url}"\n[session]\nstore = "{store}"\n[log]\n{log}\n{publishers}')
    return path


async def shows(file: Path, text: str) -> None:
    def lacks() -> bool:
        return not file.exists() or text not in file.read_text()

    async with asyncio.timeout(60):
        while lacks():  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(0.02)


async def still_runs(sim: Simulator, serving: Serving) -> None:
    """The first session lives, and the process ends when it is asked to."""
    count = len(sim.sent)
    await sim.wait_for(lambda: len(sim.sent) > count, timeout=60)
    assert (sim.identifies, sim.connects, sim.closes) == (1, 1, [])
    serving.process.send_signal(signal.SIGTERM)
    assert await serving.ends() == 0, serving.log


async def test_the_log_is_reopened_and_its_settings_are_read_again(
    serve: Serve, sim: Simulator, tmp_path: Path
) -> None:
    """Level, heartbeats, events, format and file: what is written under [log] holds from then on."""
    config, before, after = tmp_path / "own.toml", tmp_path / "before.log", tmp_path / "after.log"
    write(config, sim, f'file = "{before}"')
    serving = await serve(config=config)
    await serving.says("Control plane started")
    rotated = before.rename(tmp_path / "before.log.1")
    serving.process.send_signal(signal.SIGHUP)
    await shows(before, "Reloaded the log's settings")
    assert "Control plane started" in rotated.read_text()
    assert "discorder.events" not in before.read_text()
    write(config, sim, f'level = "debug"\nfile = "{after}"\nformat = "json"\nevents = true')
    serving.process.send_signal(signal.SIGHUP)
    await shows(after, "Reloaded the log's settings")
    await shows(after, " session=")
    assert all(line.startswith("{") for line in after.read_text().splitlines())
    write(config, sim, f'file = "{after}"')
    serving.process.send_signal(signal.SIGHUP)
    await serving.says(f"level=info file={after}")
    await asyncio.sleep(0.05)
    size = after.stat().st_size
    count = len(sim.sent)
    await sim.wait_for(lambda: len(sim.sent) > count + 10, timeout=60)
    assert after.stat().st_size == size, "events are still written"
    await still_runs(sim, serving)


async def test_without_a_file_it_is_ignored_with_one_line(serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    serving = await serve(config=write(tmp_path / "own.toml", sim, ""))
    await serving.says("Control plane started")
    lines = serving.log.count("\n")
    serving.process.send_signal(signal.SIGHUP)
    await serving.says("SIGHUP is ignored, there is no log file to reopen")
    assert serving.log.count("\n") == lines + 1
    await still_runs(sim, serving)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ('level = "loud"', "log.level"),
        ('file = "/proc/nowhere/x.log"', "the log cannot be written"),
        (f'file = "/tmp/{"x" * 300}"', "log.file: "),
        ("[", "not valid TOML"),
    ],
)
async def test_a_broken_configuration_changes_nothing(
    serve: Serve, sim: Simulator, tmp_path: Path, broken: str, reason: str
) -> None:
    config = write(tmp_path / "own.toml", sim, f'file = "{tmp_path / "own.log"}"')
    serving = await serve(config=config)
    await serving.says("Control plane started")
    write(config, sim, broken)
    lines = serving.log.count("\n")
    serving.process.send_signal(signal.SIGHUP)
    await serving.says("The configuration cannot be reloaded, the settings stay as they are")
    assert reason in serving.log
    assert serving.log.count("\n") == lines + 1
    write(config, sim, f'level = "debug"\nfile = "{tmp_path / "own.log"}"')
    serving.process.send_signal(signal.SIGHUP)
    await shows(tmp_path / "own.log", "level=debug")
    await still_runs(sim, serving)


@pytest.mark.heavy
async def test_what_only_a_restart_applies_is_named(serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    config = write(tmp_path / "own.toml", sim, f'file = "{tmp_path / "own.log"}"')
    serving = await serve(config=config)
    await serving.says("Control plane started")
    changed = '[http]\nhosts = ["bot.example"]\n[publishers.other]\nkind = "channel"\n'
    write(config, sim, f'file = "{tmp_path / "own.log"}"', publishers=changed)
    serving.process.send_signal(signal.SIGHUP)
    await serving.says('needs_restart=["http.hosts", "publishers.other", "publishers.sink"]')
    await still_runs(sim, serving)


async def test_a_start_survives_it(serve: Serve, sim: Simulator, tmp_path: Path) -> None:
    """From the first instruction of the command on, over and over."""
    config = write(tmp_path / "own.toml", sim, "")
    with hangups_wait():  # the interpreter itself would end by the signal
        serving = await serve(config=config)
    async with asyncio.timeout(60):
        while not sim.sent:
            serving.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.005)
    await still_runs(sim, serving)


@pytest.mark.heavy
async def test_several_processes_all_get_it(serve: Serve, tmp_path: Path) -> None:
    """The supervising process passes it on, to a process that has just begun too."""
    async with Simulator(guilds=2, shards=2, max_concurrency=2, rate=20) as sim:
        bus = f'[publishers.zmq]\nbind = "ipc://{tmp_path}/bus"\n'
        config = write(tmp_path / "own.toml", sim, f'file = "{tmp_path / "own.log"}"', publishers=bus)
        serving = await serve("--processes", "2", "--set", "gateway.shards=2", config=config)
        await serving.says("Started a process process=1")
        serving.process.send_signal(signal.SIGHUP)
        await sim.wait_for(lambda: sim.identifies == 2, timeout=60)
        logs = [tmp_path / f"own.{number}.log" for number in range(2)]
        for log in logs:
            log.rename(log.with_suffix(".1"))
        serving.process.send_signal(signal.SIGHUP)
        for log in logs:
            await shows(log, "Reloaded the log's settings")
        assert "crashed" not in serving.log
        assert (sim.connects, sim.closes) == (2, [])
        for pid in re.findall(r"Started a process .*pid=(\d+)", serving.log):
            os.kill(int(pid), 0)
        serving.process.send_signal(signal.SIGTERM)
        assert await serving.ends() == 0, serving.log
