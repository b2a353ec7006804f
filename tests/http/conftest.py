"""A control plane against a simulator, with its HTTP server on a free port of loopback."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from discorder.cli.outcome import run
from discorder.clock import SystemClock
from discorder.simulator import Simulator
from tests.commandline import Command, Outcome
from tests.harness import Stage, StartStage

FOREIGN = {"X-Forwarded-For": "192.0.2.7"}  # a request that a proxy on this machine passes on from another host


@dataclass
class Answer:
    """A response whose body was read."""

    status: int
    headers: Any
    body: bytes
    cookies: Any = None

    @property
    def document(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded

    @property
    def error(self) -> str:
        return str(self.document["error"])


class Served:
    """A plane and its HTTP server."""

    def __init__(self, stage: Stage, token_file: Path, session: aiohttp.ClientSession) -> None:
        self.stage = stage
        self.token_file = token_file
        self.session = session

    @property
    def url(self) -> str:
        url = self.stage.tracker.status_url
        assert url is not None
        return url.rstrip("/")

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def ask(self, path: str, method: str = "GET", **more: Any) -> Answer:
        async with self.session.request(method, f"{self.url}{path}", allow_redirects=False, **more) as response:
            return Answer(response.status, response.headers, await response.read(), response.cookies)

    async def raw(self, data: bytes, *, seconds: float = 5.0) -> bytes:
        """Send bytes and return what comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(seconds):
                return await reader.read()
        finally:
            writer.close()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the operator token of "auto" out of the user's own state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(guilds=1, identify_spacing=0.0) as simulator:
        yield simulator


@pytest.fixture
async def serve(sim: Simulator, start_stage: StartStage, tmp_path: Path) -> AsyncIterator[Serve]:
    """Start a plane with an HTTP server, on real time."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:

        async def start(*settings: str, **around: Any) -> Served:
            file = tmp_path / "operator-token"
            given = ("http.bind=127.0.0.1:0", f"http.operator_token_file={file}", *settings)
            is_ready = around.pop("is_ready", True)
            stage = start_stage(around.pop("sim", sim), *given, clock=SystemClock(), **around)
            await asyncio.to_thread(stage.ref.wait)
            if is_ready:
                await stage.ready()
            return Served(stage, file, session)

        yield start


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve()


@pytest.fixture
def discorder() -> Command:
    """Run `discorder ARG…` in a thread of this process, which costs a hundredth of a process."""

    def run_here(arguments: tuple[str, ...]) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(arguments)
        return Outcome(code, out.getvalue(), err.getvalue())

    async def command(*arguments: str) -> Outcome:
        return await asyncio.to_thread(run_here, arguments)

    return command


Stranger = Callable[[Callable[..., Awaitable[web.StreamResponse]]], Awaitable[str]]


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    """Start an HTTP server that is no control plane, and return its address."""
    runners: list[web.AppRunner] = []

    async def start(handler: Callable[..., Awaitable[web.StreamResponse]]) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()
