"""Parse the requests that readers of the bus send to the ROUTER, and build the answers. No socket, no state.

The protocol in full, for programs in other languages: ``docs/bus.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from discorder.publishers.zeromq.shard_log import Position
from discorder.wire import MAX_SEQ, format_timestamp

PROTOCOL_VERSION = 1
MAX_WAIT_SECONDS = 600.0  # of a command
MAX_FOLLOW_SECONDS = 60.0
MAX_FOLLOW_PARTS = 16  # below the number of messages that may wait for one client
MAX_REPORT_PARTS = 256
MAX_PLACES = 1_024  # shards of one `follow`
MAX_REQUEST_BYTES = 65_536  # of one frame; a gateway command itself may have 4,096
POSITION = "DISCORDER_POSITION"

Integer = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # every language of a client can hold it
Id = Annotated[str, Meta(max_length=64)] | Integer
Name = Annotated[str, Meta(max_length=100)]  # name of an event; Discord's longest has 38 characters
Names = Annotated[frozenset[Name], Meta(max_length=1_000)]
ShardId = Annotated[int, Meta(ge=0, le=1 << 32)]
Session = Annotated[str, Meta(max_length=64)]  # a label has some 16 characters
GuildId = Annotated[str, Meta(max_length=20)] | Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # a snowflake
Frames = tuple[bytes, bytes, bytes]  # id, topic ("" in the last frame of an answer), document


class BadRequest(ValueError):
    """Report an invalid request; the text is the reason, ``id`` the id of the request."""

    def __init__(self, message: str, *, error: str = "bad_request", id: bytes = b"") -> None:  # noqa: A002
        super().__init__(message)
        self.error = error
        self.id = id


class _Base(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    v: Integer
    id: Id

    @property
    def id_frame(self) -> bytes:
        """Return the first frame of every part of the answer: the id as text."""
        return str(self.id).encode()


class ReplayMessage(_Base, frozen=True, kw_only=True, tag="replay"):
    """Request all documents of one shard after ``after`` of ``session``; without a session, all that are held."""

    shard: ShardId
    session: Session | None = None
    after: Annotated[int, Meta(ge=0, le=MAX_SEQ)] = 0
    types: Names | None = None


class ReadyRequest(_Base, frozen=True, kw_only=True, tag="ready"):
    """Request the last READY of one shard."""

    shard: ShardId


class GuildsRequest(_Base, frozen=True, kw_only=True, tag="guilds"):
    """Request the guilds of one shard as they are now; without ``shard`` the list of shards."""

    shard: ShardId | None = None


class PositionsRequest(_Base, frozen=True, kw_only=True, tag="positions"):
    """Request the position of every shard."""


class FollowedPlace(msgspec.Struct, frozen=True, array_like=True):
    """The place up to which a reader has the events of a shard; ``session`` "": it has none."""

    shard: ShardId
    session: Session
    after: Annotated[int, Meta(ge=-1, le=MAX_SEQ)]


class FollowRequest(_Base, frozen=True, kw_only=True, tag="follow"):
    """Request the next events of the journal after the places of all shards, as they come, for ``wait_s`` seconds.

    ``count``: the number of shards that the reader knows of, 0 = it knows none. The answer has at most ``parts`` parts.
    """

    places: Annotated[tuple[FollowedPlace, ...], Meta(max_length=MAX_PLACES)] = ()
    count: ShardId = 0
    wait_s: Annotated[float, Meta(ge=0, le=MAX_FOLLOW_SECONDS)] = 0.0
    parts: Annotated[int, Meta(ge=1, le=MAX_FOLLOW_PARTS)] = 1


class CommandRequest(_Base, frozen=True, kw_only=True, tag="command"):
    """Request that a command is sent to Discord. ``shard`` and ``guild_id`` None: all shards.

    ``wait_s``: how long it may wait for Discord's limits and for a session.
    """

    command: Annotated[str, Meta(max_length=64)]
    shard: ShardId | None = None
    guild_id: GuildId | None = None
    d: Any = None
    wait_s: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] = 0.0


class FacadeReportRequest(_Base, frozen=True, kw_only=True, tag="facade_report"):
    """Report the bots of a façade in a process of its own, in ``parts`` pieces that come one after the other.

    ``door`` is another text in each process.
    """

    door: Annotated[str, Meta(min_length=1, max_length=64)]
    status: msgspec.Raw
    part: Annotated[int, Meta(ge=0)] = 0
    parts: Annotated[int, Meta(ge=1, le=MAX_REPORT_PARTS)] = 1


Request = (
    ReplayMessage
    | ReadyRequest
    | GuildsRequest
    | PositionsRequest
    | FollowRequest
    | CommandRequest
    | FacadeReportRequest
)


class _OnlyId(msgspec.Struct):
    id: Id = ""
    v: Integer = PROTOCOL_VERSION


_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_decode_id = msgspec.json.Decoder(_OnlyId).decode


def parse(frames: list[bytes]) -> Request:
    """Return the request in the frames after the client's identity. Raises `BadRequest`."""
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
    """Return the last part of a successful answer."""
    return id_frame, b"", msgspec.json.encode({"ok": True, **fields})


def refusal(id_frame: bytes, error: str, message: str, retry_after: float | None = None) -> Frames:
    """Return the only part of a refusal: ``error`` is one word, ``retry_after`` is in seconds if waiting helps."""
    fields: dict[str, object] = {"ok": False, "error": error, "message": message}
    if retry_after is not None:
        fields["retry_after"] = retry_after
    return id_frame, b"", msgspec.json.encode(fields)


def position_fields(position: Position) -> dict[str, object]:
    """Return a position as JSON fields."""
    return {"since": position.since, "last": position.last, "types": position.types}


def position_document(position: Position, now: datetime) -> bytes:
    """Return the record with the position of a shard for subscribers."""
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
