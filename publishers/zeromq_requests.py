"""What a reader of the bus may ask through the ROUTER, and how it is answered: JSON in, frames out. No socket, no state.

The protocol in full, for programs in other languages: ``docs/bus.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from discorder.publishers.zeromq_ring import Position
from discorder.wire import MAX_SEQ, format_timestamp

PROTOCOL_VERSION = 1
MAX_REQUEST_BYTES = 65_536  # of one frame; a gateway command itself may have 4,096
POSITION = "DISCORDER_POSITION"

Id = Annotated[str, Meta(max_length=64)] | int
Names = Annotated[frozenset[str], Meta(max_length=1_000)]
ShardId = Annotated[int, Meta(ge=0, le=1 << 32)]
Frames = tuple[bytes, bytes, bytes]  # id, topic ("" in the last frame of an answer), document


class BadRequest(ValueError):
    """A request that cannot be understood; the text says why, ``id`` to which one the answer belongs."""

    def __init__(self, message: str, *, error: str = "bad_request", id: bytes = b"") -> None:  # noqa: A002
        super().__init__(message)
        self.error = error
        self.id = id


class _Base(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    v: int
    id: Id

    @property
    def id_frame(self) -> bytes:
        """The first frame of every part of the answer: the id as text."""
        return str(self.id).encode()


class ReplayRequest(_Base, frozen=True, kw_only=True, tag="replay"):
    """Everything of one shard that came after ``after`` of ``session``; without a session, everything that is held."""

    shard: ShardId
    session: str | None = None
    after: Annotated[int, Meta(ge=0, le=MAX_SEQ)] = 0
    types: Names | None = None


class ReadyRequest(_Base, frozen=True, kw_only=True, tag="ready"):
    """The last READY of one shard."""

    shard: ShardId


class PositionsRequest(_Base, frozen=True, kw_only=True, tag="positions"):
    """Which shards there are and how far each has come."""


class CommandRequest(_Base, frozen=True, kw_only=True, tag="command"):
    """Something to be sent to Discord. ``shard`` and ``guild_id`` None: all shards."""

    command: str
    shard: ShardId | None = None
    guild_id: str | int | None = None
    d: Any = None


Request = ReplayRequest | ReadyRequest | PositionsRequest | CommandRequest


class _OnlyId(msgspec.Struct):
    id: Id = ""
    v: int = PROTOCOL_VERSION


_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_decode_id = msgspec.json.Decoder(_OnlyId).decode


def parse(frames: list[bytes]) -> Request:
    """The request in the frames behind the client's identity. Raises `BadRequest`."""
    if len(frames) != 1:
        msg = f"a request is one frame of JSON, this one has {len(frames)} frames"
        raise BadRequest(msg)
    try:
        request = _decoder.decode(frames[0])
    except (ValueError, RecursionError) as error:
        raise _explained(frames[0], error) from error
    if request.v != PROTOCOL_VERSION:
        raise _unknown_version(request.v, request.id_frame)
    return request


def answer(id_frame: bytes, fields: Mapping[str, object]) -> Frames:
    """The last part of an answer that went well."""
    return id_frame, b"", msgspec.json.encode({"ok": True, **fields})


def refusal(id_frame: bytes, error: str, message: str, retry_after: float | None = None) -> Frames:
    """The only part of an answer that did not: ``error`` is one word, ``retry_after`` in seconds where waiting helps."""
    fields: dict[str, object] = {"ok": False, "error": error, "message": message}
    if retry_after is not None:
        fields["retry_after"] = retry_after
    return id_frame, b"", msgspec.json.encode(fields)


def position_fields(position: Position) -> dict[str, object]:
    """A position as it stands in JSON."""
    return {"since": position.since, "last": position.last, "types": position.types}


def position_document(position: Position, now: datetime) -> bytes:
    """The record that tells subscribers how far a shard has come."""
    return msgspec.json.encode(
        {
            "type": POSITION,
            "shard": position.shard,
            "seq": None,
            "prev": None,
            "session": position.session,
            "timestamp": format_timestamp(now),
            "data": position_fields(position),
        }
    )


def _explained(frame: bytes, error: Exception) -> BadRequest:
    try:
        known = _decode_id(frame)
    except (ValueError, RecursionError):
        return BadRequest(str(error) or type(error).__name__)
    id_frame = str(known.id).encode()
    if known.v != PROTOCOL_VERSION:
        return _unknown_version(known.v, id_frame)
    return BadRequest(str(error) or type(error).__name__, id=id_frame)


def _unknown_version(version: int, id_frame: bytes) -> BadRequest:
    msg = f"this bus speaks version {PROTOCOL_VERSION}, not {version}"
    return BadRequest(msg, error="unsupported_version", id=id_frame)
