"""A REST server on loopback that keeps Discord's rate limit rules by itself and can be told to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from aiohttp import web

from discorder.clock import FakeClock
from discorder.rest import BotClient

T = TypeVar("T")
TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDe.this-is-the-secret-part-of-the-token-00"
GATEWAY = {
    "url": "wss://gateway.discord.gg/",
    "shards": 2,
    "session_start_limit": {"total": 1000, "remaining": 998, "reset_after": 14_400_000, "max_concurrency": 16},
}

Play = Callable[[web.Request], Awaitable[web.StreamResponse]]
Run = Callable[[Awaitable[T]], Awaitable[T]]


@dataclass
class Quota:
    """One bucket as the server keeps it: a fixed window that starts with its first request."""

    limit: int
    period: float
    used: int = 0
    ends: float = float("-inf")


@dataclass
class Seen:
    """One request as it arrived."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """What a test tells the server and what the server saw.

    ``script`` is played first, one entry per request; then ``bucket_of`` names the quota key and hash of a path (None: no
    limits). ``refused`` counts the 429s of its own making; ``most_at_once`` is the highest number of requests under way.
    """

    clock: FakeClock
    script: deque[Play] = field(default_factory=deque)
    bucket_of: Callable[[str], tuple[str, str] | None] = lambda _path: None
    quota: tuple[int, float] = (5, 5.0)
    quota_of: dict[str, tuple[int, float]] = field(default_factory=dict)  # by hash, where it is not ``quota``
    seen: list[Seen] = field(default_factory=list)
    quotas: dict[tuple[str, str], Quota] = field(default_factory=dict)
    refused: int = 0
    at_once: int = 0
    most_at_once: int = 0
    hold: asyncio.Event | None = None
    api: str = ""

    @property
    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]

    @property
    def times(self) -> list[float]:
        return [seen.at for seen in self.seen]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.removeprefix("/api/v10")
        body = await request.read()
        self.seen.append(Seen(self.clock.monotonic(), request.method, path, dict(request.headers), body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.script:
                return await self.script.popleft()(request)
            headers, refusal = self._charge(path)
            if refusal is not None:
                return refusal
            if self.hold is not None:
                await self.hold.wait()
            return web.json_response({"ok": len(self.seen)}, headers=headers)
        finally:
            self.at_once -= 1

    def _charge(self, path: str) -> tuple[dict[str, str], web.Response | None]:
        key = self.bucket_of(path)
        if key is None:
            return {}, None
        quota = self.quotas.setdefault(key, Quota(*self.quota_of.get(key[0], self.quota)))
        now = self.clock.monotonic()
        if now >= quota.ends:
            quota.used, quota.ends = 0, now + quota.period
        over = quota.used >= quota.limit
        quota.used = min(quota.limit, quota.used + 1)
        headers = limit_headers(key[0], quota.limit, quota.limit - quota.used, quota.ends - now, quota.ends)
        if not over:
            return headers, None
        self.refused += 1
        body = {"message": "You are being rate limited.", "retry_after": quota.ends - now, "global": False}
        return headers, web.json_response(body, status=429, headers={**headers, "X-RateLimit-Scope": "user"})


def limit_headers(name: str, limit: int, remaining: int, reset_after: float, reset: float) -> dict[str, str]:
    return {
        "X-RateLimit-Bucket": name,
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset-After": f"{reset_after:.3f}",
        "X-RateLimit-Reset": f"{1_700_000_000 + reset:.3f}",
    }


class Plays:
    """What the server can be told to do with one request."""

    @staticmethod
    def answer(status: int, body: object = None, **headers: str) -> Play:
        async def play(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

        return play

    @staticmethod
    def text(status: int, text: str, content_type: str = "text/html", **headers: str) -> Play:
        async def play(request: web.Request) -> web.StreamResponse:
            named = {k.replace("_", "-"): v for k, v in headers.items()}
            return web.Response(status=status, text=text, content_type=content_type, headers=named)

        return play

    @staticmethod
    def too_many(retry_after: float, scope: str) -> Play:
        body = {"message": "You are being rate limited.", "retry_after": retry_after, "global": scope == "global"}
        return Plays.answer(429, body, X_RateLimit_Scope=scope)

    @staticmethod
    async def reset(request: web.Request) -> web.StreamResponse:
        """Cut the connection without an answer."""
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    @staticmethod
    def stall_until(released: asyncio.Event, then: Play) -> Play:
        async def play(request: web.Request) -> web.StreamResponse:
            await released.wait()
            return await then(request)

        return play

    @staticmethod
    async def stall(_request: web.Request) -> web.StreamResponse:
        """Never answer; ends when the client gives up."""
        await asyncio.Event().wait()
        return web.Response()


@pytest.fixture
def plays() -> type[Plays]:
    return Plays


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def gateway_document() -> dict[str, object]:
    """A good answer to GET /gateway/bot; each test gets its own."""
    document: dict[str, object] = json.loads(json.dumps(GATEWAY))
    return document


@pytest.fixture
async def server(clock: FakeClock) -> AsyncIterator[Server]:
    server = Server(clock)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/api/v10/{rest:.*}", server.serve)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.api = f"http://{host}:{port}/api/v10"
    yield server
    await runner.cleanup()


@pytest.fixture
async def client(server: Server, clock: FakeClock) -> AsyncIterator[BotClient]:
    async with BotClient(TOKEN, api=server.api, clock=clock) as client:
        yield client


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait, a millisecond at a time, until a condition on the outside holds; five seconds are an error."""

    async def eventually(condition: Callable[[], bool]) -> None:
        for _ in range(5_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        pytest.fail("it did not come true")

    return eventually


@pytest.fixture
def run(clock: FakeClock) -> Run[object]:
    """Await something that needs the clock: when it is not done within some milliseconds, time moves to the next timer.

    Only limiter waits and retry pauses are timers of the fake clock, so that moving it early changes no outcome but makes a
    request leave while an earlier one is under way, as real time would.
    """

    async def run(awaitable: Awaitable[T]) -> T:
        task = asyncio.ensure_future(awaitable)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=0.02)
                if done:
                    return task.result()
                due = clock.next_due()
                if due is not None:
                    await clock.advance(due)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    return run
