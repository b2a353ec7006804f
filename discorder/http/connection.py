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
HALF_CLOSED_SECONDS = 0.05  # after which a connection is closed whose client will send nothing more and is answered


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

    __slots__ = ("_ended", "_malformed", "_time", "is_quiet", "quiet_since", "streams")

    def __init__(self, server: web.Server, malformed: MalformedLog, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **options)
        self._malformed = malformed
        self._time = loop.time
        self._ended = False  # the client has sent all that it will send
        self.is_quiet = True  # no request is being answered
        self.quiet_since = self._time()  # when the last response ended
        self.streams = False  # an event stream is the response under way

    @property
    def peer(self) -> str:
        """The address of the client."""
        return str(self.peername[0]) if isinstance(self.peername, tuple) else ""

    def begin_response(self) -> None:
        """Note that a request is being answered, until `finish_response`."""
        self.is_quiet = False

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a bool; aiohttp never needs one
        """Answer a client that has only closed its sending side; end its event stream, which nothing else would end."""
        self._ended = True
        if self.ssl_context is not None or self.streams:  # TLS has no half-closed connections
            return False
        self._close_when_answered()
        return True

    def _close_when_answered(self) -> None:
        """Close the connection soon, unless a request that has come before is being answered by then."""
        asyncio.get_running_loop().call_later(HALF_CLOSED_SECONDS, self._close_if_quiet)

    def _close_if_quiet(self) -> None:
        if self.is_quiet and self.transport is not None:
            self.transport.close()

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
            self.is_quiet, self.quiet_since = True, self._time()
            if self._ended:
                self._close_when_answered()

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
