"""The commands of an operator beside a control plane: status, shutdown, healthcheck."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import socket
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from discorder.simulator import Simulator
from discorder.statemachine import State
from tests.commandline import Command
from tests.harness import Hanging
from tests.http.conftest import Serve, Served

ABSENT = 69
WELL = "Well: the shard serves"


def of(served: Served) -> list[str]:
    """The options that name the configuration of a plane."""
    bind = served.url.partition("://")[2]
    sets = (f"http.bind={bind}", f"http.operator_token_file={served.token_file}")
    return [word for one in sets for word in ("--set", one)]


async def test_the_status_has_the_words_of_the_document(discorder: Command, served: Served) -> None:
    text = await discorder("status", *of(served))
    document = await discorder("status", "--json", "--url", served.url)
    assert (text.code, document.code) == (0, 0), text.err + document.err
    verdict = json.loads(document.out)["verdict"]
    assert text.out.startswith(verdict["headline"])
    assert verdict["detail"] in text.out
    assert "IDENTIFYs: 999 of 1,000 left" in text.out
    assert "\x1b" not in text.out


async def test_a_shard_that_does_not_exist_is_named(discorder: Command, served: Served) -> None:
    for shard in ("1", "99999999"):
        outcome = await discorder("shards", "restart", shard, *of(served))
        assert outcome.code != 0
        assert f"there is no shard {shard} here" in outcome.err
    answer = await served.ask("/shards/\N{ARABIC-INDIC DIGIT ZERO}/restart", "POST", headers=served.bearer)
    assert answer.status == 404
    assert not answer.error.startswith("there is no shard")


async def test_a_publisher_that_is_installed_elsewhere_is_no_obstacle(discorder: Command, served: Served) -> None:
    outcome = await discorder("status", *of(served), "--set", "publishers.sink.kind=carrier_pigeon")
    assert outcome.code == 0, outcome.err


async def test_a_shard_that_does_not_serve_is_shown_with_why_and_what_is_next(
    discorder: Command, served: Served, sim: Simulator
) -> None:
    await sim.refuse_upgrades(retry_after=60)
    await sim.drop()
    tracker = served.stage.tracker
    await served.stage.until(lambda: tracker.state == "Restarting" and tracker.shards[0].attempts == 2)  # of both hosts

    async def during_one_headline(*command: str) -> tuple[Any, str]:
        """Run the command between two changes of the state; return its outcome and the headline."""
        while True:
            before = (await served.ask("/status.json")).document["verdict"]["headline"]
            outcome = await discorder(*command, *of(served))
            if (await served.ask("/status.json")).document["verdict"]["headline"] == before:
                return outcome, before

    shown, headline = await during_one_headline("status")
    assert shown.out.startswith(headline)
    for title in ("shard", "state", "for", "why", "next"):
        assert title in shown.out
    unready, headline = await during_one_headline("healthcheck", "--ready")
    assert (unready.code, unready.out) == (1, f"not ready: {headline}\n")
    alive = await discorder("healthcheck", *of(served))
    assert (alive.code, alive.out) == (0, "live: the control plane answers\n")


async def test_a_plane_that_serves_is_healthy_and_can_be_stopped(
    discorder: Command, served: Served, sim: Simulator
) -> None:
    ready = await discorder("healthcheck", "--ready", *of(served))
    assert (ready.code, ready.out) == (0, f"ready: {WELL}\n")
    stopped = await discorder("shutdown", *of(served))
    assert (stopped.code, stopped.out) == (0, "the control plane shuts down; the next start resumes its sessions\n")
    assert await served.stage.end() is None
    assert sim.sessions


async def test_a_shard_is_restarted_paused_and_unpaused(
    discorder: Command, serve: Serve, sim: Simulator, tmp_path: Path
) -> None:
    """Each command says what it did; a pause outlives the process, and is a line in the log."""
    settings = (f"session.store={tmp_path / 'sessions.sqlite3'}", f"log.file={tmp_path / 'log'}")
    served = await serve(*settings)
    restarted = await discorder("shards", "restart", "0", *of(served))
    assert (restarted.code, restarted.out) == (0, "shard 0 connects again, and resumes its session if it has one\n")
    await served.stage.ready(generation=2)
    assert sim.identifies == 1
    paused = await discorder("shards", "pause", "0", *of(served))
    assert (paused.code, "also after a restart" in paused.out) == (0, True), paused
    again = await discorder("shards", "pause", "0", *of(served))
    assert (again.code, again.out) == (1, "")
    assert "paused" in again.err
    shown = await discorder("status", *of(served))
    assert "paused" in shown.out
    assert "nothing by itself" not in shown.out
    assert shown.out.count("unpause") == 2, "why, and next"
    await served.stage.stop()
    assert "Operator command verb=pause shard=0 peer=127.0.0.1" in (tmp_path / "log").read_text()

    served = await serve(*settings, is_ready=False)
    await served.stage.in_state(State.RESTARTING)
    unready = await discorder("healthcheck", "--ready", *of(served))
    assert unready.code == 1
    unpaused = await discorder("shards", "unpause", "0", *of(served))
    assert (unpaused.code, unpaused.out) == (0, "shard 0 is unpaused, and connects\n")
    await served.stage.ready()
    assert sim.identifies == 1


async def test_a_pause_that_is_in_memory_only_says_so(discorder: Command, served: Served) -> None:
    paused = await discorder("shards", "pause", "0", *of(served))
    assert (paused.code, "a restart of the process unpauses it" in paused.out) == (0, True), paused


async def test_a_shard_that_is_not_there_is_refused_with_those_that_are(discorder: Command, served: Served) -> None:
    outcome = await discorder("shards", "restart", "7", *of(served))
    assert (outcome.code, "there are: 0" in outcome.err) == (1, True), outcome
    for path in ("/shards/0/explode", "/shards/x/restart", "/shards/-1/restart"):
        assert (await served.ask(path, "POST", headers=served.bearer)).status == 404
    assert (await served.ask("/shards/0/restart", "POST")).status == 401
    assert (await served.ask("/shards/0/restart", headers=served.bearer)).status == 405


@pytest.mark.heavy
async def test_a_program_that_is_silent_is_given_two_seconds(discorder: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with asyncio.timeout(60):  # without a limit of its own it would wait for ever
            outcome = await discorder("status", "--url", url)
    assert outcome.code == ABSENT
    assert f"no control plane answers at {url} within 2 s" in outcome.err


async def test_what_is_not_a_control_plane_is_said(discorder: Command, stranger: Any) -> None:
    """Nobody, and other programs: each with the address and what to check."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<html>hello")

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=401, text="who are you?")

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        urls = [f"http://127.0.0.1:{nobody.getsockname()[1]}", await stranger(page), await stranger(refuse)]
        outcomes = [await discorder("status", "--url", url) for url in urls]
        checks = [await discorder("healthcheck", "--url", url) for url in urls]
        command = await discorder("shutdown", "--url", urls[0])
    for outcome, check, url, says in zip(
        outcomes,
        checks,
        urls,
        ("Connection refused", "(HTTP status 200)", "(HTTP status 401)"),
        strict=True,
    ):
        assert outcome.code == ABSENT
        assert says in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert check.code == 1
        assert url in outcome.err
        assert "discorder serve" in outcome.err
        assert outcome.err == f"discorder: {check.out}"
    assert command.code == ABSENT


async def test_a_wrong_or_missing_token_is_said(discorder: Command, served: Served, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-token-of-this-plane\n")
    wrong.chmod(0o600)
    outcomes = [
        await discorder("shutdown", "--url", served.url, "--set", f"http.operator_token_file={file}")
        for file in (wrong, tmp_path / "missing", "")
    ]
    assert [outcome.code for outcome in outcomes] == [77, 77, 78]
    assert "the operator token is wrong" in outcomes[0].err
    assert str(wrong) in outcomes[0].err
    assert "--config" in outcomes[0].err
    assert f"there is no operator token at {tmp_path / 'missing'}" in outcomes[1].err
    assert "this configuration switches operator commands off" in outcomes[2].err
    assert not served.stage.task.done()


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:6080", "ftp://x", "ftp://x:1", "http://", "http://x:99999", "http://x/status.json", "http://a@x"),
        *(
            "http://127.0.0.1:0",
            "http://a b:1",
            "http://x/#a",
            f"http://{'a' * 300}:1",
            "http://ü..x:1",
            "http://a\x1b:1",
        ),
    ],
)
async def test_an_address_that_is_none_is_refused(discorder: Command, url: str) -> None:
    outcome = await discorder("status", "--url", url)
    assert outcome.code == 78
    assert "--url" in outcome.err
    assert "such as http://127.0.0.1:6080" in outcome.err
    assert "\x1b" not in outcome.err


async def test_a_configuration_without_an_address_is_refused(discorder: Command) -> None:
    for bind in ("", "127.0.0.1:0"):
        outcome = await discorder("status", "--set", f"http.bind={bind}")
        assert outcome.code == 78
        assert "--url" in outcome.err


async def test_a_name_that_is_not_known_is_said(discorder: Command, served: Served) -> None:
    url = f"http://discorder.invalid:{served.port}"
    outcome = await discorder("shutdown", "--url", url, *of(served)[2:])
    assert outcome.code == ABSENT
    assert url in outcome.err


async def test_over_tls_the_configured_certificate_is_the_one_that_is_trusted(
    discorder: Command, serve: Serve, tmp_path: Path
) -> None:
    certificate, other = trustme.CA().issue_cert("bot.example.org"), trustme.CA().issue_cert("bot.example.org")
    files = []
    for name, one in (("own", certificate), ("other", other)):
        (tmp_path / f"{name}.pem").write_bytes(one.cert_chain_pems[0].bytes())
        (tmp_path / f"{name}.key").write_bytes(one.private_key_pem.bytes())
        files.append((f"http.tls_cert_file={tmp_path / name}.pem", f"http.tls_key_file={tmp_path / name}.key"))
    served = await serve(*files[0])
    own = await discorder("status", *of(served), *sets(*files[0]))
    foreign = await discorder("status", *of(served), *sets(*files[1]))
    unknown = await discorder("status", "--url", served.url)
    plain = await discorder("status", "--url", served.url.replace("https", "http"))
    assert own.code == 0, own.err
    assert WELL in own.out
    for refused in (foreign, unknown):
        assert refused.code == ABSENT
        assert "TLS" in refused.err
        assert "http.tls_cert_file" in refused.err
    assert plain.code == ABSENT
    assert (await discorder("shutdown", *of(served), *sets(*files[0]))).code == 0


def sets(*settings: str) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


# ---------------------------------------------------------------- following


@contextlib.asynccontextmanager
async def watching(
    environment: dict[str, str], *arguments: str, stdout: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "discorder", "status", "--watch", *arguments),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def drawing(environment: dict[str, str], url: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, bytearray]]:
    """Follow the status in a terminal; what is written to it is collected."""
    ours, theirs = pty.openpty()
    screen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):
            screen.extend(os.read(ours, 65_536))

    loop = asyncio.get_running_loop()
    loop.add_reader(ours, read)
    try:
        async with watching(environment | {"TERM": "xterm", "LINES": "40"}, "--url", url, stdout=theirs) as process:
            yield process, screen
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)


async def appears(screen: bytearray, text: str) -> None:
    """Wait until a text was written."""
    async with asyncio.timeout(60):
        while text.encode() not in screen:  # noqa: ASYNC110  # a terminal gives no sign of it
            await asyncio.sleep(0.02)


async def lines_until(stream: asyncio.StreamReader | None, wanted: str) -> str:
    assert stream is not None
    read = ""
    async with asyncio.timeout(60):
        while wanted not in read:
            line = await stream.readline()
            assert line, read
            read += line.decode()
    return read


@pytest.mark.system
async def test_elsewhere_than_in_a_terminal_each_change_is_a_line(
    environment: dict[str, str], served: Served, sim: Simulator
) -> None:
    async with watching(environment, "--url", served.url) as process:
        begin = await lines_until(process.stdout, "discorder 0.")
        assert begin.startswith(f"{WELL}\n")
        await sim.drop()
        changes = await lines_until(process.stdout, "(resumed)")
        assert "shard 0 Ready → Unhealthy (closed): closed" in changes
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        assert process.stderr is not None
        assert await process.stderr.read() == b""


@pytest.mark.system
async def test_as_json_each_event_is_a_line(environment: dict[str, str], served: Served) -> None:
    async with watching(environment, "--json", "--url", served.url) as process:
        assert process.stdout is not None
        events = [json.loads(await process.stdout.readline()) for _ in range(2)]
        assert events[0]["event"] == "status"
        assert events[0]["data"]["schema"] == "discorder.status/1"
        process.terminate()
        async with asyncio.timeout(60):
            await process.communicate()
        assert process.returncode == 0


@pytest.mark.system
async def test_a_closed_pipe_ends_it_quietly(environment: dict[str, str], served: Served) -> None:
    """Although nothing changes that it could fail to write."""
    reading, writing = os.pipe()
    async with watching(environment, "--url", served.url, stdout=writing) as process:
        os.close(writing)
        assert (await asyncio.to_thread(os.read, reading, 10)).startswith(b"Well")
        os.close(reading)
        async with asyncio.timeout(60):
            assert process.stderr is not None
            assert await process.stderr.read() == b""
        assert await process.wait() == 0


@pytest.mark.system
async def test_a_plane_that_goes_away_is_said_and_looked_for(environment: dict[str, str], served: Served) -> None:
    async with watching(environment, "--url", served.url) as process:
        await lines_until(process.stdout, "discorder 0.")
        await served.stage.stop()
        await lines_until(process.stdout, "Not known: no news from the control plane")
        assert process.returncode is None


@pytest.mark.system
async def test_in_a_terminal_the_view_is_drawn_anew(
    environment: dict[str, str], served: Served, sim: Simulator
) -> None:
    async with drawing(environment, served.url) as (process, screen):
        await appears(screen, WELL)
        await sim.refuse_upgrades()
        await sim.drop()
        await appears(screen, "Restarting")
        process.terminate()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
        await asyncio.sleep(0.05)
    assert screen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor, and the screen from before


async def test_the_version_is_shown(discorder: Command) -> None:
    outcome = await discorder("--version")
    assert (outcome.code, outcome.out) == (0, f"discorder {version('discorder')}\n")


async def test_a_shard_is_released_and_started_by_command(discorder: Command, serve: Serve, sim: Simulator) -> None:
    """Page, document, health and metrics are whole while no shard is here."""
    served = await serve("gateway.shards=1")
    released = await discorder("shards", "release", "0", *of(served))
    assert (released.code, released.out.strip()) == (
        0,
        "shard 0 is released: another process with this session store may start it",
    )
    again = await discorder("shards", "release", "0", *of(served))
    assert (again.code, "there is no shard 0 here; there are: none" in again.err) == (1, True), again.err
    status = await discorder("status", *of(served))
    assert status.out.startswith("Well: no shard is here"), status.out + status.err
    page = (await served.ask("/")).body.decode()
    assert "Well: no shard is here" in page
    assert ((await served.ask("/readyz")).status, (await served.ask("/livez")).status) == (200, 200)
    assert "discorder_ready 1.0" in (await served.ask("/metrics")).body.decode()
    started = await discorder("shards", "start", "0", *of(served))
    assert (started.code, started.out.strip()) == (0, "shard 0 runs here: it resumes its session if it has one")
    await served.stage.ready()
    twice = await discorder("shards", "start", "0", *of(served))
    assert "it is here already" in twice.err
    other = await discorder("shards", "start", "1", *of(served))
    assert "there is no shard 1 of 1; they are 0 to 0" in other.err
    assert (sim.identifies, sim.resumed) == (1, 1)


async def test_a_release_that_takes_long_goes_on_after_the_answer(discorder: Command, serve: Serve) -> None:
    """The command waits for two seconds only; the log says when it is over."""
    hanging = Hanging()
    served = await serve("gateway.shards=1", "session.drain_timeout=3", publishers=[hanging])
    tracker = served.stage.tracker
    await served.stage.until(lambda: tracker.publisher_health[-1].in_flight)
    answer = await discorder("shards", "release", "0", *of(served))
    assert answer.out.strip() == "shard 0 is being released; the log says when another process may start it"
    refused = await discorder("shards", "start", "0", *of(served))
    assert "it is being started or released" in refused.err
    async with asyncio.timeout(60):
        while (await served.ask("/shards/0/start", "POST", headers=served.bearer)).status != 200:  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0.1)
    await served.stage.ready()
