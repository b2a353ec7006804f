"""What strangers can do to the server: malformed requests, clients that leave, half-closed and idle connections."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from discorder.logs import logger
from tests.http.conftest import Serve, Served

HEAD = b"HTTP/1.1\r\nHost: localhost\r\n"
STREAM_LIMIT = 64  # connections from this machine


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def check_refusal(answer: bytes, status: int, secret: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].split(b" ")[1] == str(status).encode()
    assert set(json.loads(body)) == {"error"}
    assert b"Server: discorder" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert b"ython" not in answer
    assert secret.encode()[:20] not in answer


# ---------------------------------------------------------------- malformed requests


async def test_a_malformed_request_with_the_token_shows_it_nowhere(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "log"
    served = await serve(f"log.file={log}", "log.level=debug")
    token = served.token
    for start in ("GET", "POST"):
        for request in (
            f"{start} /shutdown HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\x01\r\n\r\n",
            f"{start} /?t={token}\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            f"{token} / HTTP/1.1\r\n\r\n\x01",
            f"{start} / HTTP/1.1\r\n{token}\r\n\r\n",
        ):
            check_refusal(await served.raw(request.encode()), 400, token)
    text = log.read_text()
    assert token[:12] not in text
    assert "Traceback" not in text
    assert text.count("Refused a malformed HTTP request") == 1
    (line,) = (one for one in text.splitlines() if "Refused a malformed" in one)
    assert "DEBUG" in line
    assert "peer=127.0.0.1" in line


async def test_the_log_hides_the_operator_token_wherever_it_comes_from(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "log"
    served = await serve(f"log.file={log}")
    logger.warning("A proxy sent a header", value=served.token)
    assert "A proxy sent a header value=<token>" in log.read_text()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /livez " + HEAD + b"Expect: secret-expectation-of-mine\r\nConnection: close\r\n\r\n", 417),
        (b"GET /nothing " + HEAD + b"Expect: secret-expectation-of-mine\r\nConnection: close\r\n\r\n", 417),
        (b"POST /login " + HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close\r\n\r\nxxxx", 400),
        (b"POST /login " + HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nsecret", 400),
        (b"GET /\xff\xfe " + HEAD + b"\r\n", 400),
        (b"BREW /livez " + HEAD + b"\r\n", 400),
        (b"GET /shards/0/restart " + HEAD + b"Connection: close\r\n\r\n", 405),
        (b"GET /livez HTTP/1.1\r\nHost: \xff\xfe\r\nConnection: close\r\n\r\n", 400),
        (b"GET /status.json " + HEAD + b"Authorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n", 200),
        (b"GET /events " + HEAD + b"X-Real-IP: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n", 401),
        (
            b"GET /events " + HEAD + b"X-Real-IP: x\r\nCookie: discorder-0=\xff.\xfe; ;;=\r\nConnection: close\r\n\r\n",
            401,
        ),
        (b"POST /login " + HEAD + b"Content-Type: \xff\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xff\xfe", 400),
        (b"POST /login " + HEAD + b"Content-Type: application/json; charset=x\r\nConnection: close\r\n\r\n", 400),
    ],
)
async def test_odd_requests_are_refused_without_an_error_in_the_log(
    serve: Serve, tmp_path: Path, request_: bytes, status: int
) -> None:
    """Whatever strangers send cannot push the log's last lines out of the status document."""
    log = tmp_path / "log"
    served = await serve(f"log.file={log}")
    answer = await served.raw(request_)
    if status == 200:
        assert answer.startswith(b"HTTP/1.1 200")
    else:
        check_refusal(answer, status, "secret-expectation-of-mine")
    text = log.read_text()
    assert "ERROR" not in text
    assert "Traceback" not in text


async def test_clients_that_leave_early_are_no_errors(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "log"
    served = await serve(f"log.file={log}")
    for path in ("/", "/status.json", "/metrics", "/events"):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", served.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset at the close
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                await asyncio.sleep(0)
    assert (await served.ask("/livez")).status == 200
    assert "ERROR" not in log.read_text()


# ---------------------------------------------------------------- half-closed connections


@pytest.mark.parametrize("path", ["/", "/livez", "/status.json", "/metrics"])
async def test_a_client_that_has_nothing_more_to_send_is_answered(served: Served, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with asyncio.timeout(60), connected(served) as (reader, writer):
        writer.write(request + request)
        writer.write_eof()
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_client_that_closes_ends_its_stream(served: Served) -> None:
    async with asyncio.timeout(60), connected(served) as (reader, writer):
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"event: status")
        writer.write_eof()
        await reader.read()


# ---------------------------------------------------------------- idle connections


async def test_idle_connections_make_room_for_a_request(served: Served) -> None:
    """The connection that has been idle for longest is closed; one with a request under way is not."""
    async with served.session.get(f"{served.url}/events") as stream:
        assert stream.status == 200
        idle = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(STREAM_LIMIT - 1)]
        for _ in range(3):
            answer = await served.raw(b"GET /livez " + HEAD + b"Connection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(60):
            assert await idle[0][0].read() == b""
        assert not idle[-1][0].at_eof()
        assert await stream.content.readline()
        for _, writer in idle:
            writer.close()
