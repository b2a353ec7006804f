"""Bad input of every kind: one clear error without a traceback, its exit code, nothing left running."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from discorder.simulator import Simulator

pytestmark = pytest.mark.system
FREE_PORT = "publishers.zmq.bind=tcp://127.0.0.1:0"


def check(outcome: Any, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


async def test_a_wrong_token(discorder: Callable[..., Awaitable[Any]], sim: Simulator) -> None:
    outcome = await discorder(
        "serve", "--set", f"gateway.api={sim.api_url}", "--set", FREE_PORT, token="MTIz.wrong.token"
    )
    check(outcome, 77, "401", "token")
    assert "MTIz.wrong.token" not in outcome.err
    assert sim.connects == 0


async def test_refused_intents(discorder: Callable[..., Awaitable[Any]]) -> None:
    async with Simulator(guilds=1, approved_intents=0) as sim:
        settings = [f"gateway.api={sim.api_url}", 'gateway.intents=["guilds", "guild_members"]', FREE_PORT]
        arguments = [word for setting in settings for word in ("--set", setting)]
        check(await discorder("serve", *arguments, token=sim.token), 77, "4014", "gateway.intents")
        assert sim.identifies == 1


async def test_a_missing_configuration(discorder: Callable[..., Awaitable[Any]]) -> None:
    check(await discorder("serve", "--config", "nowhere.toml", token="MTIz.some.token"), 78, "nowhere.toml")


async def test_a_bad_override(discorder: Callable[..., Awaitable[Any]]) -> None:
    check(await discorder("serve", "--set", "gateway.shards=0", token="MTIz.some.token"), 78, "gateway.shards", "--set")


@pytest.mark.heavy
async def test_an_unreachable_api_under_fail_on_error(discorder: Callable[..., Awaitable[Any]]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        api = f"http://127.0.0.1:{closed.getsockname()[1]}/api/v10"
    settings = [f"gateway.api={api}", "gateway.fail_on_error=true", FREE_PORT]
    arguments = [word for setting in settings for word in ("--set", setting)]
    check(await discorder("serve", *arguments, token="MTIz.some.token"), 69, api)


def sets(*settings: str) -> list[str]:
    return [word for setting in (*settings, FREE_PORT) for word in ("--set", setting)]


async def test_attempts_that_are_used_up(discorder: Callable[..., Awaitable[Any]], sim: Simulator) -> None:
    """The API answers, the gateway does not: after the second failure in a row."""
    await sim.refuse_upgrades(503)
    settings = sets(f"gateway.api={sim.api_url}", "gateway.max_attempts=2")
    check(await discorder("serve", *settings, token=sim.token), 69, "gave up after 2", "503")
    assert sim.refused_upgrades == 2


async def test_a_budget_that_is_spent_under_fail_on_error(discorder: Callable[..., Awaitable[Any]]) -> None:
    """It says until when, and no IDENTIFY was sent."""
    async with Simulator(guilds=1, session_start_remaining=50) as sim:
        settings = sets(f"gateway.api={sim.api_url}", "gateway.fail_on_error=true")
        check(await discorder("serve", *settings, token=sim.token), 75, "identify budget is spent", "is allowed at")
        assert sim.identifies == 0


async def test_a_failure_under_fail_on_error(discorder: Callable[..., Awaitable[Any]], sim: Simulator) -> None:
    """The failure itself, in one line."""
    await sim.refuse_upgrades(503)
    settings = sets(f"gateway.api={sim.api_url}", "gateway.fail_on_error=true")
    check(await discorder("serve", *settings, token=sim.token), 76, "503")
    assert sim.refused_upgrades == 1


async def test_a_store_that_cannot_be_made(discorder: Callable[..., Awaitable[Any]], sim: Simulator) -> None:
    settings = sets(f"gateway.api={sim.api_url}", "session.store=/proc/nowhere/sessions.sqlite3")
    check(await discorder("serve", *settings, token=sim.token), 74, "/proc/nowhere", "[session] store")
    assert sim.connects == 0


@pytest.mark.parametrize("claim", [["--take-over"], ["--wait", "5"]], ids=["take over", "wait"])
async def test_a_claim_without_a_store_to_share(
    discorder: Callable[..., Awaitable[Any]], sim: Simulator, claim: list[str]
) -> None:
    """Without a store no process knows of another: better told than done in silence."""
    settings = sets(f"gateway.api={sim.api_url}", "session.store=")
    check(await discorder("serve", *claim, *settings, token=sim.token), 78, "[session] store", "--take-over")
    assert sim.connects == 0


async def test_wrong_usage(discorder: Callable[..., Awaitable[Any]]) -> None:
    check(await discorder("serve", "--record-raw"), 2, "--record")
    check(await discorder("no-such-command"), 2)
    check(await discorder("tail", "nonsense"), 2, "nonsense")


async def test_a_recording_that_exists_is_not_overwritten(
    discorder: Callable[..., Awaitable[Any]], sim: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text("kept")
    arguments = ["--set", f"gateway.api={sim.api_url}", "--set", FREE_PORT, "--record", str(path)]
    check(await discorder("serve", *arguments, token=sim.token), 74, "kept.jsonl")
    assert path.read_text() == "kept"


@pytest.mark.parametrize("key", ["log.file", "session.store"])
async def test_a_recording_shares_no_file_with_the_configuration(
    discorder: Callable[..., Awaitable[Any]], sim: Simulator, tmp_path: Path, key: str
) -> None:
    path = tmp_path / "one"
    settings = ["--set", f"gateway.api={sim.api_url}", "--set", f"{key}={path}", "--record", str(path)]
    check(await discorder("serve", *settings, token=sim.token), 78, "--record", key)
    assert not path.exists()


@pytest.mark.parametrize(
    "content", [None, b"\x00\xff", b'{"format":"something else"}\n'], ids=["missing", "binary", "other"]
)
async def test_a_recording_that_cannot_be_read(
    discorder: Callable[..., Awaitable[Any]], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "recording.jsonl"
    if content is not None:
        path.write_bytes(content)
    check(await discorder("replay", str(path)), 1, "recording.jsonl")


async def test_nothing_is_left_running(discorder: Callable[..., Awaitable[Any]], sim: Simulator) -> None:
    """After an error the endpoint is free again at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bind = f"publishers.zmq.bind=tcp://127.0.0.1:{port}"
    await discorder("serve", "--set", f"gateway.api={sim.api_url}", "--set", bind, token="MTIz.wrong.token")
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
    await asyncio.sleep(0)


async def test_a_token_that_was_pasted_is_not_repeated(discorder: Callable[..., Awaitable[Any]]) -> None:
    token = Simulator().token
    for arguments in (("replay", token), (token,), ("replay", "a", token), ("serve", "--config", token)):
        outcome = await discorder(*arguments)
        assert outcome.code != 0
        assert "<token>" in outcome.err
        assert token not in outcome.err + outcome.out
    other = "an-odd.but.real-token"
    assert other not in (await discorder("replay", other, token=other)).err


async def test_an_argument_of_a_hundred_thousand_letters_is_refused_at_once(
    discorder: Callable[..., Awaitable[Any]],
) -> None:
    """It is searched for tokens, in one pass."""
    began = time.monotonic()
    check(await discorder("serve", "--set", "a" * 100_000), 78, "KEY=VALUE")
    assert time.monotonic() - began < 10.0


async def test_a_port_that_is_taken_is_named(discorder: Callable[..., Awaitable[Any]], sim: Simulator) -> None:
    port = sim.api_url.split(":")[2].split("/")[0]
    check(await discorder("simulate", "--port", port), 73, f"--port {port}", "in use", "another port")


@pytest.mark.heavy
@pytest.mark.parametrize("zone", ["<+25>-25", "XXX-99:99:99", "../../etc/passwd", ":nonsense", ""])
async def test_an_odd_time_zone_costs_nothing_but_the_zone(
    environment: dict[str, str], tmp_path: Path, zone: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "discorder", "serve"),
        stderr=asyncio.subprocess.PIPE,
        env=environment | {"TZ": zone},
        cwd=tmp_path,
    )
    _, err = await process.communicate()
    assert process.returncode == 78
    assert b"Traceback" not in err
    assert b"no bot token" in err


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_an_output_that_cannot_be_written(environment: dict[str, str], tmp_path: Path, unbuffered: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" > /dev/full', "sh", sys.executable, "-m", "discorder", "init", "x.toml"),
        stderr=asyncio.subprocess.PIPE,
        env=environment | {"PYTHONUNBUFFERED": unbuffered},
        cwd=tmp_path,
    )
    _, err = await process.communicate()
    assert process.returncode == 74
    assert err.decode().splitlines() == ["discorder: No space left on device"]


# The interpreter's own start shows a traceback of an interrupt: signals are sent once it is over.
STARTED = (
    "import sys; sys.excepthook = lambda *_: None; from discorder.cli import main; print('started', flush=True); main()"
)


@pytest.mark.parametrize("command", [("simulate",), ("tail", "tcp://127.0.0.1:5999"), ("serve", "--set", FREE_PORT)])
async def test_many_interrupts_end_a_command_without_a_traceback(
    environment: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STARTED, *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment | {"DISCORD_BOT_TOKEN": "MTIz.some.token"},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    reading = asyncio.create_task(process.communicate())
    async with asyncio.timeout(60):
        while not reading.done():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.002)
    _, err = await reading
    assert b"Traceback" not in err
    assert b"ignored" not in err
