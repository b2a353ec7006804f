"""Show one control plane: its status, its metrics, its health, and the operator commands on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import hdrs, web

from discorder.clock import Clock
from discorder.http.answers import JSON, compressed, takes_gzip
from discorder.http.health import HealthChecks
from discorder.http.page import render_page
from discorder.http.routes import PAGE, HttpRoute, RouteAccess
from discorder.http.security import HttpSecurity
from discorder.http.shard_range import wanted_shards, with_shards
from discorder.http.stream import EventStreams
from discorder.http.verbs import SHARD_COMMANDS, OperatorCommands
from discorder.metrics import Exposition
from discorder.status.board import Board
from discorder.status.document import StatusDocument
from discorder.status.feed import encode
from discorder.tracking.overdue import find_overdue
from discorder.tracking.tracker import GatewayTracker

CSP = "Content-Security-Policy"


class PlaneSite:
    """The routes of one control plane. Use it on the plane's loop."""

    def __init__(self, tracker: GatewayTracker, clock: Clock) -> None:
        self._tracker = tracker
        self._clock = clock
        self._board = Board(tracker, clock)
        self._streams = EventStreams(self._board.listen)
        self._metrics = Exposition(tracker)

    def start(self, security: HttpSecurity) -> list[HttpRoute]:
        """Begin to sample; return the routes."""
        self._board.start()
        health = HealthChecks(security, status=self._read, problems=self._overdue)
        verbs = OperatorCommands(self._tracker, security)
        return [
            HttpRoute("GET", PAGE, RouteAccess.READER, self._page),
            HttpRoute("GET", "/livez", RouteAccess.OPEN, health.live),
            HttpRoute("GET", "/readyz", RouteAccess.OPEN, health.ready),
            HttpRoute("GET", "/status.json", RouteAccess.READER, self._status),
            HttpRoute("GET", "/metrics", RouteAccess.READER, self._scrape),
            HttpRoute("GET", "/events", RouteAccess.READER, self._streams.get),
            HttpRoute("POST", SHARD_COMMANDS, RouteAccess.OPERATOR, verbs.shard),
            HttpRoute("POST", "/shutdown", RouteAccess.OPERATOR, verbs.shutdown),
        ]

    async def close(self) -> None:
        """End the samples and the streams."""
        self._board.close()
        await self._streams.close()

    async def _read(self) -> StatusDocument:
        return self._board.status()

    async def _overdue(self) -> Sequence[str]:
        return find_overdue(self._tracker.shards, self._clock)

    async def _page(self, request: web.Request) -> web.Response:
        return await page_response(request, self._board.encoded())

    async def _status(self, request: web.Request) -> web.Response:
        wanted = wanted_shards(request)
        encoded = self._board.encoded() if wanted is None else encode(with_shards(self._board.status(), wanted))
        return await compressed(request, encoded, JSON)

    async def _scrape(self, request: web.Request) -> web.Response:
        page = self._metrics.page(request.headers.get(hdrs.ACCEPT, ""), packed=takes_gzip(request))
        headers = {hdrs.CONTENT_TYPE: page.content_type, hdrs.VARY: f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"}
        if page.encoding:
            headers[hdrs.CONTENT_ENCODING] = page.encoding
        return web.Response(body=page.body, headers=headers)


async def page_response(request: web.Request, status: bytes) -> web.Response:
    """Return the status page of a document, with its policy."""
    page = await asyncio.to_thread(render_page, status)  # some milliseconds at 500 shards
    response = await compressed(request, page.body, "text/html")
    response.charset = "utf-8"
    response.headers[CSP] = page.policy
    return response
