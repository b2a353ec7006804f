"""Decode the payloads that the control plane itself needs: Hello, READY and op 9. An unreadable one is a breach."""

from __future__ import annotations

import msgspec

from discorder.errors import ProtocolBreach, SessionInvalidated
from discorder.lenient_json import split_object
from discorder.statemachine import Session
from discorder.statemachine.triggers import InvalidResumable, InvalidSession

LEAST_INTERVAL_MS = 100  # Discord accepts 120 frames a minute, so it never requests more than 600 heartbeats
MOST_INTERVAL_MS = 3_600_000  # a dead connection is noticed after 1.5 intervals; a longer interval is useless
DEFAULT_INTERVAL = 41.25  # seconds, as Discord's; used after the second unusable Hello
MAX_SESSION_ID = 1_024  # characters; Discord's have 32, and RESUME must fit into 4,096 bytes beside the token
MAX_RESUME_URL = 2_048  # characters; no host name is longer than 255


class _Hello(msgspec.Struct):
    heartbeat_interval: float


class _Ready(msgspec.Struct):
    session_id: msgspec.Raw = msgspec.Raw(b"null")
    resume_gateway_url: msgspec.Raw = msgspec.Raw(b"null")


_decode_hello = msgspec.json.Decoder(_Hello).decode
_decode_ready = msgspec.json.Decoder(_Ready).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_flag = msgspec.json.Decoder(bool | None).decode


def read_hello(d: msgspec.Raw) -> float:
    """Return the heartbeat interval in seconds. Raises `ProtocolBreach` if it is missing or impossible."""
    try:
        milliseconds = _decode_hello(d).heartbeat_interval
    except (ValueError, RecursionError) as error:
        msg = f"Hello cannot be read: {error}"
        raise ProtocolBreach(msg) from error
    if not LEAST_INTERVAL_MS <= milliseconds <= MOST_INTERVAL_MS:
        allowed = f"{LEAST_INTERVAL_MS} to {MOST_INTERVAL_MS}"
        msg = f"Hello asks for a heartbeat interval of {milliseconds:g} ms; {allowed} are possible"
        raise ProtocolBreach(msg)
    return milliseconds / 1000.0


def read_ready(d: bytes) -> Session:
    """Return the session that READY opens. Only ``session_id`` is needed: without a resume URL the main host is dialled.

    Raises `ProtocolBreach`.
    """
    try:
        ready = _split_ready(d)
        session_id = _decode_text(ready.session_id)
        if not 0 < len(session_id) <= MAX_SESSION_ID:
            msg = f"the session id has {len(session_id)} characters; 1 to {MAX_SESSION_ID} are possible"
            raise ValueError(msg)
    except ValueError as error:
        msg = f"READY cannot be read: {error}"
        raise ProtocolBreach(msg) from error
    return Session(session_id, _read_resume_url(ready.resume_gateway_url))


def _split_ready(d: bytes) -> _Ready:
    """Find the two members, even in JSON that msgspec rejects. Raises ValueError."""
    try:
        return _decode_ready(d)
    except (
        msgspec.MsgspecError,
        RecursionError,
    ):  # its expression takes 50 ms to compile, which must not delay READY
        members = split_object(d)
    return _Ready(
        *(msgspec.Raw(members.get(b'"%b"' % name, b"null")) for name in (b"session_id", b"resume_gateway_url"))
    )


def read_invalid_session(d: msgspec.Raw) -> InvalidSession | InvalidResumable:
    """Return the trigger for op 9; without ``d`` the session is invalid. Raises `ProtocolBreach`."""
    try:
        resumable = _decode_flag(d) if bytes(d) else False
    except ValueError as error:
        msg = f"op 9 cannot be read: {error}"
        raise ProtocolBreach(msg) from error
    if resumable:
        return InvalidResumable(SessionInvalidated("op 9 with d = true: Discord asks to resume on a new connection"))
    return session_is_gone()


def session_is_gone() -> InvalidSession:
    """Return the trigger for an op 9 that allows no RESUME."""
    return InvalidSession(SessionInvalidated("op 9 with d = false: the session is invalid"))


def _read_resume_url(value: bytes) -> str:
    """Return the URL, "" if the value is not a URL."""
    try:
        url = _decode_text(value)
    except msgspec.DecodeError:
        return ""
    return url if len(url) <= MAX_RESUME_URL else ""
