"""Serve HTTP in the loop of a site: the rules for all of its routes, start and end.

A failure of the server is logged and answered with 500. It never ends the plane, and never holds up its end.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from aiohttp import hdrs, web

from discorder.config import Config
from discorder.errors import ConfigError, UnusableFile
from discorder.http.answers import RequestRefused
from discorder.http.connection import HttpConnection, MalformedLog
from discorder.http.inherited import inherited_socket
from discorder.http.listener import HttpListener, bind
from discorder.http.login import LoginForm
from discorder.http.operator_token import TokenFile, token_file
from discorder.http.routes import PAGE, Handler, HttpRoute, RouteAccess, Site
from discorder.http.security import HttpSecurity, add_headers, is_signed, refuse_cross_site
from discorder.http.tls import Certificate
from discorder.http.verbs import read_body
from discorder.logs import logger, redact_everywhere
from discorder.paths import resolve_path

SWITCHED_OFF = 'its configuration switches operator commands off (http.operator_token_file is "")'
MAX_BODY = 16_384  # bytes of a request's body
MAX_LINE = 4_096  # bytes of a request line and of a header; a cookie and a token have about 100
MAX_HEADERS = 64
IDLE_SECONDS = 15.0  # for the next request, and for a request's headers to be complete
LINGER_SECONDS = 1.0  # for the rest of a body that no handler read
SEND_SECONDS = 10.0  # for a client to take a response
CLOSE_SECONDS = 0.1  # for requests under way at the end


class HttpServer:
    """The HTTP server of one process, and the site that it serves. Use it on the loop of the site."""

    def __init__(self, config: Config, site: Site) -> None:
        self._config = config
        self._site = site
        self._runner: web.AppRunner | None = None
        self._listener: HttpListener | None = None
        self.url: str | None = None  # where it listens

    async def start(self) -> None:
        """Listen, if ``http.bind`` is set, or on the socket that the parent of this process has passed.

        Raises `AddressInUse`, `ConfigError` and `UnusableFile` for what the configuration asks for and cannot be had. What is a
        default only becomes a warning: the plane then runs without the server, or the server without operator commands.
        """
        address = self._config.http.address
        if address is None:
            return
        certificate = await self._certificate()
        security = await self._security()
        inherited = inherited_socket()
        try:
            sockets = await bind(address) if inherited is None else [inherited]
        except ConfigError as error:
            if self._config.http_bind_set:
                raise
            logger.warning("Running without the status page", reason=str(error))
            return
        bound = replace(address, port=sockets[0].getsockname()[1])
        try:
            await self._open(sockets, certificate, security)
        except Exception as error:  # noqa: BLE001  # the plane must not fail because of its status page
            logger.opt(exception=error).error("Running without the status page")
            await self.close()
            for one in sockets:
                one.close()
            return
        self.url = f"{self._config.http.scheme}://{bound}/"
        if inherited is None:  # else the parent's page is the one to open
            logger.info("Status page", url=self.url)

    async def _open(
        self, sockets: Sequence[socket.socket], certificate: Certificate | None, security: HttpSecurity
    ) -> None:
        routes = self._site.start(security)
        self._runner = web.AppRunner(
            _app([*routes, *_login_routes(security)], security),
            handler_cancellation=True,  # an event stream ends with its connection
            shutdown_timeout=CLOSE_SECONDS,
        )
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101  # after setup()
        connect = partial(
            HttpConnection,
            self._runner.server,
            MalformedLog(time.monotonic),
            access_log=None,
            auto_decompress=False,  # no client needs it, and a small body could become a large one
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        self._listener = HttpListener(sockets, connect, certificate)

    async def close(self) -> None:
        """Close the port, the streams and all connections, within a fraction of a second. Never raises."""
        self.url = None
        try:
            if self._listener is not None:
                await self._listener.close()
            await self._site.close()
            if self._runner is not None:
                await self._runner.cleanup()
        except Exception as error:  # noqa: BLE001  # the plane's end must not fail because of its status page
            logger.opt(exception=error).warning("The HTTP server did not close cleanly")

    # ---------------------------------------------------------------- what it is made of

    async def _certificate(self) -> Certificate | None:
        http = self._config.http
        if not http.tls_cert_file:
            return None
        return await Certificate.load(resolve_path(http.tls_cert_file), resolve_path(http.tls_key_file))

    async def _security(self) -> HttpSecurity:
        """Read or make the operator token. Raises `UnusableFile` for a file that the configuration names."""
        chosen: TokenFile | None = None
        try:
            chosen = token_file(self._config)
            if chosen is None:
                return HttpSecurity(self._config, None, SWITCHED_OFF)
            token = await asyncio.to_thread(chosen.ensure)
            redact_everywhere(token)
            return HttpSecurity(self._config, token)
        except UnusableFile as error:
            if chosen is not None and chosen.chosen:
                raise
            logger.warning("Running without operator commands", reason=str(error))
            return HttpSecurity(self._config, None, str(error))


def _app(routes: Sequence[HttpRoute], security: HttpSecurity) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_answering])
    app.on_response_prepare.append(_add_headers)
    for route in routes:
        handler = _guarded(route, security)
        if route.method == hdrs.METH_GET:
            app.router.add_get(route.path, handler)
        else:
            app.router.add_route(route.method, route.path, handler)
    return app


def _login_routes(security: HttpSecurity) -> list[HttpRoute]:
    login = LoginForm(security)
    return [
        HttpRoute("GET", "/login", RouteAccess.OPEN, login.form),
        HttpRoute("POST", "/login", RouteAccess.OPEN, login.log_in),
    ]


def _guarded(route: HttpRoute, security: HttpSecurity) -> Handler:
    """Return the handler of ``route``, behind the checks of the host name and of the access."""

    async def handle(request: web.Request) -> web.StreamResponse:
        client = security.client(request)
        if route.access is RouteAccess.OPERATOR:
            body = await read_body(request) if is_signed(request) else b""
            security.require_operator(request, client, body)
        elif route.access is RouteAccess.READER:
            if route.path != PAGE:  # which links of other sites may lead to
                refuse_cross_site(request)
            try:
                security.require_reader(request, client)
            except RequestRefused as refused:
                wants_page = "text/html" in request.headers.get(hdrs.ACCEPT, "")
                if refused.status is HTTPStatus.UNAUTHORIZED and wants_page and security.has_token:
                    return web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: "/login"})
                raise
        return await route.handler(request)

    return handle


@web.middleware
async def _answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send the response within a time limit; turn refusals and failures into sentences."""
    if isinstance(request.protocol, HttpConnection):
        request.protocol.begin_response()
    try:
        response = await handler(request)
    except RequestRefused as refused:
        response = refused.response()
    except web.HTTPException as error:
        response = _of_aiohttp(error, request)
    except Exception as error:  # noqa: BLE001  # a failure of the status page stays here
        logger.opt(exception=error).error("An HTTP request failed", method=request.method, path=request.path)
        response = RequestRefused(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log has the details"
        ).response()
    if isinstance(response, web.Response):
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await response.prepare(request)
                await response.write_eof()
        except (ConnectionError, TimeoutError):  # the client has gone, or takes nothing
            if request.transport is not None:
                request.transport.abort()
    return response


def _of_aiohttp(error: web.HTTPException, request: web.Request) -> web.Response:
    """Return aiohttp's own refusal as a sentence in JSON."""
    sentences = {
        HTTPStatus.NOT_FOUND: f"there is nothing at {request.path[:100]}; docs/http.md lists what there is",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.path[:100]} does not take {request.method}",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"the body of a request may have {MAX_BODY} bytes",
    }
    status = HTTPStatus(error.status)
    allow = error.headers.get(hdrs.ALLOW)
    return RequestRefused(
        status, sentences.get(status, status.phrase), {hdrs.ALLOW: allow} if allow is not None else None
    ).response()


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    add_headers(response)
