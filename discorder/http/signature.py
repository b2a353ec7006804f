"""Sign a request with the operator token, so that the token itself reaches no program that only holds the port.

The value of the Authorization header is ``Discorder TIME.NONCE.SIGNATURE``: Unix time in seconds, 32 hexadecimal digits, and the
HMAC-SHA256 of both, method, path and body.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time

SCHEME = "Discorder"
VALID_SECONDS = 60  # that a signature is valid before and after its time

_FORM = re.compile(r"(?P<at>\d{1,12})\.(?P<nonce>[0-9a-f]{32})\.(?P<signature>[0-9a-f]{64})", re.ASCII)


def sign_request(token: str, method: str, path: str, body: bytes = b"") -> str:
    """Return the value of the Authorization header for one request, which is valid now and once."""
    at, nonce = str(int(time.time())), secrets.token_hex(16)
    return f"{SCHEME} {at}.{nonce}.{_signature(token, at, nonce, method, path, body)}"


class SignatureCheck:
    """Checks signatures and remembers those that were used, until they would be too old anyway."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._used: dict[str, int] = {}  # nonce to the time of its signature

    def problem(self, value: str, method: str, path: str, body: bytes) -> str | None:
        """Return why the signature ``value`` is not valid, "" if its token is another one, None if it is valid."""
        match = _FORM.fullmatch(value)
        if match is None:
            return f"the signature must have the form {SCHEME} TIME.NONCE.SIGNATURE"
        at, nonce = match["at"], match["nonce"]
        if not hmac.compare_digest(match["signature"], _signature(self._token, at, nonce, method, path, body)):
            return ""
        now = time.time()
        if abs(now - int(at)) > VALID_SECONDS:
            return f"the signature is {abs(now - int(at)):.0f} s off; set the clocks of both machines"
        if nonce in self._used:
            return "the signature was used before; send the command again"
        self._used = {one: then for one, then in self._used.items() if then >= now - VALID_SECONDS} | {nonce: int(at)}
        return None


def _signature(token: str, at: str, nonce: str, method: str, path: str, body: bytes) -> str:
    head = "\n".join(("discorder request", at, nonce, method, path, "")).encode()
    return hmac.new(token.encode(), head + body, hashlib.sha256).hexdigest()
