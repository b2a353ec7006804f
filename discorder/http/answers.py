"""Form the responses: JSON documents, sentences, and refusals."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import hdrs, web

from discorder.escapes import escape_json

JSON = "application/json"
GZIP_FROM = 1400  # bytes; a shorter document fits into one packet
GZIP_LEVEL = 1  # a status document shrinks to a tenth; higher levels take three times as long for little more
THREAD_FROM = 32_768  # bytes; compressing more would hold up the loop for a millisecond


class RequestRefused(Exception):
    """A request is not carried out. Carries the HTTP status, a sentence for the client, and headers."""

    def __init__(self, status: HTTPStatus, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return the response to the client."""
        return answer({"error": str(self)}, status=self.status, headers=self.headers)


def answer(document: object, *, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return ``document`` as a JSON response."""
    return web.Response(
        body=escape_json(msgspec.json.encode(document)), status=status, headers=dict(headers or {}), content_type=JSON
    )


async def compressed(request: web.BaseRequest, body: bytes, content_type: str) -> web.Response:
    """Return ``body``, with gzip if the client takes it."""
    response = web.Response(content_type=content_type, headers={hdrs.VARY: hdrs.ACCEPT_ENCODING})
    if len(body) >= GZIP_FROM and takes_gzip(request):
        response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        if len(body) < THREAD_FROM:
            body = gzip.compress(body, GZIP_LEVEL)
        else:
            body = await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL)
    response.body = body
    return response


def takes_gzip(request: web.BaseRequest) -> bool:
    """Return whether the header Accept-Encoding names gzip, with a weight that is not zero."""
    for item in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        name, _, weight = item.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" if weight else True
    return False
