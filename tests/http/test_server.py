"""What the HTTP server answers: health, the status document, events; and how it starts and ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
from pathlib import Path

import aiohttp
import pytest

from discorder.clock import SystemClock
from discorder.errors import AddressInUse, ConfigError, UnusableFile
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.tracking.shard_tracker import Backoff
from tests.harness import StartStage
from tests.http.conftest import FOREIGN, Serve, Served
from tests.stopwatch import Stopwatch


async def test_a_plane_that_serves_is_live_and_ready(served: Served) -> None:
    live, ready = await served.ask("/livez"), await served.ask("/readyz")
    assert (live.status, live.document) == (200, {"live": True})
    assert (ready.status, ready.document["ready"], ready.document["shards"]) == (200, True, [])


async def test_a_shard_without_a_session_makes_it_unready_with_the_words_of_the_status(
    served: Served, sim: Simulator
) -> None:
    await sim.refuse_upgrades()
    await sim.drop()
    await served.stage.in_state(State.RESTARTING)
    live, ready, status = [await served.ask(path) for path in ("/livez", "/readyz", "/status.json")]
    assert live.status == 200
    assert ready.status == 503
    verdict = status.document["verdict"]
    assert {key: ready.document[key] for key in ("level", "headline", "detail")} == {
        key: verdict[key] for key in ("level", "headline", "detail")
    }
    (shard,) = ready.document["shards"]
    assert shard["id"] == 0
    assert shard["reasons"]


async def test_the_status_document_comes_whole_or_compressed(served: Served) -> None:
    plain = await served.ask("/status.json", headers={"Accept-Encoding": "identity"})
    assert plain.document["schema"] == "discorder.status/1"
    assert plain.headers["Content-Type"] == "application/json"
    assert "Content-Encoding" not in plain.headers
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for accepted, is_packed in (("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("gzipped", False)):
            headers = {"Accept-Encoding": accepted}
            async with session.get(f"{served.url}/status.json", headers=headers) as response:
                body = await response.read()
            assert ("Content-Encoding" in response.headers) is is_packed, accepted
            assert response.headers["Vary"] == "Accept-Encoding"
            async with session.get(f"{served.url}/metrics", headers=headers) as response:
                assert ("Content-Encoding" in response.headers) is is_packed, accepted
            assert json.loads(gzip.decompress(body) if is_packed else body)["schema"] == "discorder.status/1"


async def test_metrics_are_served_in_the_text_format(served: Served) -> None:
    answer = await served.ask("/metrics", headers={"Accept-Encoding": "identity"})
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"# TYPE discorder_" in answer.body


async def test_a_shard_that_is_stuck_is_not_alive(serve: Serve) -> None:
    """A state that outlives its deadline, as for systemd's watchdog; only readers of the status get the reason."""
    served = await serve()
    (shard,) = served.stage.tracker.shards
    shard.backoff = Backoff(1.0, SystemClock().monotonic() - 60.0)
    for headers, known in (({}, True), (FOREIGN, False)):
        live = await served.ask("/livez", headers=headers)
        assert (live.status, live.document["live"], "reasons" in live.document) == (503, False, known)
    assert "should have ended 60 s ago" in (await served.ask("/livez")).document["reasons"][0]
    shard.backoff = None
    assert (await served.ask("/livez")).document == {"live": True}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status.json", "/events", "/metrics"])
async def test_a_head_request_gets_the_headers_alone(served: Served, path: str) -> None:
    answer = await served.ask(path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")


async def test_every_response_has_the_headers_that_bind_a_browser(served: Served) -> None:
    for path in ("/livez", "/status.json", "/nothing", "/login"):
        headers = (await served.ask(path)).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "discorder"
        assert "Access-Control-Allow-Origin" not in headers


async def test_what_is_not_there_is_said_in_json(served: Served) -> None:
    nothing, options, put = (
        await served.ask("/nothing"),
        await served.ask("/status.json", "OPTIONS"),
        await served.ask("/livez", "PUT"),
    )
    assert (nothing.status, "/nothing" in nothing.error) == (404, True)
    assert (options.status, put.status) == (405, 405)
    assert options.headers["Allow"] == "GET,HEAD"
    assert "does not take PUT" in put.error


# ---------------------------------------------------------------- events


async def events(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, dict[str, object]]]:
    """Read ``count`` events."""
    found: list[tuple[str, dict[str, object]]] = []
    name = ""
    while len(found) < count:
        line = (await response.content.readline()).decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


async def test_the_stream_begins_with_the_whole_and_goes_on_with_what_changes(served: Served, sim: Simulator) -> None:
    async with served.session.get(f"{served.url}/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        ((name, document),) = await events(response, 1)
        assert (name, document["schema"]) == ("status", "discorder.status/1")
        await sim.drop()
        names = [name for name, _ in await events(response, 3)]
        assert "transition" in names
        assert "status" not in names


async def test_twenty_streams_and_no_more(served: Served) -> None:
    """The 21st is refused with a sentence, and gets in when another one has ended."""
    streams = [await served.session.get(f"{served.url}/events") for _ in range(20)]
    refused = await served.ask("/events")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert "20 event streams" in refused.error
    assert (await served.ask("/status.json")).status == 200
    streams.pop().close()
    async with asyncio.timeout(60):
        while (again := await served.session.get(f"{served.url}/events")).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    again.close()
    for stream in streams:
        stream.close()


async def test_a_stop_does_not_wait_for_readers(served: Served) -> None:
    """With streams open, a connection at rest and a request that never ends, it takes less than half a second."""
    streams = [await served.session.get(f"{served.url}/events") for _ in range(20)]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nX-Half: ")
    await writer.drain()
    port, watch = served.port, Stopwatch()
    await served.stage.stop()
    assert watch.seconds < 0.5
    for stream in streams:
        assert await stream.content.read() is not None  # it has ended
        stream.close()
    await reader.read()
    writer.close()
    with socket.create_server(("127.0.0.1", port)):  # the port is free
        pass
    assert served.stage.tracker.status_url is None


async def test_a_failure_of_the_server_is_answered_and_stays_there(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "of the server's own"
        raise RuntimeError(msg)

    monkeypatch.setattr("discorder.metrics.Exposition.page", fail)
    served = await serve(f"log.file={tmp_path / 'log'}")
    answer = await served.ask("/metrics")
    assert (answer.status, answer.document) == (500, {"error": "internal error; the log has the details"})
    assert "of the server's own" in (tmp_path / "log").read_text()
    assert (await served.ask("/readyz")).status == 200


async def test_no_answer_holds_a_secret(served: Served, sim: Simulator) -> None:
    """Neither the bot's token, nor the operator's, nor a session id, in any document or stream."""
    await sim.drop()
    await served.stage.ready(generation=2)
    async with served.session.get(f"{served.url}/events") as response:
        shown = json.dumps(await events(response, 4)).encode()
    for path in ("/status.json", "/readyz", "/metrics", "/login", "/livez"):
        shown += (await served.ask(path)).body
    for secret in (sim.token, served.token, *sim.sessions):
        assert secret.encode() not in shown


# ---------------------------------------------------------------- start


async def test_a_taken_port_is_an_error_if_the_configuration_names_it(sim: Simulator, start_stage: StartStage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = await start_stage(sim, f"http.bind=127.0.0.1:{port}", clock=SystemClock()).end()
    assert isinstance(error, AddressInUse)
    assert f"http.bind: 127.0.0.1:{port} is in use" in str(error)
    assert sim.identifies == 0


async def test_a_taken_port_of_the_default_is_a_warning(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        stage = start_stage(
            sim, f"http.bind?={bind}", f"log.file={log}", "http.operator_token_file=", clock=SystemClock()
        )
        tracker = await stage.ready()
        assert tracker.status_url is None
    assert "Running without the status page" in log.read_text()
    assert bind in log.read_text()


async def test_the_chosen_port_is_in_the_log_and_at_the_tracker(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "log"
    served = await serve(f"log.file={log}")
    assert f"Status page url={served.url}/" in log.read_text()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("http.bind=192.0.2.1:6080", "cannot listen on 192.0.2.1:6080"),
        ("http.bind=no-such-host.invalid:6080", "is not known here"),
    ],
)
async def test_an_address_of_another_machine_is_refused(
    sim: Simulator, start_stage: StartStage, setting: str, says: str
) -> None:
    error = await start_stage(sim, setting, "http.insecure=true", clock=SystemClock()).end()
    assert isinstance(error, ConfigError)
    assert says in str(error)


async def test_every_loopback_address_of_a_name_is_served(serve: Serve) -> None:
    served = await serve("http.bind=localhost:0")
    assert (await served.ask("/livez")).status == 200


# ---------------------------------------------------------------- the operator token


async def test_the_token_is_made_once_for_its_owner_only(serve: Serve, tmp_path: Path) -> None:
    first = await serve()
    token = first.token
    assert len(token) >= 43
    assert first.token_file.stat().st_mode & 0o777 == 0o600
    await first.stage.stop()
    assert (await serve()).token == token
    assert os.listdir(tmp_path) == ["operator-token"]  # noqa: PTH208


async def test_auto_is_a_file_beside_the_store(serve: Serve, tmp_path: Path) -> None:
    await serve("http.operator_token_file=auto", f"session.store={tmp_path / 'sessions.sqlite3'}")
    assert (tmp_path / "sessions.sqlite3.operator-token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["short\n", "two words of a token file\n", "x" * 600, "ünicode-is-no-token-at-all"])
async def test_a_token_file_with_something_else_in_it_is_refused(
    sim: Simulator, start_stage: StartStage, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content, encoding="utf-8")
    setting = f"http.operator_token_file={file}"
    error = await start_stage(sim, "http.bind=127.0.0.1:0", setting, clock=SystemClock()).end()
    assert isinstance(error, UnusableFile)
    assert str(file) in str(error)
    assert content.strip() not in str(error)


async def test_without_a_usable_file_auto_means_no_commands(serve: Serve, tmp_path: Path) -> None:
    """A file that others could have written is not trusted; the plane runs, and says why there are no commands."""
    store = tmp_path / "sessions.sqlite3"
    file = tmp_path / "sessions.sqlite3.operator-token"
    file.write_text("a-token-that-somebody-else-may-know\n")
    file.chmod(0o644)
    served = await serve("http.operator_token_file=auto", f"session.store={store}")
    answer = await served.ask(
        "/shutdown", "POST", headers={"Authorization": "Bearer a-token-that-somebody-else-may-know"}
    )
    assert answer.status == 403
    assert "mode 0644" in answer.error
    assert (await served.ask("/status.json")).status == 200


@pytest.mark.parametrize("planted", ["fifo", "link", "folder", "socket"])
async def test_only_a_regular_file_is_the_token_file_of_auto(serve: Serve, tmp_path: Path, planted: str) -> None:
    """Otherwise another user of a shared directory could choose the token."""
    token = "a-token-that-somebody-else-has-chosen"
    file, elsewhere = tmp_path / "sessions.sqlite3.operator-token", tmp_path / "elsewhere"
    writer = None
    if planted == "fifo":
        os.mkfifo(file, 0o600)
        writer = os.open(file, os.O_RDWR)
        os.write(writer, f"{token}\n".encode())
    elif planted == "link":
        elsewhere.write_text(f"{token}\n")
        elsewhere.chmod(0o600)
        file.symlink_to(elsewhere)
    elif planted == "folder":
        file.mkdir(mode=0o700)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(file))
    served = await serve("http.operator_token_file=auto", f"session.store={tmp_path / 'sessions.sqlite3'}")
    answer = await served.ask("/shutdown", "POST", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status, "regular file" in answer.error) == (403, True)
    if writer is not None:
        os.close(writer)


async def test_the_shards_of_the_document_can_be_read_in_parts(served: Served) -> None:
    whole = (await served.ask("/status.json")).document
    for query, ids in (("0", [0]), ("0-99", [0]), ("1-99", [])):
        part = (await served.ask(f"/status.json?shards={query}")).document
        assert [shard["id"] for shard in part["shards"]] == ids
        assert part["verdict"] == whole["verdict"]
    for query in ("", "x", "-1", "1-", "0-99,3"):
        refused = await served.ask(f"/status.json?shards={query}")
        assert (refused.status, "such as 0-99" in refused.error) == (400, True)
