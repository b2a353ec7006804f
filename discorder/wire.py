"""What passes between the gateway, the control plane and a bot: opcodes, the envelope, the event and its document.

A leaf: standard library and msgspec. Nothing here knows sockets, states or publishers.
"""

from __future__ import annotations

import builtins
import hashlib
import sys
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

API_VERSION = 10
MAX_SEND_BYTES = 4096  # of one client frame (gateway-protocol.md §2); above it the server closes with 4002
LARGE_THRESHOLD = 250  # the most Discord allows: guilds up to this size come with their offline members
MAX_PORT = 65_535
MAX_SEQ = 2**63 - 1  # a signed 64-bit integer; anything above is a breach, not a sequence


class Op(IntEnum):
    """Gateway opcodes (gateway-protocol.md §3)."""

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
    """One gateway frame with ``d`` left as the bytes that came: {op, s, t, d}."""

    op: int
    d: msgspec.Raw = msgspec.Raw()
    s: int | None = None
    t: str | None = None


_decode_envelope = msgspec.json.Decoder(Envelope).decode


def decode_envelope(frame: bytes) -> Envelope:
    """Parse one frame.

    Raises ValueError (msgspec's DecodeError and UnicodeDecodeError are both) for garbage, invalid UTF-8, a missing or
    mistyped ``op``, nesting beyond any reason and a sequence that is not a signed 64-bit integer. Unknown opcodes and keys
    pass.
    """
    if not frame.isascii():
        frame.decode()  # Raw skips over `d` without looking at its encoding
    try:
        envelope = _decode_envelope(frame)
    except RecursionError as error:
        msg = "the JSON is nested too deeply"
        raise ValueError(msg) from error
    if envelope.s is not None and not 0 <= envelope.s <= MAX_SEQ:
        msg = f"sequence {envelope.s} is not a signed 64-bit integer"
        raise ValueError(msg)
    return envelope


class Event(msgspec.Struct, gc=False):
    """One dispatch, on its way to the publishers, or one of the control plane's own records (`discorder.records`).

    ``data`` is Discord's ``d``, byte for byte. ``shard`` is (id, count). ``prev`` is the seq of the previous event of this type
    in this session on this shard, 0 for the first, None when unknown. ``session`` is `session_label` of Discord's session id.
    Two events with the same (session, seq) are the same event. In a record ``seq`` and ``prev`` are None, and ``session`` is
    None where there is none.
    """

    type: str
    shard: tuple[int, int]
    seq: int | None
    prev: int | None
    session: str | None
    received_at: datetime
    data: bytes
    _document: bytes | None = None

    @property
    def document(self) -> bytes:
        """The event as one JSON document (docs/delivery.md: the document), built once; ``data`` goes in untouched."""
        if self._document is None:
            session = self.session
            if self.seq is None or session is None:
                self._document = self._record_document()
            else:
                self._document = (
                    b'{"type":%b,"shard":[%d,%d],"seq":%d,"prev":%b,"session":"%b","timestamp":"%b","data":%b}'
                    % (
                        msgspec.json.encode(self.type),
                        self.shard[0],
                        self.shard[1],
                        self.seq,
                        b"null" if self.prev is None else b"%d" % self.prev,
                        session.encode(),
                        format_timestamp(self.received_at).encode(),
                        self.data,
                    )
                )
        return self._document

    def _record_document(self) -> bytes:
        return b'{"type":%b,"shard":[%d,%d],"seq":null,"prev":null,"session":%b,"timestamp":"%b","data":%b}' % (
            msgspec.json.encode(self.type),
            self.shard[0],
            self.shard[1],
            b"null" if self.session is None else b'"%b"' % self.session.encode(),
            format_timestamp(self.received_at).encode(),
            self.data,
        )


class ReceivedEvent(msgspec.Struct, frozen=True, rename={"raw": "data"}):
    """One event off the bus. ``data`` is Discord's ``d``, byte for byte, and is parsed only on demand.

    ``shard`` is (id, count). ``seq`` and ``prev`` are None in the control plane's own records (``DISCORDER_…``).
    A ``prev`` that is not the last ``seq`` of this type in this session on this shard shows a hole.
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
        """Discord's JSON as it came."""
        return bytes(self.raw)

    def json(self) -> Any:
        """``data`` as dicts, lists, strings and numbers."""
        return msgspec.json.decode(self.raw)

    def decode(self, into: builtins.type[T]) -> T:
        """``data`` as an ``into``, such as a `msgspec.Struct`. Raises `msgspec.ValidationError` where it does not fit."""
        return msgspec.json.decode(self.raw, type=into)

    def __repr__(self) -> str:
        return f"<{self.type} shard={self.shard[0]}/{self.shard[1]} seq={self.seq} data={len(self.data)} bytes>"


decode_document = msgspec.json.Decoder(ReceivedEvent).decode


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, e.g. ``2026-11-23T09:30:01.123456Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def replay_address(address: str) -> str:
    """Where a bus that publishes at ``address`` answers, unless it is configured otherwise: the next port, or path + ``.replay``.

    Raises ValueError for an address that has neither, and for the last port there is.
    """
    if address.startswith("ipc://"):
        return f"{address}.replay"
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < MAX_PORT:
        msg = f"there is no port after that of {address!r}"
        raise ValueError(msg)
    return f"{host}:{int(port) + 1}"


def session_label(session_id: str) -> str:
    """The name under which a session appears outside the process: 16 hex digits of the SHA-256 of Discord's id."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def shard_of_guild(guild_id: int | str, shard_count: int) -> int:
    """The shard that a guild belongs to: ``(guild_id >> 22) % shard_count`` (gateway-protocol.md §8).

    A snowflake may come as the string that JSON has. Raises ValueError for what is none.
    """
    number = int(guild_id)
    if number < 0:
        msg = f"{guild_id!r} is no snowflake"
        raise ValueError(msg)
    return (number >> 22) % shard_count


# ---------------------------------------------------------------- what the control plane sends


def heartbeat_frame(seq: int | None) -> bytes:
    """Op 1 with the last sequence received, null before the first (gateway-protocol.md §5)."""
    return b'{"op":1,"d":null}' if seq is None else b'{"op":1,"d":%d}' % seq


def identify_frame(token: str, *, intents: int, shard: tuple[int, int], compress: bool) -> bytes:
    """Op 2 (gateway-protocol.md §6). ``compress`` asks for payload compression."""
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
    """Op 6 (gateway-protocol.md §9)."""
    return msgspec.json.encode({"op": Op.RESUME, "d": {"token": token, "session_id": session_id, "seq": seq}})


def command_frame(op: int, d: Any) -> bytes:
    """A command of the bot's. Raises TypeError for what cannot be JSON, as `msgspec.json.encode` does."""
    return msgspec.json.encode({"op": op, "d": d})
