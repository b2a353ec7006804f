"""The code in the README, in the page for bot developers and in the page about publishers runs unchanged."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import discorder
from discorder.config import load_config, sample_config
from discorder.control_plane import serve_config
from discorder.rest import BotClient
from discorder.simulator import Simulator

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BOT_DEVELOPERS = ROOT / "docs" / "bot-developers.md"
PUBLISHERS = ROOT / "docs" / "publishers.md"
MESSAGE_CONTENT = 1 << 15


def block(page: Path, name: str) -> str:
    """Return the code block behind ``<!-- run: name -->``."""
    (found,) = re.findall(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def settings(sim: Simulator, bind: str) -> list[str]:
    return [
        f"gateway.api={sim.api_url}",
        "session.store=",
        f"publishers.zmq.bind={bind}",
        "log.level=error",
        "http.bind=",
    ]


async def test_the_subscriber_of_the_readme_prints_messages(default_port: int) -> None:
    """It runs unchanged in a separate process, against a plane on the default port (another one if that is taken)."""
    code = block(README, "subscriber").replace(":6000", f":{default_port}")
    async with Simulator(guilds=1, rate=20) as sim:
        ref = discorder.TrackerRef()
        load = lambda: load_config(None, settings(sim, f"tcp://127.0.0.1:{default_port}"))  # noqa: E731
        plane = asyncio.create_task(serve_config(load, client=BotClient(sim.token), tracker_ref=ref))
        bot = await asyncio.create_subprocess_exec(
            sys.executable, "-u", "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
        )
        try:
            assert bot.stdout is not None
            async with asyncio.timeout(60):
                line = await bot.stdout.readline()
            assert re.match(rb"\d+ ", line), line
            bot.send_signal(signal.SIGINT)  # as Ctrl-C
            async with asyncio.timeout(60):
                _, err = await bot.communicate()
            assert (bot.returncode, err) == (0, b"")
        finally:
            if bot.returncode is None:
                bot.kill()
                await bot.wait()
            plane.cancel()
            results = await asyncio.gather(plane, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError), results


@pytest.mark.system
async def test_the_readme_starts_without_a_token_of_discord(tmp_path: Path, default_port: int) -> None:
    """The commands run as written, but for the ports and the token that the first one prints."""
    simulate, export, serve = (
        shlex.split(line.removeprefix("$ "), comments=True) for line in block(README, "simulated").splitlines()
    )
    assert (simulate.pop(), export[1]) == ("&", "DISCORD_BOT_TOKEN=…")
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    free = [argument.replace("8080", "0") for argument in simulate]
    sim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *free), stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
    )
    processes = [sim]
    try:
        assert sim.stdout is not None
        async with asyncio.timeout(60):
            said = json.loads(await sim.stdout.readline())
        own = [argument.replace("http://127.0.0.1:8080/api/v10", said["api"]) for argument in serve]
        assert own != serve
        plane = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *own, "--set", f"publishers.zmq.bind=tcp://127.0.0.1:{default_port}"),
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env=environment | {"DISCORD_BOT_TOKEN": said["token"]},
        )
        processes.append(plane)
        assert plane.stderr is not None
        async with asyncio.timeout(60):
            while b"Control plane started" not in await plane.stderr.readline():
                assert plane.returncode is None
    finally:
        for process in reversed(processes):
            if process.returncode is None:
                process.terminate()
            await process.communicate()


async def test_the_publisher_of_the_page_gets_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, type] = {}
    exec(block(PUBLISHERS, "publisher"), names)  # noqa: S102  # the page's own code
    async with Simulator(guilds=1) as sim:
        ref = discorder.TrackerRef()
        load = lambda: load_config(None, settings(sim, "tcp://127.0.0.1:0"))  # noqa: E731
        plane = asyncio.create_task(serve_config(load, client=BotClient(sim.token), tracker_ref=ref))
        tracker = await ref.ready(timeout=60)
        tracker.add_publisher(names["Printer"]())
        await sim.dispatch("TYPING_START", {"user_id": "1"})
        async with asyncio.timeout(60):
            while not tracker.publisher_health[-1].accepted:  # noqa: ASYNC110  # a publisher's health is there to be looked at
                await asyncio.sleep(0.01)
        await discorder.shutdown(tracker)
        await plane
    assert re.search(r"^TYPING_START \d+ 15$", capsys.readouterr().out, re.MULTILINE)


def test_the_readme_requests_the_contents_of_messages() -> None:
    """Its command line adds the one intent that the default lacks."""
    prompt, command, serve, option, setting = shlex.split(block(README, "intents"))
    assert (prompt, command, serve, option) == ("$", "discorder", "serve", "--set")
    assert not load_config(None).gateway.intents_value & MESSAGE_CONTENT
    assert (
        load_config(None, [setting]).gateway.intents_value == load_config(None).gateway.intents_value | MESSAGE_CONTENT
    )


async def test_the_commands_for_bot_developers_reach_the_gateway(default_port: int) -> None:
    code = block(BOT_DEVELOPERS, "commands").replace(":6000", f":{default_port}")
    names: dict[str, Any] = {"discorder": discorder}
    exec("async def run():\n" + "".join(f"    {line}\n" for line in code.splitlines()), names)  # noqa: S102  # the page's own code
    async with Simulator(guilds=1) as sim:
        ref = discorder.TrackerRef()
        load = lambda: load_config(None, settings(sim, f"tcp://127.0.0.1:{default_port}"))  # noqa: E731
        plane = asyncio.create_task(serve_config(load, client=BotClient(sim.token), tracker_ref=ref))
        tracker = await ref.ready(timeout=60)
        await names["run"]()
        await sim.wait_for(lambda: [frame for frame in sim.received if frame.op == 3])
        await discorder.shutdown(tracker)
        await plane


@pytest.mark.system
async def test_the_program_for_bot_developers_runs_both_in_one_process(tmp_path: Path, default_port: int) -> None:
    """The plane is configured by the sample that the page names. Only the port may differ, if the default is taken."""
    (tmp_path / "etc").mkdir()
    sample = sample_config("demo").replace(
        "[publishers.zmq]\n", f'[publishers.zmq]\nbind = "tcp://127.0.0.1:{default_port}"\n'
    )
    (tmp_path / "etc" / "demo.toml").write_text(sample, encoding="utf-8")
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", block(BOT_DEVELOPERS, "in-process")), stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    async with asyncio.timeout(60):
        out, _ = await program.communicate()
    assert program.returncode == 0
    assert out.decode().splitlines()[-1] == """TYPING_START b'{"user_id":"1"}'"""
