"""Define the data exchanged between gateway, control plane and bot: opcodes, frames, events and their documents."""

from __future__ import annotations

import builtins
import hashlib
import json
import sys
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

from discorder.lenient_json import split_object

T = TypeVar("T")

API_VERSION = 10
MAX_SEND_BYTES = 4096  # of one client frame (docs/protocol.md#frames); above it the server closes with 4002
MAX_REQUESTED = 100  # user_ids, or members by prefix, in one request (docs/protocol.md#request-guild-members)
LARGE_THRESHOLD = 250  # the most Discord allows: guilds up to this size come with their offline members
RESUMABLE_CLOSE = 4000  # our close code: any code but 1000 and 1001 keeps the session
GOODBYE_CLOSE = 1000  # ends the session at once (docs/protocol.md#closing-a-connection)
MAX_PORT = 65_535
MAX_SEQ = 2**63 - 1  # a signed 64-bit integer; anything above is a breach, not a sequence


class Op(IntEnum):
    """Name the gateway opcodes (docs/protocol.md#opcodes)."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE_UPDATE = 3
    VOICE_STATE_UPDATE = 4
    RESUME = 6
    RECONNECT = 7
    REQUEST_GUILD_MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11
    REQUEST_SOUNDBOARD_SOUNDS = 31
    REQUEST_CHANNEL_INFO = 43


class Envelope(msgspec.Struct, gc=False):
    """Hold one gateway frame {op, s, t, d}, with ``d`` as the bytes received."""

    op: int
    d: msgspec.Raw = msgspec.Raw()
    s: int | None = None
    t: str | None = None


parse_envelope = msgspec.json.Decoder(Envelope).decode  # for frames that are UTF-8; see `decode_envelope`
_decode_integer = msgspec.json.Decoder(int).decode


def decode_envelope(frame: bytes) -> Envelope:
    """Parse one frame.

    ``d`` may be any JSON value; a ``t`` that is not a string becomes None; unknown opcodes and keys pass.
    Raises ValueError if ``frame`` is not a JSON object in UTF-8, if ``op`` is missing or mistyped, and if the sequence is not a
    signed 64-bit integer.
    """
    if not frame.isascii():
        frame.decode()  # Raw does not check the encoding of `d`
    try:
        envelope = parse_envelope(frame)
    except (msgspec.DecodeError, RecursionError):
        envelope = _split_envelope(frame)
    if envelope.s is not None and not 0 <= envelope.s <= MAX_SEQ:
        msg = f"the sequence {str(envelope.s)[:20]} is not a signed 64-bit integer"
        raise ValueError(msg)
    return envelope


def _split_envelope(frame: bytes) -> Envelope:
    """Parse a frame that msgspec rejects although its ``d`` may be valid JSON (see `discorder.lenient_json`)."""
    members = split_object(frame)
    if b'"op"' not in members:
        msg = "the frame has no op"
        raise ValueError(msg)
    op = _decode_integer(members[b'"op"'])
    seq = msgspec.json.decode(members.get(b'"s"', b"null"), type=int | None)
    try:
        kind = msgspec.json.decode(members.get(b'"t"', b"null"), type=str | None)
    except msgspec.DecodeError:
        kind = None
    return Envelope(op, msgspec.Raw(members.get(b'"d"', b"")), seq, kind)


class StreamPosition(NamedTuple):
    """Name a position in the event stream of a shard: the label of a session (`session_label`), and a sequence in it."""

    session: str
    seq: int


class Event(msgspec.Struct, gc=False, eq=False):
    """Hold one dispatch for the publishers, or one of the control plane's own records (`discorder.records`).

    ``data`` is Discord's ``d``, byte for byte. ``shard`` is (id, count). ``prev`` is the seq of the previous event of this type
    in this session on this shard, 0 for the first, None when unknown. ``session`` is `session_label` of Discord's session id.
    Two events with the same (session, seq) are the same event. In a record ``seq`` and ``prev`` are None; ``session`` may be.
    """

    type: str
    shard: tuple[int, int]
    seq: int | None
    prev: int | None
    session: str | None
    received_at: datetime
    data: bytes
    _head: bytes = b""  # `document_head` and `document_middle` if known: most events share them
    _middle: bytes = b""
    _document: bytes | None = None

    @property
    def document(self) -> bytes:
        """Return the event as one JSON document (docs/delivery.md: the document), built once; ``data`` is unchanged."""
        if self._document is None:
            seq, prev = self.seq, self.prev
            head = self._head or document_head(self.type, self.shard)
            middle = self._middle or document_middle(self.session, self.received_at)
            if seq is None or prev is None:
                shown = b"null" if seq is None else b"%d" % seq
                self._document = b'%b%b,"prev":null%b%b}' % (head, shown, middle, self.data)
            else:
                self._document = b'%b%d,"prev":%d%b%b}' % (head, seq, prev, middle, self.data)
        return self._document

    def __eq__(self, other: object) -> bool:
        """Compare the published fields, not the cached parts of the document."""
        return isinstance(other, Event) and self.document == other.document

    __hash__ = None  # type: ignore[assignment]  # an event is mutable


def document_head(name: str, shard: tuple[int, int]) -> bytes:
    """Return the beginning of an event's document, up to its ``seq``."""
    return b'{"type":%b,"shard":[%d,%d],"seq":' % (msgspec.json.encode(name), *shard)


def document_middle(session: str | None, received_at: datetime) -> bytes:
    """Return the part of a document between ``prev`` and ``data``."""
    label = b"null" if session is None else b'"%b"' % session.encode()
    return b',"session":%b,"timestamp":"%b","data":' % (label, format_timestamp(received_at).encode())


class ReceivedEvent(msgspec.Struct, frozen=True, rename={"raw": "data"}):
    """Hold one event from the bus. ``data`` is Discord's ``d``, byte for byte, and is parsed only on demand.

    ``shard`` is (id, count). ``seq`` and ``prev`` are None in the control plane's own records (``DISCORDER_…``).
    A ``prev`` that is not the last ``seq`` of this type in this session on this shard shows a gap.
    """

    type: str
    shard: tuple[int, int]
    seq: int | None
    prev: int | None
    session: str | None
    timestamp: datetime
    raw: msgspec.Raw

    @property
    def data(self) -> bytes:
        """Return Discord's JSON, unchanged."""
        return bytes(self.raw)

    def json(self) -> Any:
        """Decode ``data``. Raises ValueError for a value that Python cannot represent, such as 1,100 nested lists."""
        try:
            return msgspec.json.decode(self.raw)
        except (msgspec.DecodeError, RecursionError):
            return _decode_leniently(self.data)

    def decode(self, into: builtins.type[T]) -> T:
        """Decode ``data`` as an ``into``, such as a `msgspec.Struct`. Raises `msgspec.ValidationError` if it does not match."""
        return msgspec.json.decode(self.raw, type=into)

    def __repr__(self) -> str:
        return f"<{self.type} shard={self.shard[0]}/{self.shard[1]} seq={self.seq} data={len(self.data)} bytes>"


_decode_document = msgspec.json.Decoder(ReceivedEvent).decode


def decode_document(document: bytes) -> ReceivedEvent:
    """Parse one document from the bus. Its ``data`` may be any JSON value. Raises ValueError."""
    try:
        return _decode_document(document)
    except (msgspec.DecodeError, RecursionError):
        members = split_object(document)
        data = members.pop(b'"data"', b"")
        rest = b",".join(b"%b:%b" % member for member in members.items())
        return msgspec.structs.replace(_decode_document(b'{%b,"data":null}' % rest), raw=msgspec.Raw(data))


def decode_leniently(data: bytes, into: type[T]) -> T:
    """Decode ``data`` as an ``into``; accept a lone surrogate, which msgspec rejects. Raises ValueError if it does not fit."""
    try:
        return msgspec.json.decode(data, type=into)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError):
        return msgspec.convert(_decode_leniently(data), into)


def _decode_leniently(data: bytes) -> Any:
    """Decode with the standard library, which accepts lone surrogates and reads a number beyond a double as infinity."""
    try:
        return json.loads(data)
    except RecursionError as error:
        msg = "the JSON is nested too deeply for Python"
        raise ValueError(msg) from error


_latest_second = [(datetime.min.replace(tzinfo=UTC), "")]  # the last second and its text: one tuple, for threads


def format_timestamp(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC with microseconds, e.g. ``2026-11-23T09:30:01.123456Z``."""
    second, text = _latest_second[0]
    since = moment - second
    if since.days or since.seconds:
        second = moment.astimezone(UTC).replace(microsecond=0)
        text = second.strftime("%Y-%m-%dT%H:%M:%S.")
        _latest_second[0] = second, text
    return f"{text}{moment.microsecond:06d}Z"


def default_members_limit(query: str) -> int:
    """Return the limit of a request for members that names none: as many as Discord gives for a query, 0 (all) without one."""
    return MAX_REQUESTED if query else 0


def replay_address(address: str) -> str:
    """Return the default request address of a bus that publishes at ``address``: the next port, or path + ``.replay``.

    Raises ValueError for an address with neither, and for the last port.
    """
    if address.startswith("ipc://"):
        return f"{address}.replay"
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < MAX_PORT:
        msg = f"there is no port after that of {address!r}"
        raise ValueError(msg)
    return f"{host}:{int(port) + 1}"


def session_label(session_id: str, ordinal: int = 0) -> str:
    """Return the name under which a session appears outside the process: 16 hex digits of the SHA-256 of Discord's id.

    ``ordinal`` numbers the sessions with this id, from 0. Discord repeats no id, a restarted test server may.
    """
    text = f"{session_id}\0{ordinal}" if ordinal else session_id
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shard_of_guild(guild_id: int | str, shard_count: int) -> int:
    """Return the shard of a guild: ``(guild_id >> 22) % shard_count`` (docs/protocol.md#sharding).

    Takes an int or JSON's string. Raises ValueError for a value that is not a snowflake.
    """
    number = int(guild_id)
    if number < 0:
        msg = f"{guild_id!r} is no snowflake"
        raise ValueError(msg)
    return (number >> 22) % shard_count


def heartbeat_frame(seq: int | None) -> bytes:
    """Return op 1 with the last sequence received, null before the first (docs/protocol.md#heartbeats)."""
    return b'{"op":1,"d":null}' if seq is None else b'{"op":1,"d":%d}' % seq


def identify_frame(token: str, *, intents: int, shard: tuple[int, int], compress: bool) -> bytes:
    """Return op 2 (docs/protocol.md#identify). ``compress`` requests payload compression."""
    properties = {"os": sys.platform, "browser": "discorder", "device": "discorder"}
    return msgspec.json.encode(
        {
            "op": Op.IDENTIFY,
            "d": {
                "token": token,
                "properties": properties,
                "intents": intents,
                "shard": shard,
                "compress": compress,
                "large_threshold": LARGE_THRESHOLD,
            },
        }
    )


def resume_frame(token: str, *, session_id: str, seq: int) -> bytes:
    """Return op 6 (docs/protocol.md#resume)."""
    return msgspec.json.encode({"op": Op.RESUME, "d": {"token": token, "session_id": session_id, "seq": seq}})


def command_frame(op: int, d: Any) -> bytes:
    """Return a command of the bot. Raises TypeError for a value without a JSON form, as `msgspec.json.encode` does."""
    return msgspec.json.encode({"op": op, "d": d})
