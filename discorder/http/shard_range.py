"""Read the query ``shards`` of `/status.json`, with which a program reads the shards of a large bot in parts."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
from aiohttp import web

from discorder.http.answers import RequestRefused
from discorder.status.document import StatusDocument

_RANGE = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?", re.ASCII)


def wanted_shards(request: web.Request) -> range | None:
    """Return the ids that the query asks for, None for all. Raises `RequestRefused` for another form than 7 or 0-99."""
    text = request.query.get("shards")
    if text is None:
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        raise RequestRefused(
            HTTPStatus.BAD_REQUEST, "the query shards must be the id of a shard or a range, such as 0-99"
        )
    first = int(match["first"])
    return range(first, int(match["last"] or first) + 1)


def with_shards(document: StatusDocument, wanted: range | None) -> StatusDocument:
    """Return ``document`` with the shards in ``wanted`` alone (None: all); the rest of it is about all."""
    if wanted is None:
        return document
    return msgspec.structs.replace(document, shards=[shard for shard in document.shards if shard.id in wanted])
