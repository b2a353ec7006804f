"""Who may read the status and command the control plane: hosts, tokens, cookies, TLS; and requests that are none."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from discorder.clock import SystemClock
from discorder.errors import ConfigError
from discorder.simulator import Simulator
from tests.harness import StartStage
from tests.http.conftest import FOREIGN, Serve, Served
from tests.stopwatch import Stopwatch

OPEN = ("/livez", "/readyz")
FOR_READERS = ("/", "/status.json", "/events", "/metrics")


# ---------------------------------------------------------------- host names


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "localhost:1", "127.0.0.1.", "bot.example.org", "127.0.0.2"],
)
async def test_its_own_names_are_answered(serve: Serve, host: str) -> None:
    served = await serve('http.hosts=["bot.example.org"]')
    assert (await served.ask("/livez", headers={"Host": host})).status == 200


@pytest.mark.parametrize("path", [*OPEN, *FOR_READERS, "/login"])
async def test_a_name_that_another_server_may_have_is_refused(served: Served, path: str) -> None:
    """A web page whose name was made to point to loopback (DNS rebinding) gets nothing."""
    for host in ("evil.example.org", "127.0.0.1.evil.example.org", "localhost.evil.example.org", "192.0.2.1"):
        answer = await served.ask(path, headers={"Host": f"{host}:{served.port}"})
        assert answer.status == 421
        assert host in answer.error
        assert "http.hosts" in answer.error


@pytest.mark.parametrize(
    "head", ["", "Host: \r\n", "Host: a b\r\n", "Host: localhost\r\nHost: localhost\r\n", "Host: a/b\r\n"]
)
async def test_a_request_needs_one_host_name(served: Served, head: str) -> None:
    answer = await served.raw(f"GET /livez HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
    assert b" 400 " in answer.splitlines()[0]


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("path", FOR_READERS)
async def test_from_another_host_reading_needs_the_token(served: Served, path: str) -> None:
    refused = await served.ask(path, headers=FOREIGN)
    assert refused.status == 401
    assert "/login" in refused.error
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    async with served.session.get(f"{served.url}{path}", headers=FOREIGN | served.bearer) as response:
        assert response.status == 200


async def test_a_name_of_a_proxy_is_another_host(serve: Serve) -> None:
    served = await serve('http.hosts=["bot.example.org"]')
    assert (await served.ask("/status.json", headers={"Host": "bot.example.org"})).status == 401


async def test_probes_from_another_host_get_the_verdict_without_reasons(served: Served, sim: Simulator) -> None:
    await sim.refuse_upgrades()
    await sim.drop()
    await served.stage.until(lambda: served.stage.tracker.state != "Ready")
    answer = await served.ask("/readyz", headers=FOREIGN)
    assert (answer.status, answer.document) == (503, {"ready": False})
    assert (await served.ask("/livez", headers=FOREIGN)).status == 200
    assert len((await served.ask("/readyz", headers=FOREIGN | served.bearer)).document) > 1


async def test_a_browser_of_another_host_is_sent_to_the_form(served: Served) -> None:
    headers = FOREIGN | {"Accept": "text/html,application/xhtml+xml"}
    for path in ("/", "/status.json"):
        sent = await served.ask(path, headers=headers)
        assert (sent.status, sent.headers["Location"]) == (303, "/login")
    form = await served.ask("/login", headers=headers)
    assert (form.status, form.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'<input id="token" name="token" type="password"' in form.body
    assert b"style=" not in form.body
    assert "unsafe-inline" not in form.headers["Content-Security-Policy"]


# ---------------------------------------------------------------- login


async def logged_in(served: Served, **data: Any) -> Any:
    answer = await served.ask("/login", "POST", headers=FOREIGN, data={"token": served.token, **data})
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    (cookie,) = answer.cookies.values()
    return cookie


async def test_a_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(served: Served) -> None:
    cookie = await logged_in(served)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert not cookie["secure"]
    assert served.token not in cookie.value
    headers = FOREIGN | {"Cookie": f"{cookie.key}={cookie.value}"}
    assert (await served.ask("/status.json", headers=headers)).status == 200
    async with served.session.get(f"{served.url}/events", headers=headers) as response:
        assert response.status == 200


async def test_a_login_outlives_a_restart_but_not_another_token(serve: Serve) -> None:
    first = await serve()
    cookie = await logged_in(first)
    await first.stage.stop()

    async def reads(served: Served) -> int:
        name = f"discorder-{served.port}"
        return (await served.ask("/status.json", headers=FOREIGN | {"Cookie": f"{name}={cookie.value}"})).status

    second = await serve()
    assert await reads(second) == 200
    await second.stage.stop()
    first.token_file.write_text("another-token-of-the-operator\n")
    assert await reads(await serve()) == 401


@pytest.mark.parametrize(
    "forged", ["", "x", "99999999999.", "99999999999.0", "1.{signature}", "{until}.{signature}x", "²³.x"]
)
async def test_a_forged_or_old_cookie_is_worth_nothing(served: Served, forged: str) -> None:
    cookie = await logged_in(served)
    until, signature = cookie.value.split(".")
    value = forged.replace("{until}", until).replace("{signature}", signature)
    headers = FOREIGN | {"Cookie": f"{cookie.key}={value}"}
    assert (await served.ask("/status.json", headers=headers)).status == 401


async def test_a_login_in_json_answers_in_json(served: Served) -> None:
    good = await served.ask("/login", "POST", headers=FOREIGN, json={"token": served.token})
    bad = await served.ask("/login", "POST", headers=FOREIGN, json={"tokn": served.token})
    assert (good.status, good.document) == (200, {"done": "logged in"})
    assert good.cookies
    assert (bad.status, bool(bad.cookies)) == (400, False)


async def test_a_wrong_token_is_refused_logged_and_limited(serve: Serve, tmp_path: Path) -> None:
    """After ten in a minute only the answer is 429 and the log silent: the operator is not locked out. The log has no token."""
    log = tmp_path / "log"
    served = await serve(f"log.file={log}")
    form = await served.ask("/login", "POST", headers=FOREIGN, data={"token": "wrong<b>"})
    assert (form.status, form.headers["Content-Type"]) == (401, "text/html; charset=utf-8")
    assert b"the operator token is wrong" in form.body
    wrong = {"Authorization": "Bearer not-the-token-at-all"}
    answers = [await served.ask("/status.json", headers=FOREIGN | wrong) for _ in range(10)]
    assert [answer.status for answer in answers] == [401] * 9 + [429]
    assert "Retry-After" in answers[-1].headers
    assert (await served.ask("/status.json", headers=FOREIGN | served.bearer)).status == 200
    assert (await served.ask("/status.json", headers=FOREIGN | wrong)).status == 429
    text = log.read_text()
    assert text.count("A wrong operator token was refused peer=127.0.0.1") == 10
    assert "not-the-token-at-all" not in text
    assert served.token not in text


# ---------------------------------------------------------------- commands


async def test_commands_need_the_token_on_loopback_too(served: Served) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong"}, {"Authorization": "Basic eA=="}):
        answer = await served.ask("/shutdown", "POST", headers=headers)
        assert answer.status == 401
    assert not served.stage.task.done()


async def test_a_login_commands_from_the_page_and_from_nowhere_else(served: Served) -> None:
    cookie = await logged_in(served)
    own = {"Cookie": f"{cookie.key}={cookie.value}"}
    for origin in ({}, {"Origin": "null"}, {"Origin": "https://evil.example.org"}, {"Sec-Fetch-Site": "cross-site"}):
        assert (await served.ask("/shutdown", "POST", headers=own | origin)).status == 403
    assert not served.stage.tracker.terminate_flag
    answer = await served.ask("/shutdown", "POST", headers=own | {"Origin": served.url})
    assert answer.status == 200


async def test_a_page_of_another_site_may_not_even_log_in(served: Served) -> None:
    headers = {"Origin": "https://evil.example.org"}
    answer = await served.ask("/login", "POST", headers=headers, data={"token": served.token})
    assert (answer.status, bool(answer.cookies)) == (403, False)


async def test_a_page_of_another_site_gets_the_page_alone(served: Served) -> None:
    """A link may lead to the page; event streams, which are few, and documents are not for other sites."""
    for path in ("/", "/livez", "/readyz", "/login"):
        assert (await served.ask(path, headers={"Sec-Fetch-Site": "cross-site"})).status == 200
    for path in ("/events", "/status.json", "/metrics"):
        assert (await served.ask(path, headers={"Sec-Fetch-Site": "cross-site"})).status == 403
        async with served.session.get(f"{served.url}{path}", headers={"Sec-Fetch-Site": "same-origin"}) as response:
            assert response.status == 200


@pytest.mark.parametrize("first", [False, True])
async def test_a_second_shutdown_that_wants_something_else_is_told_so(
    serve: Serve, sim: Simulator, first: bool
) -> None:
    served = await serve()
    requests = shutdown_request(served, goodbye=first) + shutdown_request(served, goodbye=not first)
    answers = (await served.raw(requests)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"409"]
    kept = b"its sessions end" if first else b"the next start resumes its sessions"
    assert kept in answers[1]
    assert await served.stage.end() is None
    await sim.wait_for(lambda: sim.closes)
    assert bool(sim.sessions) is not first


def shutdown_request(served: Served, *, goodbye: bool) -> bytes:
    body = b'{"goodbye": true}' if goodbye else b'{"goodbye": false}'
    return (
        b"POST /shutdown HTTP/1.1\r\nHost: localhost\r\n"
        + f"Authorization: {served.bearer['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


@pytest.mark.parametrize(("body", "keeps"), [(b"", True), (b'{"goodbye": false}', True), (b'{"goodbye": true}', False)])
async def test_a_shutdown_says_what_becomes_of_the_sessions(
    serve: Serve, sim: Simulator, tmp_path: Path, body: bytes, keeps: bool
) -> None:
    log = tmp_path / "log"
    served = await serve(f"log.file={log}")
    answer = await served.ask("/shutdown", "POST", headers=served.bearer, data=body)
    assert answer.status == 200
    assert ("resumes" if keeps else "offline") in answer.document["done"]
    assert await served.stage.end() is None
    await sim.wait_for(lambda: sim.closes)
    assert bool(sim.sessions) is keeps
    assert f"Operator command verb=shutdown goodbye={str(not keeps).lower()} peer=127.0.0.1" in log.read_text()


@pytest.mark.parametrize("body", [b"goodbye", b"[]", b'{"goodby": true}', b'{"goodbye": "yes"}', b"\xff"])
async def test_a_shutdown_with_another_body_does_nothing(served: Served, body: bytes) -> None:
    answer = await served.ask("/shutdown", "POST", headers=served.bearer, data=body)
    assert answer.status == 400
    assert '{"goodbye": false}' in answer.error
    assert not served.stage.task.done()


async def test_without_a_token_file_there_are_no_commands(serve: Serve) -> None:
    served = await serve("http.operator_token_file=")
    for path in ("/shutdown", "/login"):
        answer = await served.ask(path, "POST", headers={"Authorization": "Bearer x"}, data={"token": ""})
        assert answer.status == 403
        assert "http.operator_token_file" in answer.error


# ---------------------------------------------------------------- requests that are none


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    ],
)
async def test_garbage_is_answered_with_400_or_nothing(served: Served, data: bytes) -> None:
    answer = await served.raw(data)
    assert answer.startswith(b"HTTP/1.") is False or b" 400 " in answer.split(b"\r\n")[0] + b" "
    assert (await served.ask("/livez")).status == 200


@pytest.mark.parametrize("path", ["/login", "/shutdown"])
async def test_a_large_body_is_refused(served: Served, path: str) -> None:
    answer = await served.ask(path, "POST", headers=served.bearer, data=b"x" * 200_000)
    assert answer.status == 413
    assert "16384 bytes" in answer.error


async def test_a_flood_of_connections_leaves_the_plane_its_files(served: Served) -> None:
    """Those beyond a bounded number are closed, the oldest first, and it answers all the time."""
    idle = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(100)]
    async with asyncio.timeout(60):
        assert [await reader.read() for reader, _ in idle[:30]] == [b""] * 30
    assert (await served.ask("/livez")).status == 200
    for _, writer in idle:
        writer.close()
    assert served.stage.tracker.state == "Ready"


async def test_a_reader_that_takes_nothing_holds_nothing_up(served: Served, sim: Simulator) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1)
    writer.write(
        b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        + b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50
    )
    await writer.drain()
    await sim.drop()
    await served.stage.ready(2)
    watch = Stopwatch()
    assert (await served.ask("/status.json")).status == 200
    await served.stage.stop()
    assert watch.seconds < 0.5
    writer.close()


# ---------------------------------------------------------------- TLS


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[trustme.CA, Path, Path]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    key.write_bytes(certificate.private_key_pem.bytes())
    cert.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    return authority, cert, key


async def test_with_tls_the_page_is_https_and_the_cookie_secure(
    serve: Serve, tls_files: tuple[trustme.CA, Path, Path]
) -> None:
    authority, cert, key = tls_files
    served = await serve(f"http.tls_cert_file={cert}", f"http.tls_key_file={key}")
    assert served.url.startswith("https://127.0.0.1:")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    assert (await served.ask("/status.json", ssl=trusted)).document["schema"] == "discorder.status/1"
    answer = await served.ask("/login", "POST", ssl=trusted, data={"token": served.token})
    (cookie,) = answer.cookies.values()
    assert cookie["secure"]
    assert cookie.key.startswith("__Host-")
    assert await served.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") in {b"", b"\x15\x03\x03\x00\x02\x022"}
    assert (await served.ask("/livez", ssl=trusted)).status == 200


async def test_a_renewed_certificate_is_served_without_a_restart(
    serve: Serve, tls_files: tuple[trustme.CA, Path, Path], tmp_path: Path
) -> None:
    """Files that do not fit together, as in the midst of the renewal, change nothing."""
    _, cert, key = tls_files
    served = await serve(f"http.tls_cert_file={cert}", f"http.tls_key_file={key}", f"log.file={tmp_path / 'log'}")
    renewed = trustme.CA()
    trusted = ssl.create_default_context()
    renewed.configure_trust(trusted)
    fresh = renewed.issue_cert("localhost", "127.0.0.1")
    cert.write_bytes(b"".join(part.bytes() for part in fresh.cert_chain_pems))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await served.ask("/livez", ssl=trusted)
    assert "The renewed TLS certificate cannot be used" in (tmp_path / "log").read_text()
    key.write_bytes(fresh.private_key_pem.bytes())
    assert (await served.ask("/livez", ssl=trusted)).status == 200


async def test_certificate_files_that_hang_hold_nothing_up(
    serve: Serve, tls_files: tuple[trustme.CA, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate of before is served: at once if the file is a FIFO, after a limit if reading it takes long."""
    authority, cert, key = tls_files
    log = tmp_path / "log"
    served = await serve(f"http.tls_cert_file={cert}", f"http.tls_key_file={key}", f"log.file={log}")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    content = cert.read_bytes()
    cert.unlink()
    os.mkfifo(cert)
    assert (await served.ask("/livez", ssl=trusted, headers={"Connection": "close"})).status == 200
    assert "cert.pem is no regular file" in log.read_text()

    answers = threading.Event()
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda *_, **__: answers.wait(10))
    cert.unlink()
    cert.write_bytes(content)
    watch = Stopwatch()
    for _ in range(5):
        assert (await served.ask("/livez", ssl=trusted, headers={"Connection": "close"})).status == 200
    assert watch.seconds < 2
    assert log.read_text().count("The TLS certificate cannot be read now") == 1
    answers.set()


@pytest.mark.parametrize("broken", ["cert", "key", "both", "mixed", "fifo"])
async def test_tls_files_that_cannot_be_used_are_named(
    sim: Simulator, start_stage: StartStage, tls_files: tuple[trustme.CA, Path, Path], tmp_path: Path, broken: str
) -> None:
    _, cert, key = tls_files
    if broken in {"cert", "both"}:
        cert.unlink()
    if broken in {"key", "both"}:
        key.write_text("no key")
    if broken == "fifo":
        cert.unlink()
        os.mkfifo(cert)
    if broken == "mixed":
        key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    settings = ("http.bind=127.0.0.1:0", f"http.tls_cert_file={cert}", f"http.tls_key_file={key}")
    error = await start_stage(sim, *settings, clock=SystemClock()).end()
    assert isinstance(error, ConfigError)
    assert str(cert) in str(error)
    assert "PEM" in str(error)
