"""Speak HTTP on one connection: aiohttp's protocol, with refusals in our form and without records of what strangers send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web

from discorder.http.answers import RequestRefused
from discorder.http.security import add_headers
from discorder.logs import logger

LOG_SECONDS = 10.0  # between two lines of malformed requests

MALFORMED = "the request is not valid HTTP; docs/http.md lists what this server takes"
EXPECTATION = "the header Expect may only be 100-continue"


class MalformedLog:
    """Logs malformed requests of all connections at DEBUG, at most one line per `LOG_SECONDS`, without their content."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = 0.0
        self._unlogged = 0

    def add(self, peer: str, error: BaseException | None) -> None:
        """Count a request of ``peer``; log it if a line is due."""
        if self._clock() < self._next:
            self._unlogged += 1
            return
        self._next = self._clock() + LOG_SECONDS
        logger.debug("Refused a malformed HTTP request", peer=peer, kind=type(error).__name__, others=self._unlogged)
        self._unlogged = 0


class HttpConnection(web.RequestHandler):
    """The protocol of one connection."""

    __slots__ = ("_ended", "_malformed", "quiet_since", "streams")

    def __init__(self, server: web.Server, malformed: MalformedLog, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._malformed = malformed
        self._ended = False  # the client has sent all that it will send
        self.quiet_since = self._loop.time()  # when the last response ended
        self.streams = False  # an event stream is the response under way

    @property
    def peer(self) -> str:
        """The address of the client."""
        return str(self.peername[0]) if isinstance(self.peername, tuple) else ""

    @property
    def is_quiet(self) -> bool:
        """Whether no request is under way: none has arrived in full, or all are answered."""
        return self._waiter is not None and not self._waiter.done()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a bool; aiohttp never needs one
        """Answer a client that has only closed its sending side; end its event stream, which nothing else would end."""
        self._ended = True
        return self.ssl_context is None and not self.is_quiet and not self.streams  # TLS has no half-closed connections

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what is not sent yet. Replace aiohttp's own refusals, which quote the request."""
        if isinstance(resp, web.HTTPException):
            status = HTTPStatus(resp.status)
            said = EXPECTATION if status is HTTPStatus.EXPECTATION_FAILED else status.phrase
            resp = RequestRefused(status, said).response()
            add_headers(resp)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            if self._ended and not self._messages:
                resp.force_close()
            self.quiet_since = self._loop.time()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # it quotes the request
    ) -> web.StreamResponse:
        """Return the response to a request that aiohttp cannot parse, or whose handler failed."""
        self._malformed.add(self.peer, exc)
        if request.writer.output_size > 0:
            msg = "the response has begun"
            raise ConnectionError(msg)
        known = HTTPStatus(status)
        said = MALFORMED if known is HTTPStatus.BAD_REQUEST else known.phrase
        response = RequestRefused(known, said).response()
        add_headers(response)
        response.headers[hdrs.CONNECTION] = "close"
        response.force_close()
        return response

    def log_exception(self, *_args: Any, **about: Any) -> None:
        """Count what went wrong with the rest of a request; handlers log their failures themselves."""
        error = about.get("exc_info")
        self._malformed.add(self.peer, error if isinstance(error, BaseException) else None)
