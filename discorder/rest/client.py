"""BotClient: Discord's REST API with the bot's token, its rate limits, and retries.

Must not: know the gateway's sessions. Requests go through `limiter`, answers are judged here; the token leaves this file only
in the Authorization header.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from discorder.clock import Clock, SystemClock, within
from discorder.errors import AuthenticationFailed, ConfigError, HTTPError, NoAnswer, RateLimited, RestError
from discorder.rest.answer import Answer
from discorder.rest.gateway import GatewayInfo, decode_gateway_info
from discorder.rest.limiter import RateLimiter
from discorder.rest.retries import is_transient, make_retrying
from discorder.rest.route import Route, make_route
from discorder.rest.token import Token
from discorder.rest.turnstile import RateLimitMode
from discorder.transport import DaemonResolver

DEFAULT_API = "https://discord.com/api/v10"  # without a version Discord serves v6 (gateway-protocol.md §15)
PROJECT_URL = "https://github.com/discorder/discorder"
TRIES = 5  # of one request, for 5xx and connection faults
LONGEST_WAIT = 30.0  # seconds between two of them
CONNECT_TIMEOUT = 10.0  # seconds for DNS, TCP and TLS
INVALID_WEBHOOK_TOKEN = 50027  # a 401 about the webhook's or interaction's token, not the bot's

_log = logging.getLogger(__name__)

Param = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class _Connection:
    """The HTTP session of one event loop, and whether `close` was called."""

    session: aiohttp.ClientSession
    loop: asyncio.AbstractEventLoop
    closing: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, the same through all its tries."""

    number: int
    route: Route
    url: URL = field(repr=False)
    body: bytes | None = field(repr=False)
    reason: str | None


class BotClient:
    """A bot's access to Discord's REST API; safe to make before there is an event loop, and to use again after `close`.

    ``token``: None reads ``DISCORD_BOT_TOKEN``; a leading ``Bot`` is dropped. ``api``: the base URL with its version, None =
    Discord's (and `serve` then fills in ``gateway.api``). ``timeout``: seconds of real time for one try. ``mode``: wait for
    rate limits, or raise RateLimited. Raises TokenMissing, and ConfigError for a token or URL that cannot be one.
    """

    def __init__(
        self,
        token: str | Token | None = None,
        *,
        api: str | None = None,
        mode: RateLimitMode = RateLimitMode.WAIT,
        clock: Clock | None = None,
        timeout: float = 30.0,
    ) -> None:
        if token is None:
            token = Token.from_environment()
        self._token = token if isinstance(token, Token) else Token(token, source="BotClient(token=…)")
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._timeout = timeout
        self._limiter = RateLimiter(self._clock, mode)
        self._connection: _Connection | None = None
        self._refused: str | None = None
        self.api = api

    @property
    def api(self) -> str | None:
        """The base URL that was asked for; None while it was left open. Setting it raises ConfigError for what is none."""
        return self._api

    @api.setter
    def api(self, value: str | None) -> None:
        self._api = None if value is None else _checked_api(value)

    @property
    def base_url(self) -> str:
        """The base URL in use, without a trailing slash."""
        return self._api or DEFAULT_API

    @property
    def token(self) -> Token:
        """The token, hidden; `Token.reveal` is for those who send it."""
        return self._token

    async def request(
        self,
        method: str,
        path_template: str,
        *,
        json: object = None,
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        reason: str | None = None,
        **path_params: str | int,
    ) -> Any:
        """Send one request and return the decoded JSON, None for an answer without a body.

        ``path_template`` is filled with ``path_params``, each quoted: ``request("GET", "/channels/{channel_id}", channel_id=1)``.
        ``reason`` goes to the guild's audit log. In ``params`` None is left out, a sequence repeats the key.

        5xx and connection faults are tried up to five times, so a POST whose answer was lost may be carried out twice (for
        messages Discord offers ``nonce`` with ``enforce_nonce``). Raises HTTPError, AuthenticationFailed (401; every later
        request then fails at once), NoAnswer, RateLimited (mode RAISE), TooManyInvalidRequests, RestError; TypeError and
        ValueError for a path, parameters or body that cannot be sent.
        """
        return await self._request(
            make_route(method, path_template, path_params), json=json, params=params, reason=reason, tries=TRIES
        )

    async def gateway_bot(self, *, tries: int = TRIES) -> GatewayInfo:
        """``GET /gateway/bot``. Raises like `request`, and RestError for an answer that is malformed."""
        return decode_gateway_info(await self._request(make_route("GET", "/gateway/bot", {}), tries=tries))

    async def close(self) -> None:
        """Close every connection; requests that wait or are under way raise RestError. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.closing.set()
        self._limiter.close("the client was closed")
        await connection.session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"BotClient({self._token}, {self._limiter})"

    def __reduce__(self) -> NoReturn:
        msg = "a BotClient holds a token and connections and cannot be pickled or copied"
        raise TypeError(msg)

    async def _request(
        self,
        route: Route,
        *,
        tries: int,
        json: object = None,
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        reason: str | None = None,
    ) -> Any:
        call = _Call(
            number=self._limiter.next_number(),
            route=route,
            url=URL(self.base_url + route.path + _query(params), encoded=True),
            body=None if json is None else msgspec.json.encode(json),
            reason=reason,
        )
        connection = self._connect()

        async def sleep(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                await within(self._clock, seconds, connection.closing.wait())

        def report(tried: int, seconds: float, error: BaseException) -> None:
            _log.warning("%s (try %d of %d), next try in %.1f s", error, tried, tries, seconds)

        retrying = make_retrying(tries=tries, longest=LONGEST_WAIT, sleep=sleep, retry_on=is_transient, on_retry=report)
        return await retrying(self._try, connection, call)

    async def _try(self, connection: _Connection, call: _Call) -> Any:
        """One try; a 429 does not count, the limiter makes it wait."""
        route = call.route
        while True:
            self._refuse(connection, route)
            async with self._limiter.slot(call.number, route) as slot:
                self._refuse(connection, route)  # either may have come true while it waited
                slot.sent = True
                slot.answer = answer = await self._send(connection, call)
                self._note_refusal(answer, route)
            refusal = answer.refusal()
            if refusal is None:
                return self._judge(route, answer)
            _log.warning(
                "%s %s: rate limited (%s), retry after %.3f s",
                route.method,
                route.shown,
                refusal.scope,
                refusal.retry_after,
            )
            if self._limiter.mode is RateLimitMode.RAISE:
                raise RateLimited(
                    retry_after=refusal.retry_after, scope=refusal.scope, method=route.method, path=route.shown
                )

    async def _send(self, connection: _Connection, call: _Call) -> Answer:
        route = call.route
        started = self._clock.monotonic()
        try:
            async with connection.session.request(
                route.method, call.url, data=call.body, headers=self._headers(call), allow_redirects=False
            ) as response:
                body = await response.read()
                answer = Answer(response.status, response.reason or "", response.headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            fault = NoAnswer(method=route.method, path=route.shown, reason=self._redact(reason, route))
        else:
            elapsed = 1000 * (self._clock.monotonic() - started)
            _log.debug("%s %s: %d in %.0f ms", route.method, route.shown, answer.status, elapsed)
            return answer
        # Raised here and not in the handler: the frames of the HTTP library hold the Authorization header in their local
        # variables, and a traceback that prints those must not come to them.
        raise fault

    def _headers(self, call: _Call) -> dict[str, str]:
        headers = {"Authorization": f"Bot {self._token.reveal()}", "User-Agent": _user_agent()}
        if call.body is not None:
            headers["Content-Type"] = (
                "application/json"  # required with a body, else error 50035 (gateway-protocol.md §15)
            )
        if call.reason is not None:
            headers["X-Audit-Log-Reason"] = quote(call.reason)
        return headers

    def _judge(self, route: Route, answer: Answer) -> Any:
        if not answer.succeeded:
            code, message = self._explain(answer, route)
            if self._concerns_bot_token(answer.status, code):
                raise AuthenticationFailed(self._refused)
            raise HTTPError(status=answer.status, code=code, message=message, method=route.method, path=route.shown)
        if not answer.body:
            return None
        try:
            return answer.json()
        except ValueError as error:
            msg = f"{route.method} {route.shown}: {answer.status}, but the answer is not JSON: {error}"
            raise RestError(msg) from error

    def _note_refusal(self, answer: Answer, route: Route) -> None:
        if answer.status != 401 or self._refused is not None:
            return
        code, message = self._explain(answer, route)
        if self._concerns_bot_token(answer.status, code):
            self._refused = (
                f"Discord refused the bot token ({route.method} {route.shown}: 401, {message}); "
                "it was reset or mistyped: set the token of the developer portal (Bot → Token)"
            )

    def _concerns_bot_token(self, status: int, code: int) -> bool:
        return status == 401 and code != INVALID_WEBHOOK_TOKEN

    def _explain(self, answer: Answer, route: Route) -> tuple[int, str]:
        """Discord's code and message, without a token that it may have echoed."""
        code, message = answer.error()
        return code, self._redact(message, route)

    def _refuse(self, connection: _Connection, route: Route) -> None:
        if self._refused is not None:
            raise AuthenticationFailed(self._refused)
        if connection.closing.is_set():
            msg = f"{route.method} {route.shown}: the client was closed"
            raise RestError(msg)

    def _redact(self, text: str, route: Route) -> str:
        return route.redact(self._token.redact(text))

    def _connect(self) -> _Connection:
        """The session of the running loop, made at first use."""
        loop = asyncio.get_running_loop()
        current = self._connection
        if current is not None and current.loop is loop:
            return current
        if current is not None:
            if not current.loop.is_closed():
                msg = "this client is in use in another event loop; close it there first"
                raise RestError(msg)
            self._limiter.abandon()
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout, connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(resolver=DaemonResolver()),  # a look-up that hangs must not delay our exit
        )
        self._connection = _Connection(session, loop)
        return self._connection


@cache
def _user_agent() -> str:
    return f"DiscordBot ({PROJECT_URL}, {version('discorder')})"


def _checked_api(text: str) -> str:
    try:
        url = URL(text)
    except (ValueError, TypeError):
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment or url.user:
        msg = f"api {text!r}: it must be an http or https URL such as {DEFAULT_API}, without query and user"
        raise ConfigError(msg)
    return text.rstrip("/")


def _query(params: Mapping[str, Param | Sequence[Param]] | None) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        pairs.extend((name, _param(name, each)) for each in values if each is not None)
    return f"?{urlencode(pairs)}" if pairs else ""


def _param(name: str, value: Param) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            msg = f"query parameter {name}: str, int, float or bool, not {type(value).__name__}"
            raise TypeError(msg)
