"""Serve the façade: one port for websockets and REST, on this machine only."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

from aiohttp import hdrs, web

from discorder.facade.connection import BotConnection
from discorder.facade.encoding import choose_encoding
from discorder.facade.live import FacadeServices, describe_bots
from discorder.facade.rest import PassThrough, problem, refuse_token
from discorder.http.answers import RequestRefused, answer
from discorder.http.connection import HttpConnection, MalformedLog
from discorder.http.listener import HttpListener
from discorder.http.security import is_own, refuse_cross_site, requested_host
from discorder.logs import logger
from discorder.tracking.facade_status import FacadeStatus

MOST_CONNECTIONS = 4096  # of all bots: websockets and REST
FEWEST_CONNECTIONS = 16
# of the process's: a REST request takes two, and the shards and files of the control plane need some
SHARE_OF_FILES = 3
# bytes of a request line and of a header; an audit log reason has 512 characters, each up to 12 bytes
MAX_LINE = 16_384
MAX_HEADERS = 128
MAX_FRAME = 65_536  # bytes of a bot's frame; above 4,096 it is refused with 4002
IDLE_SECONDS = 75.0  # for the next request of a connection
UNKNOWN_LAYOUT_SECONDS = 5  # in Retry-After
SAVE_SECONDS = 1.0  # between two times that the places are saved
STOP_SECONDS = 1.0  # for the bots to get op 7 and to close
SHUTDOWN_SECONDS = 0.1  # for REST requests under way
SESSION_STARTS = 1000  # what /gateway/bot shows: no IDENTIFY at the façade costs one at Discord
DAY_MS = 86_400_000

_GATEWAY = re.compile(r"(?:/api(?:/v[0-9]+)?)?/gateway(?P<bot>/bot)?/?")


class FacadeServer:
    """Accepts the bots. ``rest``: None if REST requests are not passed on."""

    def __init__(self, services: FacadeServices, rest: PassThrough | None) -> None:
        self._services = services
        self._rest = rest
        self._connections: set[BotConnection] = set()
        self._server: web.Server | None = None
        self._listener: HttpListener | None = None
        self._saver: asyncio.Task[None] | None = None
        self._unwatch: Callable[[], None] | None = None
        self._stopping = False
        self._opened_at = services.now()
        self.url: str | None = None  # where it listens, without a path

    @property
    def services(self) -> FacadeServices:
        """What its connections use."""
        return self._services

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on ``sockets``, which are bound to loopback addresses."""
        self._server = web.Server(self._handle, handler_cancellation=True)
        connect = partial(
            HttpConnection,
            self._server,
            MalformedLog(time.monotonic),
            access_log=None,
            auto_decompress=False,  # bodies are passed on unread
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        self._unwatch = self._services.feed.watch(self._wake)
        self._saver = asyncio.create_task(self._sample_sessions(), name="facade-places")
        self._listener = HttpListener(sockets, connect, None, most_connections())
        self.url = f"http://{_shown(sockets[0])}"
        logger.info("Façade for bots", url=f"{self.url}/api")

    async def close(self, *, hurried: bool = False) -> None:
        """Close the port, send each bot what there is and op 7, and close the connections within `STOP_SECONDS`.

        ``hurried``: close them at once.
        """
        self._stopping = True
        self.url = None
        if self._listener is not None:
            await self._listener.close()
        for connection in self._connections:
            connection.stop()
        if self._connections and not hurried:
            await asyncio.wait([connection.ended for connection in self._connections], timeout=STOP_SECONDS)
        for connection in self._connections:
            connection.abort()
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        if self._unwatch is not None:
            self._unwatch()
        if self._server is not None:
            await self._server.shutdown(SHUTDOWN_SECONDS)
        await self._services.commands.close()
        if self._rest is not None:
            await self._rest.close()
        self._services.places.save()

    def status(self) -> FacadeStatus:
        """Return where it listens and which bots are connected. Thread-safe."""
        url = self.url
        return FacadeStatus(None) if url is None else describe_bots(self._services, url, self._opened_at)

    # ---------------------------------------------------------------- requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, HttpConnection):
            request.protocol.begin_response()
        try:
            return await self._route(request)
        except RequestRefused as refused:
            return problem(refused.status, str(refused), refused.headers)
        except web.HTTPException as error:  # a handshake that is none
            return problem(HTTPStatus(error.status), error.text or error.reason)
        except ConnectionError:  # the bot has gone
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        except Exception as error:  # noqa: BLE001  # a failure of one request stays there
            logger.opt(exception=error).error("A request to the façade failed", method=request.method)
            return problem(
                HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log of the control plane has the details"
            )

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if not is_own(requested_host(request)):
            raise RequestRefused(
                HTTPStatus.MISDIRECTED_REQUEST, "the façade is reached as localhost or by a loopback address only"
            )
        refuse_cross_site(request)
        if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
            return await self._websocket(request)
        asked = _GATEWAY.fullmatch(request.raw_path.partition("?")[0])
        if asked is not None and request.method == hdrs.METH_GET:
            return self._gateway(request, for_bot=asked["bot"] is not None)
        if self._rest is None:
            return problem(HTTPStatus.NOT_FOUND, 'the façade passes no REST requests on (facade.rest is "off")')
        return await self._rest.handle(request)

    def _gateway(self, request: web.BaseRequest, *, for_bot: bool) -> web.Response:
        """Answer GET /gateway and GET /gateway/bot. The type is bare application/json: disnake and nextcord parse no other."""
        url = _websocket_url(request)
        if not for_bot:
            return answer({"url": url})
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bot" or self._services.clients.find(token.strip()) is None:
            return refuse_token(request.raw_path)
        layout = self._services.feed.layout
        if layout is None:
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the control plane does not know its shards yet",
                {hdrs.RETRY_AFTER: str(UNKNOWN_LAYOUT_SECONDS)},
            )
        limit = {
            "total": SESSION_STARTS,
            "remaining": SESSION_STARTS,
            "reset_after": DAY_MS,
            "max_concurrency": layout[1],
        }
        return answer({"url": url, "shards": layout[1], "session_start_limit": limit})

    async def _websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        query = request.rel_url.query
        if query.get("encoding", "json") != "json":
            return problem(HTTPStatus.BAD_REQUEST, "the façade speaks encoding=json only")
        encode = choose_encoding(query.get("compress"))
        if encode is None:
            return problem(HTTPStatus.BAD_REQUEST, "compress must be zlib-stream, zstd-stream or absent")
        websocket = web.WebSocketResponse(
            autoclose=False, autoping=False, compress=False, max_msg_size=MAX_FRAME, decode_text=False
        )
        await websocket.prepare(request)
        transport = request.transport
        if transport is None or self._stopping:
            return websocket
        if isinstance(request.protocol, HttpConnection):
            request.protocol.streams = True
        connection = BotConnection(self._services, websocket, transport, encode, _websocket_url(request))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
        return websocket

    # ---------------------------------------------------------------- events and places

    def _wake(self, shard: int) -> None:
        for session in self._services.live.of_shard(shard):
            session.wake()

    async def _sample_sessions(self) -> None:
        while True:
            await self._services.clock.sleep(SAVE_SECONDS)
            now = self._services.now()
            for session in self._services.live.all():
                session.note_place()
                session.sample_lag(now)
            self._services.places.save()


def most_connections() -> int:
    """Return how many connections there may be, so that files are left for everything else."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, allowed // SHARE_OF_FILES))


def _websocket_url(request: web.BaseRequest) -> str:
    return f"ws://{request.headers[hdrs.HOST]}"


def _shown(one: socket.socket) -> str:
    host, port, *_ = one.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
