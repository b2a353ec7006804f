"""Listen on two sockets, the main host (REST and gateway) and the resume host (gateway), and answer upgrades
(docs/protocol.md#connection).
"""

from __future__ import annotations

from aiohttp import web

from discorder.simulator.client import SimulatedClient
from discorder.simulator.compression import choose_encoder
from discorder.simulator.connection import MAX_MESSAGE, SimulatedConnection
from discorder.simulator.dispatcher import Dispatcher
from discorder.simulator.faults import Host
from discorder.simulator.gateway import SimulatedGateway
from discorder.simulator.rest import NOT_FOUND, Rest

LOOPBACK = "127.0.0.1"  # the only interface a simulator ever listens on
VERSIONS = range(6, 11)  # 6 to 8 deprecated, below dead (docs/protocol.md#connection)
DEFAULT_VERSION = 6
MAX_BODY = 32 * 1024 * 1024  # bytes of a REST request
SHUTDOWN_TIMEOUT = 1.0  # seconds for REST requests under way


class Server:
    """``start`` listens, ``stop`` leaves no socket and no task."""

    def __init__(self, gateway: SimulatedGateway, rest: Rest) -> None:
        self._gateway = gateway
        self._dispatcher = Dispatcher(gateway)
        self._rest = rest
        self._runners: list[web.AppRunner] = []
        self._stopping = False

    async def start(self, port: int, resume_port: int) -> tuple[int, int]:
        """Listen on both ports (0 = any) and return them. Raises OSError for a port that is taken."""
        self._stopping = False
        try:
            return await self._listen("main", port), await self._listen("resume", resume_port)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Cut every connection and close the ports."""
        self._stopping = True
        for connection in list(self._gateway.clients):
            connection.abort()
        while self._runners:
            await self._runners.pop().cleanup()

    async def _listen(self, host: Host, port: int) -> int:
        app = web.Application(client_max_size=MAX_BODY)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, host)

        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, port).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def _handle(self, request: web.Request, host: Host) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._upgrade(request, host)
        if host == "main" and (request.path == "/api" or request.path.startswith("/api/")):
            return await self._rest.handle(request)
        return web.json_response(NOT_FOUND.body, status=NOT_FOUND.status)

    async def _upgrade(self, request: web.Request, host: Host) -> web.StreamResponse:
        gateway = self._gateway
        status = gateway.faults.refused.get(host)
        if status is not None:
            return self._refuse(status, "refused on request", gateway.faults.retry_after)
        query = request.query
        if query.get("encoding", "json") != "json":
            return self._refuse(400, "the simulator speaks encoding=json only")
        compress = query.get("compress")
        encoder = choose_encoder(compress, gateway.options.zlib_split)
        if encoder is None:
            return self._refuse(400, f"compress={compress!r} is not available")
        websocket = web.WebSocketResponse(
            autoclose=False, autoping=False, compress=False, max_msg_size=MAX_MESSAGE, decode_text=False
        )
        try:
            await websocket.prepare(request)
        except ConnectionResetError:
            return web.Response(status=400, text="the client died while it dialled")
        transport = request.transport
        if transport is None or self._stopping:  # the client has gone, or we are about to
            return websocket
        connection = SimulatedConnection(
            websocket,
            transport,
            peer=self._dispatcher,
            encoder=encoder,
            clock=gateway.clock,
            max_backlog=gateway.options.max_backlog,
        )
        version = _version(query.get("v"))
        client = gateway.connected(connection, version=version or 0, may_compress=not compress)
        await self._serve(client, valid_version=version is not None)
        return websocket

    async def _serve(self, client: SimulatedClient, *, valid_version: bool) -> None:
        if not valid_version:
            client.connection.close(4012, "invalid API version")
        try:
            await client.connection.run()
        finally:
            self._gateway.closed(client)

    def _refuse(self, status: int, reason: str, retry_after: int | None = None) -> web.Response:
        self._gateway.records.refused_upgrades += 1
        self._gateway.records.changed()
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return web.Response(status=status, text=reason, headers=headers)


def _version(text: str | None) -> int | None:
    if text is None:
        return DEFAULT_VERSION
    version = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0
    return version if version in VERSIONS else None
