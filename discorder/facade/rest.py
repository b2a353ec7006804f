"""Pass the REST requests of the bots to Discord, unread, with the real token instead of that of the façade."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from discorder.facade.clients import UNKNOWN_CLIENT, Clients
from discorder.http.answers import answer
from discorder.logs import logger
from discorder.rest.http import open_connection
from discorder.transport.proxies import Proxies

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # TRACE would return the real token
CHUNK = 65_536  # bytes of a body that are passed on at once
CONNECT_SECONDS = 10.0
READ_SECONDS = 300.0  # without a byte of the answer; the bot's library usually gives up before
BODY_SECONDS = 60.0  # without a byte of the request's body

HOP_BY_HOP = frozenset(  # of one connection, not of the request (RFC 9110 §7.6.1)
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
NOT_SENT = HOP_BY_HOP | {"host", "accept-encoding", "expect"}
NOT_RETURNED = HOP_BY_HOP | {"server", "date"}  # which our own server sets
GENERATED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")  # what the HTTP library would add

_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)


class PassThrough:
    """Passes requests to one API. ``api``: its URL with the version; ``token``: the real one."""

    def __init__(self, api: str, token: str, clients: Clients, proxies: Proxies) -> None:
        parts = urlsplit(api)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._api = api.rstrip("/")
        self._token = token
        self._clients = clients
        self._proxies = proxies
        self._session = open_connection(proxies, most=0).session  # the connections of the bots are limited

    async def close(self) -> None:
        """Close the connections to the API."""
        await self._session.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the API's answer."""
        path = request.raw_path
        if request.method not in METHODS:
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, f"Discord has no method {request.method[:20]}")
        if not is_plain(path):
            return problem(HTTPStatus.BAD_REQUEST, "the path must begin with one / and have no . or .. in it")
        if len(request.headers.getall(hdrs.AUTHORIZATION, ())) > 1:
            return problem(HTTPStatus.BAD_REQUEST, "more than one header Authorization")
        own, left = list[tuple[str, str]](), NOT_SENT
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() == "bot":  # webhooks and interactions have their token in the path, and OAuth2 has "Bearer"
            if self._clients.find(token.strip()) is None:
                return refuse_token(path)
            own, left = [(hdrs.AUTHORIZATION, f"Bot {self._token}")], NOT_SENT | {"authorization"}
        base = self._origin if path.startswith("/api/") else self._api
        return await self._pass(request, URL(base + path, encoded=True), [*_without(request.headers, left), *own])

    async def _pass(self, request: web.BaseRequest, url: URL, headers: list[tuple[str, str]]) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(
                request.method,
                url,
                proxy=self._proxies.of(url),
                headers=headers,
                data=_body(request) if request.body_exists else None,
                skip_auto_headers=GENERATED,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
            ) as theirs:
                if theirs.status == HTTPStatus.SWITCHING_PROTOCOLS:
                    return problem(HTTPStatus.BAD_GATEWAY, "Discord's API answered with another protocol")
                response = web.StreamResponse(status=theirs.status, reason=theirs.reason)
                response.headers.extend(_without(theirs.headers, NOT_RETURNED))
                await response.prepare(request)
                async for part in theirs.content.iter_chunked(CHUNK):
                    await response.write(part)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = type(error).__name__  # its text may hold the headers
        if response is not None:  # its beginning is sent: only the end of the connection shows that it is incomplete
            if request.transport is not None:
                request.transport.abort()
            return response
        logger.warning("A REST request of a bot got no answer", method=request.method, error=kind)
        return problem(HTTPStatus.BAD_GATEWAY, f"the control plane got no answer from Discord ({kind})")


def is_plain(path: str) -> bool:
    """Return whether a request's target is a path below the origin that no server reads in another way."""
    target, _, _ = path.partition("?")
    return (
        target.startswith("/")
        and not target.startswith("//")
        and "\\" not in target
        and "#" not in path
        and not any(_DOTS.fullmatch(segment) for segment in target.split("/"))
    )


def refuse_token(path: str) -> web.Response:
    """Log that a request came with an unknown token, and return the answer."""
    path = path.partition("?")[0][:100]
    logger.warning("A REST request with an unknown token was refused", path=path, remedy=UNKNOWN_CLIENT)
    return problem(HTTPStatus.UNAUTHORIZED, "401: Unauthorized")


def problem(status: HTTPStatus, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error in the form of Discord's."""
    return answer({"message": sentence, "code": 0}, status=status, headers=headers)


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body of a request as it comes. Raises TimeoutError."""
    while True:
        async with asyncio.timeout(BODY_SECONDS):
            part = await request.content.readany()
        if not part:
            return
        yield part


def _without(headers: Mapping[str, str], names: frozenset[str]) -> list[tuple[str, str]]:
    """Return the headers that belong to the message and not to its connection."""
    lines = [(name, value) for name, value in headers.items() if name.lower() not in names]
    named = {
        one.strip().lower()
        for name, value in headers.items()
        if name.lower() == "connection"
        for one in value.split(",")
    }
    return [(name, value) for name, value in lines if name.lower() not in named]
