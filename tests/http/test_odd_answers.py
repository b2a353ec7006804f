"""The commands of an operator beside what is no control plane, or one that repeats what a hostile peer sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web

from discorder.simulator import Simulator
from tests.commandline import Command
from tests.http.conftest import Served, Stranger
from tests.http.test_operate import lines_until, of, watching

ABSENT = 69
HOSTILE = "\x1b]0;pwned\x07\x1b[31m\x1b[2J\r\n\u202eforged\x9b"
SHOWN = r"\x1b]0;pwned\x07\x1b[31m\x1b[2J\r\n\u202eforged\x9b"


def is_printable(text: str) -> bool:
    return all(character.isprintable() for line in text.split("\n") for character in line)


# ---------------------------------------------------------------- control characters


@pytest.fixture
async def closed(served: Served, sim: Simulator) -> Served:
    """A plane whose gateway closed with control characters in the reason, and is silent since."""
    await sim.withhold_hello()
    await sim.close(4000, HOSTILE)
    await served.stage.until(lambda: served.stage.tracker.state == "Connecting")
    return served


async def test_the_reason_of_a_close_controls_no_terminal(discorder: Command, closed: Served) -> None:
    text = await discorder("status", *of(closed))
    document = await discorder("status", "--json", *of(closed))
    check = await discorder("healthcheck", "--ready", *of(closed))
    assert is_printable(text.out + document.out + check.out)
    assert r"\x1b]0;pwned\x07" in text.out
    assert HOSTILE in json.loads(document.out)["shards"][0]["cause"]
    raw = await closed.ask("/status.json")
    assert is_printable(raw.body.decode())
    assert HOSTILE in raw.document["shards"][0]["cause"]


@pytest.mark.system
async def test_it_forges_no_line_while_it_is_watched(
    environment: dict[str, str], served: Served, sim: Simulator
) -> None:
    async with watching(environment, "--url", served.url) as process:
        await lines_until(process.stdout, "discorder 0.")
        await sim.close(4000, HOSTILE)
        read = await lines_until(process.stdout, "(closed)")
        assert is_printable(read)
        assert SHOWN in read


@pytest.mark.parametrize("command", [("shutdown",), ("shards", "pause", "0"), ("status",), ("healthcheck",)])
async def test_answers_control_no_terminal(
    discorder: Command, stranger: Stranger, served: Served, command: tuple[str, ...]
) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"error": HOSTILE}, status=409)

    async def obey(_request: web.Request) -> web.Response:
        return web.json_response({"done": HOSTILE, "live": False, "reasons": [HOSTILE]})

    for answer in (refuse, obey):
        outcome = await discorder(*command, "--url", await stranger(answer), *of(served)[2:])
        assert is_printable(outcome.out + outcome.err)
        assert SHOWN in outcome.out + outcome.err or command == ("status",)


# ---------------------------------------------------------------- the operator token


async def test_a_program_that_holds_the_port_gets_no_token_and_can_use_nothing_twice(
    discorder: Command, stranger: Stranger, served: Served
) -> None:
    seen: list[tuple[dict[str, str], bytes]] = []

    async def thief(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), await request.read()))
        challenge = {"WWW-Authenticate": 'Bearer realm="discorder"'}
        return web.json_response({"error": "no"}, status=401, headers=challenge)

    url = await stranger(thief)
    for command in (("shards", "pause", "0"), ("status",)):
        await discorder(*command, "--url", url, *of(served)[2:])
    assert len(seen) == 3
    assert served.token not in str(seen)
    signature = {"Authorization": seen[0][0]["Authorization"]}
    other = await served.ask("/shards/0/restart", "POST", headers=signature, data=seen[0][1])
    changed = await served.ask("/shards/0/pause", "POST", headers=signature, data=b"{ }")
    once = await served.ask("/shards/0/pause", "POST", headers=signature, data=seen[0][1])
    again = await served.ask("/shards/0/pause", "POST", headers=signature, data=seen[0][1])
    assert [answer.status for answer in (other, changed, once, again)] == [401, 401, 200, 401]
    assert "used before" in again.error


# ---------------------------------------------------------------- odd answers


@pytest.mark.parametrize(
    "body",
    [b'{"live":false,"reasons":5}', b'{"live":false,"reasons":[5]}', b"[" * 200_000, b'{"live":1}', b'"\xff"', b"\xff\xfe{\0}\0"],
    ids=["reasons", "a reason", "nested", "a number", "no UTF-8", "UTF-16"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["status", "healthcheck"])
async def test_an_odd_answer_is_that_of_a_stranger(
    discorder: Command, stranger: Stranger, command: str, body: bytes
) -> None:
    async def odd(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    url = await stranger(odd)
    outcome = await discorder(command, "--url", url)
    assert outcome.code == (ABSENT if command == "status" else 1)
    assert (
        f"what answers at {url} (HTTP status 200) is no control plane; check that it runs" in outcome.out + outcome.err
    )


@pytest.mark.system
@pytest.mark.parametrize("body", [b"[" * 200_000, b'"\xff"'], ids=["nested", "no UTF-8"])
async def test_an_odd_stream_is_said(environment: dict[str, str], stranger: Stranger, body: bytes) -> None:
    """An event name that is no UTF-8 is no obstacle, and a document that is none is said."""

    async def stream(_request: web.Request) -> web.Response:
        return web.Response(body=b"event: st\xffatus\ndata: " + body + b"\n\n", content_type="text/event-stream")

    async with watching(environment, "--url", await stranger(stream)) as process:
        assert process.stderr is not None
        said = await process.stderr.read()
        assert await process.wait() == ABSENT
    assert b"the status document is of another version" in said


# ---------------------------------------------------------------- a server that drips


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends one byte of its answer each half second."""
    ending = threading.Event()

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                threading.Thread(target=drip, args=(peer,), daemon=True).start()

    def drip(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100:
                peer.send(bytes([byte]))
                if ending.wait(0.5):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        ending.set()
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.heavy
@pytest.mark.system
async def test_a_server_that_drips_is_given_two_seconds(
    environment: dict[str, str], dripping: str, served: Served
) -> None:
    async def run(*command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", *command, "--url", dripping, *of(served)[2:]),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        out, _ = await process.communicate()
        return out.decode()

    commands = (("status",), ("status", "--watch"), ("healthcheck",), ("shutdown",))
    async with asyncio.timeout(60):
        for said in await asyncio.gather(*(run(*command) for command in commands)):
            assert f"no control plane answers at {dripping} within 2 s" in said


# ---------------------------------------------------------------- a stream that stops in the middle

BEGUN = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: status\ndata: {document}\n\n"


@pytest.fixture
def stopping() -> Iterator[Callable[[str, bytes], str]]:
    """A server whose every stream begins with a status document; then come the bytes of ``rest``, five in a second."""
    ending = threading.Event()

    def serve(peer: socket.socket, document: str, rest: bytes) -> None:
        with peer, contextlib.suppress(OSError):
            peer.recv(65_536)
            peer.sendall(BEGUN.format(document=document).encode())
            for byte in rest:
                if ending.wait(0.2):
                    return
                peer.send(bytes([byte]))
            ending.wait()

    def accept(listening: socket.socket, *begin: object) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0], *begin), daemon=True).start()

    with contextlib.ExitStack() as opened:

        def start(document: str, rest: bytes) -> str:
            listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            opened.callback(listening.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=accept, args=(listening, document, rest), daemon=True).start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield start
        ending.set()


@pytest.mark.heavy
@pytest.mark.system
@pytest.mark.parametrize("rest", [b"", b"event: beat\ndata: {" + b" " * 1000], ids=["nothing", "drips"])
async def test_a_stream_that_stops_in_the_middle_is_said_and_begun_again(
    environment: dict[str, str], served: Served, stopping: Callable[[str, bytes], str], rest: bytes
) -> None:
    url = stopping((await served.ask("/status.json")).body.decode(), rest)
    async with watching(environment, "--url", url) as process, asyncio.timeout(60):
        await lines_until(process.stdout, "discorder 0.")
        for words in ["Not known: no news from the control plane", "Well"] * 2:
            await lines_until(process.stdout, words)
    async with watching(environment, "--json", "--url", url) as process, asyncio.timeout(60):
        await lines_until(process.stderr, "Not known: no news from the control plane")
        for _ in range(2):
            await lines_until(process.stdout, '"event":"status"')
