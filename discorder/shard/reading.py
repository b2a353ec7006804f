"""The few payloads of Discord's that the control plane itself reads: Hello, READY and op 9. Garbage in them is a breach."""

from __future__ import annotations

import msgspec

from discorder.errors import ProtocolBreach, SessionInvalidated
from discorder.statemachine import Session
from discorder.statemachine.triggers import InvalidResumable, InvalidSession


class _Hello(msgspec.Struct):
    heartbeat_interval: float


class _ReadyData(msgspec.Struct):
    session_id: str
    resume_gateway_url: str = ""


_decode_hello = msgspec.json.Decoder(_Hello).decode
_decode_ready = msgspec.json.Decoder(_ReadyData).decode
_decode_flag = msgspec.json.Decoder(bool).decode


def read_hello(d: msgspec.Raw) -> float:
    """The heartbeat interval in seconds. Raises `ProtocolBreach`."""
    try:
        milliseconds = _decode_hello(d).heartbeat_interval
    except ValueError as error:
        msg = f"Hello cannot be read: {error}"
        raise ProtocolBreach(msg) from error
    if not 0 < milliseconds < float("inf"):
        msg = f"Hello asks for a heartbeat interval of {milliseconds} ms"
        raise ProtocolBreach(msg)
    return milliseconds / 1000.0


def read_ready(d: bytes) -> Session:
    """The session that READY opens. Raises `ProtocolBreach`."""
    try:
        ready = _decode_ready(d)
        return Session(ready.session_id, ready.resume_gateway_url)
    except ValueError as error:
        msg = f"READY cannot be read: {error}"
        raise ProtocolBreach(msg) from error


def read_invalid_session(d: msgspec.Raw) -> InvalidSession | InvalidResumable:
    """What op 9 means, as a trigger. Raises `ProtocolBreach`."""
    try:
        resumable = _decode_flag(d)
    except ValueError as error:
        msg = f"op 9 cannot be read: {error}"
        raise ProtocolBreach(msg) from error
    if resumable:
        return InvalidResumable(SessionInvalidated("op 9 with d = true: Discord asks to resume on a new connection"))
    return InvalidSession(SessionInvalidated("op 9 with d = false: the session is invalid"))
