"""Decide who may request what: host names, peers, the operator token, the login cookie, and the limit of failed attempts."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import hdrs, web

from discorder.config import Config
from discorder.http.answers import RequestRefused
from discorder.http.signature import SCHEME, SignatureCheck, sign_request
from discorder.logs import logger
from discorder.transport import is_loopback
from discorder.transport.address import ip_address

LOGIN_SECONDS = 7 * 24 * 3600  # that a login cookie is valid
ATTEMPTS = 10  # failed ones in ATTEMPT_SECONDS, from one address
ATTEMPT_SECONDS = 60.0
ADDRESSES_KEPT = 1024  # with failed attempts; beyond that the oldest is forgotten
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")  # headers of a proxy: the peer is not the reader

HEADERS = {  # of every response; the page sets a policy of its own
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Requester:
    """Who sends a request. ``local``: this machine, without a proxy between; it may read without a login."""

    address: str
    local: bool


class HttpSecurity:
    """The rules of one server. ``token`` is None without operator commands; ``reason`` says why then."""

    def __init__(self, config: Config, token: str | None, reason: str = "") -> None:
        http = config.http
        self._names = {*http.hosts}
        if http.address is not None and not http.address.serves_all:
            self._names.add(http.address.host)
        self._secure = http.scheme == "https"
        self._token = token
        self._signatures = SignatureCheck(token or "")
        self._reason = reason
        self._attempts = _FailedAttempts(time.monotonic)

    @property
    def has_token(self) -> bool:
        """Whether there are operator commands and a login."""
        return self._token is not None

    def client(self, request: web.BaseRequest) -> Requester:
        """Return who sends the request. Raises `RequestRefused` for a foreign host name (DNS rebinding)."""
        name = self._checked_host(request)
        peer = _address(request.transport, "peername")
        local = is_loopback(peer) and is_own(name) and not any(header in request.headers for header in FORWARDED)
        return Requester(peer, local)

    def may_read(self, request: web.BaseRequest, client: Requester) -> bool:
        """Return whether the client may see the status. Raises `RequestRefused` for a wrong token."""
        return client.local or self._has_token(request, client) or self._has_cookie(request)

    def require_reader(self, request: web.BaseRequest, client: Requester) -> None:
        """Raise `RequestRefused` unless the client may see the status."""
        if not self.may_read(request, client):
            raise _unauthorized(
                "from another host, log in at /login, or send the operator token as Authorization: Bearer TOKEN"
            )

    def require_operator(self, request: web.BaseRequest, client: Requester, body: bytes) -> None:
        """Raise `RequestRefused` unless the request has the operator token, is signed with it, or comes from our own page.

        A command of the page has a login cookie. ``body`` is that of a request that `is_signed`.
        """
        self.require_token()
        same_origin = check_origin(request)
        if self._has_token(request, client, body):
            return
        if not self._has_cookie(request):
            raise _unauthorized("operator commands need the operator token as Authorization: Bearer TOKEN")
        if not same_origin:
            raise RequestRefused(
                HTTPStatus.FORBIDDEN, "a command with a login cookie must come from the status page itself"
            )

    def require_token(self) -> None:
        """Raise `RequestRefused` if there is no operator token."""
        if self._token is None:
            raise RequestRefused(HTTPStatus.FORBIDDEN, f"this control plane has no operator token: {self._reason}")

    def check_token(self, token: str, client: Requester) -> None:
        """Raise `RequestRefused` unless ``token`` is the operator token, in a time that does not depend on its characters."""
        if self._token is not None and hmac.compare_digest(token.encode(errors="replace"), self._token.encode()):
            return  # also after many wrong ones: a lock would let any client of this address keep the operator out
        wait = self._attempts.wait(client.address)
        if wait > 0:
            raise RequestRefused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"the operator token is wrong, as were many from {client.address}; try again in {wait:.0f} s",
                {"Retry-After": str(round(wait) or 1)},
            )
        self._attempts.failed(client.address)
        logger.warning("A wrong operator token was refused", peer=client.address)
        raise _unauthorized("the operator token is wrong; the right one is in the file of http.operator_token_file")

    def sign(self, method: str, path: str, body: bytes) -> str:
        """Return the value of the header Authorization for a request to another process with the same token."""
        return sign_request(self._token or "", method, path, body)

    def log_in(self, response: web.StreamResponse, request: web.BaseRequest) -> None:
        """Set the login cookie, which a browser then sends with the page and its event stream."""
        until = int(time.time()) + LOGIN_SECONDS
        response.set_cookie(
            self._cookie_name(request),
            f"{until}.{self._signature(until)}",
            max_age=LOGIN_SECONDS,
            httponly=True,
            samesite="Strict",
            secure=self._secure,
        )

    def _checked_host(self, request: web.BaseRequest) -> str:
        name = requested_host(request)
        if is_own(name) or name in self._names or name == _address(request.transport, "sockname"):
            return name
        raise RequestRefused(
            HTTPStatus.MISDIRECTED_REQUEST,
            f"this control plane is not known by the name {name[:100]}; if that is a name of this machine, add it to http.hosts",
        )

    def _has_token(self, request: web.BaseRequest, client: Requester, body: bytes = b"") -> bool:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self.require_token()
            self.check_token(value.strip(), client)
            return True
        if not is_signed(request):
            return False
        self.require_token()
        problem = self._signatures.problem(value.strip(), request.method, request.path, body)
        if problem == "":
            self.check_token("", client)  # counts and answers like another wrong token
        if problem is not None:
            raise _unauthorized(problem)
        return True

    def _has_cookie(self, request: web.BaseRequest) -> bool:
        value = request.cookies.get(self._cookie_name(request), "")
        until, _, signature = value.partition(".")
        if self._token is None or not (until.isascii() and until.isdecimal() and len(until) < 12):
            return False
        valid = hmac.compare_digest(signature.encode(errors="replace"), self._signature(int(until)).encode())
        return valid and time.time() < int(until)

    def _signature(self, until: int) -> str:
        """Sign a login without storing it: it is valid after a restart, and void once the token is another one."""
        return hmac.new((self._token or "").encode(), f"discorder login {until}".encode(), hashlib.sha256).hexdigest()

    def _cookie_name(self, request: web.BaseRequest) -> str:
        """Return a name with the port: a browser sends the cookies of a host to all its ports."""
        sockname = None if request.transport is None else request.transport.get_extra_info("sockname")
        prefix = "__Host-" if self._secure else ""
        return f"{prefix}discorder-{sockname[1] if sockname else 0}"


class _FailedAttempts:
    """Counts wrong tokens per address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()  # begin of the minute, count

    def wait(self, address: str) -> float:
        """Return the seconds until the address may try again, 0 if it may now."""
        began, count = self._failed.get(address, (0.0, 0))
        rest = began + ATTEMPT_SECONDS - self._clock()
        return rest if count >= ATTEMPTS and rest > 0 else 0.0

    def failed(self, address: str) -> None:
        now = self._clock()
        began, count = self._failed.pop(address, (now, 0))
        self._failed[address] = (began, count + 1) if now - began < ATTEMPT_SECONDS else (now, 1)
        if len(self._failed) > ADDRESSES_KEPT:
            self._failed.popitem(last=False)


def add_headers(response: web.StreamResponse) -> None:
    """Set the headers of every response, except those that it has already."""
    response.headers[hdrs.SERVER] = "discorder"  # aiohttp names itself and Python
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def refuse_cross_site(request: web.BaseRequest) -> None:
    """Raise `RequestRefused` for a page of another site, which could use up the event streams without reading them."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise RequestRefused(
            HTTPStatus.FORBIDDEN, "a page of another site may not request this; open it in a tab of its own"
        )


def requested_host(request: web.BaseRequest) -> str:
    """Return the host of the header Host, without a port. Raises `RequestRefused` unless there is exactly one."""
    given = request.headers.getall("Host", [])
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "the request must have one Host header with a host name")
    return (match["v6"] or match["name"]).lower().rstrip(".")


def is_signed(request: web.BaseRequest) -> bool:
    """Return whether the request claims to be signed with the operator token."""
    return request.headers.get("Authorization", "").partition(" ")[0] == SCHEME


def check_origin(request: web.BaseRequest) -> bool:
    """Return whether a browser says that our own page sent the request. Raises `RequestRefused` for a page of another site."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    own = request.headers.get("Host", "").lower()  # without the scheme: a proxy may be the one that speaks TLS
    is_foreign = origin is not None and origin.lower() not in {f"http://{own}", f"https://{own}"}
    if is_foreign or site in {"cross-site", "same-site"}:
        raise RequestRefused(HTTPStatus.FORBIDDEN, "a page of another site may not send commands to this control plane")
    return origin is not None or site == "same-origin"


def is_own(name: str) -> bool:
    """Return whether the name means this machine for every browser, so that no DNS server can give it another meaning."""
    return name == "localhost" or (ip_address(name) is not None and is_loopback(name))


def _address(transport: object, which: str) -> str:
    info = getattr(transport, "get_extra_info", lambda _: None)(which)
    address = str(info[0]) if isinstance(info, tuple) else ""
    return address.removeprefix("::ffff:")


def _unauthorized(sentence: str) -> RequestRefused:
    return RequestRefused(HTTPStatus.UNAUTHORIZED, sentence, {"WWW-Authenticate": 'Bearer realm="discorder"'})
