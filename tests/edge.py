"""A REST API in front of a simulator's that may answer in its place, as captive portals, proxies and edge servers do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from discorder.simulator import Simulator

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Edge:
    """Forwards ``GET /gateway/bot`` to the simulator, or answers with ``instead`` if that is set.

    ``wait`` is called before each answer. ``asked`` counts the requests.
    """

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.instead: Answer | None = None
        self.wait: Callable[[], Awaitable[None]] | None = None
        self.asked = 0
        self.api = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.wait is not None:
            await self.wait()
        if self.instead is not None:
            return await self.instead(request)
        headers = {"Authorization": request.headers["Authorization"]}
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self.sim.api_url}/gateway/bot", headers=headers) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


@pytest.fixture
async def edge(sim: Simulator) -> AsyncIterator[Edge]:
    """Run an edge in front of the test's simulator; its address is ``edge.api``."""
    edge = Edge(sim)
    app = web.Application()
    app.router.add_get("/api/gateway/bot", edge.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    edge.api = f"http://127.0.0.1:{runner.addresses[0][1]}/api"
    yield edge
    await runner.cleanup()


def page(text: str, status: int = 200, content_type: str = "text/html", **headers: str) -> Answer:
    """Return an answer that is always the same."""

    async def answer(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, content_type=content_type, headers=named)

    return answer


def document(text: str, status: int = 200) -> Answer:
    """Return an answer that is always the same JSON."""
    return page(text, status, "application/json")


login_page = page("<html>please log in</html>")
blocked = document('{"message":"internal network error","code":40333}', 403)
refused = document('{"message":"401: Unauthorized","code":0}', 401)  # Discord's own, about the token
