"""BotClient: call Discord's REST API with the bot's token, within its rate limits, with retries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote

from yarl import URL

from discorder.clock import Clock, SystemClock, within
from discorder.errors import AuthenticationFailed, ConfigError, HTTPError, NoAnswer, RestError
from discorder.redaction import Redactor
from discorder.rest.body import MAX_BODY
from discorder.rest.encoding import FileLike, Param, encode_body, encode_query
from discorder.rest.gateway import GatewayInfo, decode_gateway_info
from discorder.rest.http import RequestFailed, RestConnection, open_connection
from discorder.rest.limiter import RateLimiter
from discorder.rest.rate_limit_queue import RateLimitMode, rate_limited
from discorder.rest.response import Response
from discorder.rest.retries import is_transient, make_retrying
from discorder.rest.route import Route, make_route
from discorder.rest.token import Token
from discorder.transport.proxies import Proxies

DEFAULT_API = "https://discord.com/api/v10"  # without a version Discord serves v6 (docs/protocol.md#rest)
TRIES = 5  # of one request, for 5xx and connection faults
LONGEST_WAIT = 30.0  # seconds between two of them
PROOFS = {("GET", "/gateway/bot"), ("GET", "/users/@me")}  # their 401 is about the bot token

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _PreparedRequest:
    """One request. It stays the same through all its tries."""

    number: int
    route: Route
    url: URL = field(repr=False)
    body: bytes | None = field(repr=False)
    content_type: str
    reason: str | None
    waits: bool  # for the end of a 429, in mode WAIT


class BotClient:
    """Calls Discord's REST API. May be created before an event loop runs, and used again after `close`.

    ``token``: None reads ``DISCORD_BOT_TOKEN``; a leading ``Bot`` is dropped. ``api``: the base URL with its version, None =
    Discord's (and `serve` then fills in ``gateway.api``). ``timeout``: seconds of real time for one try, and more for a large
    body. ``mode``: wait for rate limits, or raise RateLimited. ``proxy``: the URL of a proxy; ``trust_env``: without one, use
    the environment's (with neither, `serve` fills in the configuration's). Raises TokenMissing, and ConfigError for a token or
    URL that cannot be one.
    """

    def __init__(
        self,
        token: str | Token | None = None,
        *,
        api: str | None = None,
        mode: RateLimitMode = RateLimitMode.WAIT,
        clock: Clock | None = None,
        timeout: float = 30.0,
        proxy: str = "",
        trust_env: bool = False,
    ) -> None:
        if token is None:
            token = Token.from_environment()
        self._token = token if isinstance(token, Token) else Token(token, source="BotClient(token=…)")
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._timeout = timeout
        self._limiter = RateLimiter(self._clock, mode)
        self._connection: RestConnection | None = None
        self._refused: str | None = None
        self.api = api
        self.proxies = Proxies(proxy, trust_env)

    @property
    def api(self) -> str | None:
        """The base URL that was set, None for the default. Setting it raises ConfigError for an invalid one."""
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
        """The token; its repr and str hide it."""
        return self._token

    async def request(
        self,
        method: str,
        path_template: str,
        *,
        json: object = None,
        files: Sequence[FileLike] = (),
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        reason: str | None = None,
        **path_params: str | int,
    ) -> Any:
        """Send one request and return the decoded JSON, None for an answer without a body.

        ``path_template`` is filled with ``path_params``, each quoted: ``request("GET", "/channels/{channel_id}", channel_id=1)``.
        ``reason`` goes to the guild's audit log. In ``params`` None is left out, a sequence repeats the key.

        ``files`` are sent as a multipart form, with ``json`` as its ``payload_json``: each is a `File` or ``(name, bytes)``. In
        ``json``, ``{"attachments": [{"id": 0, "description": "…"}]}`` describes the first of them. All of it is kept in memory
        until the answer has come, since a further try sends it again.

        5xx and connection faults are tried up to five times, so a POST whose answer was lost may be carried out twice (for
        messages Discord offers ``nonce`` with ``enforce_nonce``). Raises HTTPError, AuthenticationFailed (Discord's 401 to
        ``GET /users/@me`` or ``/gateway/bot``; every later request then fails at once), NoAnswer, RateLimited (mode RAISE),
        TooManyInvalidRequests, and RestError, also for an answer of more than 16 MiB; TypeError and ValueError for a path,
        parameters or body that cannot be sent.
        """
        fields = [*(json if isinstance(json, dict) else ()), *(("files",) if files else ())]
        route = make_route(method, path_template, path_params, fields=fields, now=self._clock.now().timestamp())
        return await self._request(route, json=json, files=files, params=params, reason=reason, tries=TRIES)

    async def gateway_bot(self, *, tries: int = TRIES, waits: bool = True) -> GatewayInfo:
        """``GET /gateway/bot``. Raises like `request`, and RestError for an answer that is malformed.

        ``waits`` False: raises RateLimited for a 429, and AddressBanned while Discord refuses this address, whatever the mode.
        """
        return decode_gateway_info(await self._request(make_route("GET", "/gateway/bot", {}), tries=tries, waits=waits))

    async def close(self) -> None:
        """Close every connection. Waiting and running requests raise RestError. Idempotent."""
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
        waits: bool = True,
        json: object = None,
        files: Sequence[FileLike] = (),
        params: Mapping[str, Param | Sequence[Param]] | None = None,
        reason: str | None = None,
    ) -> Any:
        body, content_type = encode_body(route.method, json, files)
        call = _PreparedRequest(
            number=self._limiter.next_number(),
            route=route,
            url=URL(self.base_url + route.path + encode_query(params), encoded=True),
            body=body,
            content_type=content_type,
            reason=reason,
            waits=waits,
        )
        connection = self._connect()

        async def sleep(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                await within(self._clock, seconds, connection.closing.wait())

        def report(tried: int, seconds: float, error: BaseException) -> None:
            _log.warning("%s (try %d of %d), next try in %.1f s", error, tried, tries, seconds)

        retrying = make_retrying(tries=tries, longest=LONGEST_WAIT, sleep=sleep, retry_on=is_transient, on_retry=report)
        return await retrying(self._try, connection, call)

    async def _try(self, connection: RestConnection, call: _PreparedRequest) -> Any:
        """Try once. A 429 does not count as a try: the limiter delays the next request."""
        route = call.route
        while True:
            self._refuse(connection, route)
            async with self._limiter.permit(call.number, route, waits_for_ban=call.waits) as permit:
                self._refuse(connection, route)  # again: either may have happened during the wait
                permit.sent = True
                permit.answer = answer = await self._send(connection, call)
                self._note_refusal(answer, route)
            limited = answer.rate_limit()
            if limited is None:
                return self._decode(route, answer)
            if not limited.address:  # the limiter logs the block of an address, once
                _log.warning(
                    "%s %s: rate limited (%s), retry after %.3f s",
                    route.method,
                    route.shown,
                    limited.scope,
                    limited.retry_after,
                )
            if self._limiter.mode is RateLimitMode.RAISE or not call.waits:
                seconds = self._limiter.banned_for() if limited.address else limited.retry_after
                raise rate_limited(route, seconds, limited.scope, banned=limited.address)

    async def _send(self, connection: RestConnection, call: _PreparedRequest) -> Response:
        route = call.route
        started = self._clock.monotonic()
        try:
            answer = await connection.send(route.method, call.url, self._headers(call), call.body, self._timeout)
        except RequestFailed as error:
            fault = NoAnswer(method=route.method, path=route.shown, reason=self._redactor(route)(str(error)))
        else:
            elapsed = 1000 * (self._clock.monotonic() - started)
            _log.debug("%s %s: %d in %.0f ms", route.method, route.shown, answer.status, elapsed)
            return answer
        raise fault  # not in the handler: RequestFailed is not redacted, and would be shown as the context

    def _headers(self, call: _PreparedRequest) -> dict[str, str]:
        headers = {"Authorization": f"Bot {self._token.reveal()}"}
        if call.body is not None:  # without a type Discord answers error 50035 (docs/protocol.md#rest)
            headers["Content-Type"] = call.content_type
        if call.reason is not None:
            headers["X-Audit-Log-Reason"] = quote(call.reason)
        return headers

    def _decode(self, route: Route, answer: Response) -> Any:
        if not answer.succeeded:
            code, message = self._explain(answer, route)
            if self._refused is not None and _proves_refusal(route, answer):
                raise AuthenticationFailed(self._refused)
            raise HTTPError(status=answer.status, code=code, message=message, method=route.method, path=route.shown)
        if answer.cut:
            msg = f"{route.method} {route.shown}: {answer.status}, but the answer has more than {MAX_BODY:,} bytes"
            raise RestError(msg)
        if not answer.body:
            return None
        try:
            return answer.json()
        except ValueError as error:
            msg = f"{route.method} {route.shown}: {answer.status}, but the answer is not JSON: {error}"
            raise RestError(msg) from error

    def _note_refusal(self, answer: Response, route: Route) -> None:
        if self._refused is None and _proves_refusal(route, answer):
            _, message = self._explain(answer, route)
            self._refused = (
                f"Discord refused the bot token ({route.method} {route.shown}: 401, {message}); "
                "it was reset or mistyped: set the token of the developer portal (Bot → Token)"
            )

    def _explain(self, answer: Response, route: Route) -> tuple[int, str]:
        """Return Discord's code and message, redacted, since either may echo a token."""
        return answer.error(self._redactor(route))

    def _refuse(self, connection: RestConnection, route: Route) -> None:
        if self._refused is not None:
            raise AuthenticationFailed(self._refused)
        if connection.closing.is_set():
            msg = f"{route.method} {route.shown}: the client was closed"
            raise RestError(msg)

    def _redactor(self, route: Route) -> Redactor:
        return Redactor((self._token.reveal(), *route.secrets))

    def _connect(self) -> RestConnection:
        """Return the connection of the running loop, created at first use."""
        loop = asyncio.get_running_loop()
        current = self._connection
        if current is not None and current.loop is loop:
            return current
        if current is not None:
            if not current.loop.is_closed():
                msg = "this client is in use in another event loop; close it there first"
                raise RestError(msg)
            self._limiter.abandon()
        self._connection = open_connection(self.proxies)
        return self._connection


def _proves_refusal(route: Route, answer: Response) -> bool:
    """Whether ``answer`` shows that Discord refuses the bot token.

    A 401 of another endpoint does not: OAuth endpoints return it to every bot, webhooks for a wrong webhook token.
    """
    return route.key in PROOFS and answer.refuses_credential


def _checked_api(text: str) -> str:
    try:
        url = URL(text)
    except (ValueError, TypeError):
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment or url.user:
        msg = f"api {text!r}: it must be an http or https URL such as {DEFAULT_API}, without query and user"
        raise ConfigError(msg)
    return text.rstrip("/")
