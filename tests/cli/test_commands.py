"""What each command does when all is well."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from discorder.cli.demo_bot import run_bot_demo
from discorder.simulator import Simulator

pytestmark = pytest.mark.system
SESSIONS = Path(__file__).resolve().parents[1] / "sessions"
FREE_PORT = "publishers.zmq.bind=tcp://127.0.0.1:0"
Command = Callable[..., Awaitable[Any]]


async def start(*arguments: str, env: dict[str, str], cwd: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "discorder", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=cwd,
    )


async def test_demo_tells_how_a_cut_connection_is_resumed(discorder: Command) -> None:
    """And counts what arrives. Short as it is, it goes on until the session is back; what it hides, it says."""
    outcome = await discorder("demo", "--seconds", "2", "--rate", "40", "--set", FREE_PORT)
    assert (outcome.code, outcome.err) == (0, "")
    told = " ".join(outcome.out.split())
    steps = ["Connecting → Identifying", "Identifying → Ready", "the connection is cut", "Ready → Unhealthy"]
    steps += ["Unhealthy → Restarting", "Restarting → Connecting", "Connecting → Resuming", "Resuming → Ready"]
    steps += ["by RESUME", "Enough seen", "Nothing was lost. IDENTIFYs spent: 1"]
    places = [told.index(step) for step in steps]
    assert places == sorted(places)
    assert re.search(r"… and \d+ more events that are counted, not shown", told)
    assert "Starting the control plane … " in told
    summary = re.fullmatch(r"published=(\d+) received=(\d+) lost=0", outcome.out.splitlines()[-1])
    assert summary is not None
    assert summary[1] == summary[2]
    assert int(summary[1]) > 10


@pytest.mark.heavy
async def test_demo_tells_how_a_bot_is_killed_and_misses_nothing(discorder: Command) -> None:
    outcome = await discorder("demo", "--bot", "--seconds", "1")
    assert (outcome.code, outcome.err) == (0, "")
    told = " ".join(outcome.out.split())
    steps = ["The bot is ready, with 3 guilds", "it is killed", "It is started again", "It has its guilds"]
    steps += ["the connection to Discord is cut", "by RESUME", "No message was lost. IDENTIFYs spent at Discord: 1"]
    places = [told.index(step) for step in steps]
    assert places == sorted(places)
    summary = re.fullmatch(r"published=(\d+) received=\1 lost=0", outcome.out.splitlines()[-1])
    assert summary is not None
    assert int(summary[1]) > 10


def test_demo_with_a_bot_needs_discordpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "discord", None)
    with pytest.raises(typer.BadParameter, match=r"pip install discord\.py"):
        run_bot_demo(1.0, 25.0, ())


@pytest.mark.heavy
async def test_demo_ends_with_3_if_an_event_does_not_arrive(discorder: Command) -> None:
    hidden = 'publishers.zmq.events={exclude=["GUILD_CREATE"]}'
    outcome = await discorder("demo", "--seconds", "1", "--set", FREE_PORT, "--set", hidden)
    assert outcome.code == 3
    assert outcome.out.splitlines()[-1].endswith(" lost=3")
    assert "Nothing was lost" not in outcome.out


async def test_demo_uses_port_6000(discorder: Command, default_port: int) -> None:
    """Where another program has it, the demo says so."""
    outcome = await discorder("demo", "--seconds", "1")
    if default_port == 6000:
        assert outcome.code == 0, outcome.err
        assert " lost=0" in outcome.out.splitlines()[-1]
    else:
        assert outcome.code == 73
        assert "tcp://127.0.0.1:6000" in outcome.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_stops_on_a_signal_and_keeps_the_session(
    sim: Simulator, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    env = environment | {"DISCORD_BOT_TOKEN": sim.token}
    process = await start("serve", "--set", f"gateway.api={sim.api_url}", "--set", FREE_PORT, env=env, cwd=tmp_path)
    await sim.wait_for(lambda: sim.sent, timeout=60)
    process.send_signal(number)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"Shut down completely" in err
    await sim.wait_for(lambda: sim.closes)
    assert [(close.code, close.by) for close in sim.closes] == [(4000, "client")]
    assert sim.sessions


@pytest.mark.heavy
async def test_many_shards_fit_into_a_process_whose_soft_limit_of_open_files_is_low(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A socket and a lock for each shard: `serve` owns its process, so it takes what the hard limit grants."""
    async with Simulator(guilds=64, shards=64, max_concurrency=64) as many:
        serving = ("-m", "discorder", "serve", "--set", f"gateway.api={many.api_url}", "--set", FREE_PORT)
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'ulimit -Sn 100; exec "$@"', "sh", sys.executable, *serving),
            *("--set", "gateway.shards=64", "--set", f"session.store={tmp_path / 'sessions.sqlite3'}"),
            stderr=asyncio.subprocess.PIPE,
            env=environment | {"DISCORD_BOT_TOKEN": many.token},
            cwd=tmp_path,
        )
        await many.wait_for(lambda: many.identifies == 64, timeout=60)
        process.terminate()
        async with asyncio.timeout(60):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert b"Too many open files" not in err


async def test_serve_records_and_replay_plays_it(
    discorder: Command, sim: Simulator, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "session.jsonl"
    env = environment | {"DISCORD_BOT_TOKEN": sim.token}
    arguments = ["--set", f"gateway.api={sim.api_url}", "--set", FREE_PORT, "--record", str(path)]
    process = await start("serve", *arguments, env=env, cwd=tmp_path)
    await sim.wait_for(lambda: len(sim.sent) > 10, timeout=60)
    process.terminate()
    await process.communicate()
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert sim.token not in text
    assert not any(session in text for session in sim.sessions)
    assert sim.resume_url not in text
    outcome = await discorder("replay", str(path), "--set", FREE_PORT, "--speed", "50")
    assert outcome.code == 0, outcome.err
    dispatches = text.count('\\"op\\":0,')
    assert f"published={dispatches} identifies=1 resumes=0 restarts=0" in outcome.out


@pytest.mark.heavy
async def test_a_session_with_commands_is_replayed(
    discorder: Command, sim: Simulator, environment: dict[str, str], tmp_path: Path
) -> None:
    """What a bot sent is sent again; a presence goes into the session that follows by itself."""
    path, endpoint = tmp_path / "session.jsonl", f"ipc://{tmp_path}/bus"
    env = environment | {"DISCORD_BOT_TOKEN": sim.token}
    arguments = [
        "--set",
        f"gateway.api={sim.api_url}",
        "--set",
        f"publishers.zmq.bind={endpoint}",
        "--record",
        str(path),
    ]
    process = await start("serve", *arguments, env=env, cwd=tmp_path)
    await sim.wait_for(lambda: len(sim.sent) > 3, timeout=60)
    for words in (("presence", "idle", "--text", "away"), ("members", str(sim.guild_ids[0]), "--limit", "5")):
        outcome = await discorder("send", "--address", endpoint, *words)
        assert outcome.code == 0, outcome.err
    await sim.invalidate(resumable=False)
    await sim.wait_for(lambda: [frame.op for frame in sim.received].count(3) == 2, timeout=60)
    process.terminate()
    await process.communicate()
    replayed = await discorder("replay", str(path), "--set", FREE_PORT)
    assert replayed.code == 0, replayed.err
    assert "identifies=2 resumes=0 restarts=1" in replayed.out


async def test_tail_prints_what_a_plane_publishes(sim: Simulator, environment: dict[str, str], tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/bus"
    env = environment | {"DISCORD_BOT_TOKEN": sim.token}
    tail = await start("tail", endpoint, "--json", "--type", "MESSAGE_CREATE", env=environment, cwd=tmp_path)
    plane = await start(
        *("serve", "--set", f"gateway.api={sim.api_url}", "--set", f"publishers.zmq.bind={endpoint}"),
        env=env,
        cwd=tmp_path,
    )
    try:
        assert tail.stdout is not None
        async with asyncio.timeout(60):
            event = json.loads(await tail.stdout.readline())
        assert event["type"] == "MESSAGE_CREATE"
        assert event["shard"] == [0, 1]
        assert event["data"]["id"]
        tail.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            _, err = await tail.communicate()
        assert tail.returncode == 0, err.decode()
    finally:
        plane.terminate()
        await plane.communicate()


async def test_simulate_says_where_it_is_and_stops_on_sigterm(environment: dict[str, str], tmp_path: Path) -> None:
    process = await start("simulate", "--guilds", "1", env=environment, cwd=tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        where = json.loads(await process.stdout.readline())
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/api/v10", where["api"])
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/?", where["gateway"])
    assert where["token"]
    process.terminate()
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def test_init_writes_a_file_that_check_config_accepts(discorder: Command, tmp_path: Path) -> None:
    for arguments, key in (((), "fail_on_error = false"), (("--dev", "dev.toml"), "dev.log")):
        name = arguments[-1] if arguments else "discorder.toml"
        assert (await discorder("init", *arguments)).code == 0
        assert key in (tmp_path / name).read_text()
        outcome = await discorder("check-config", name)
        assert outcome.code == 0, outcome.err
        assert "tcp://127.0.0.1:6000" in outcome.out
    again = await discorder("init")
    assert again.code == 78
    assert "discorder.toml exists" in again.err


@pytest.mark.parametrize(
    ("picture_format", "beginning"),
    [("svg", b"<svg"), ("png", b"\x89PNG"), ("mermaid", b""), ("dot", b"digraph"), ("markdown", b"#")],
)
async def test_diagram_draws_each_format(
    discorder: Command, tmp_path: Path, picture_format: str, beginning: bytes
) -> None:
    outcome = await discorder("diagram", "--format", picture_format, "-o", "picture")
    assert outcome.code == 0, outcome.err
    drawn = (tmp_path / "picture").read_bytes()
    assert beginning in drawn[:400]
    assert b"Unhealthy" in drawn or picture_format == "png"


@pytest.mark.heavy
async def test_diagram_checks_a_folder(discorder: Command, tmp_path: Path) -> None:
    (tmp_path / "diagrams").mkdir()
    assert (await discorder("diagram", "-o", "diagrams")).code == 0
    assert (await discorder("diagram", "--check")).code == 0
    (tmp_path / "diagrams" / "life-cycle.md").write_text("outdated")
    outcome = await discorder("diagram", "--check")
    assert outcome.code == 1
    assert "life-cycle.md" in outcome.err


async def test_diagram_draws_the_path_of_a_recorded_session(discorder: Command, tmp_path: Path) -> None:
    """Replayed through the control plane; nothing of the replay is printed."""
    recording = SESSIONS / "resume-host-refuses.jsonl"
    outcome = await discorder("diagram", "--trace", str(recording), "-o", "path.svg")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    drawn = (tmp_path / "path.svg").read_text()
    assert "the path of resume-host-refuses.jsonl: 14 steps" in drawn
    missing = await discorder("diagram", "--trace", str(recording), "--shard", "7")
    assert missing.code == 2
    assert "has no shard 7; there are: 0" in re.sub(r"[\s│]+", " ", missing.err)


async def test_diagram_draws_the_path_of_a_trace(discorder: Command, tmp_path: Path) -> None:
    """The same files as `discorder verify --trace`; of several runs the last one."""
    steps = [("Disconnected", "start", "Connecting"), ("Connecting", "hello", "Identifying")]
    lines = [
        {"message": "Transition", "source": source, "trigger": trigger, "target": target, "shard": 3, "generation": 1}
        for source, trigger, target in [steps[0], *steps]
    ]
    (tmp_path / "plane.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = await discorder("diagram", "--trace", "plane.log", "--shard", "3")
    assert outcome.code == 0, outcome.err
    assert "the path of plane.log: 2 steps" in outcome.out
    (tmp_path / "notes.txt").write_text("nothing of the kind\n")
    nothing = await discorder("diagram", "--trace", "notes.txt")
    assert nothing.code == 74
    assert "holds no transitions" in nothing.err
    assert (await discorder("diagram", "--trace", "missing.log")).code == 1


async def test_diagram_highlights_a_state_of_the_life_cycle_only(discorder: Command) -> None:
    drawn = await discorder("diagram", "--highlight", "Restarting")
    assert (drawn.code, drawn.out.count('state current"')) == (0, 1)
    assert (await discorder("diagram", "grid", "--highlight", "Ready")).code == 2
    assert (await discorder("diagram", "--highlight", "Asleep")).code == 2


async def test_help_names_every_command(discorder: Command) -> None:
    outcome = await discorder("--help")
    assert outcome.code == 0
    for name in ("serve", "budget", "demo", "simulate", "tail", "replay", "diagram", "init", "check-config"):
        assert name in outcome.out
