"""Send one HTTP request over the aiohttp session of the running event loop, and read its answer."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass, field
from enum import Enum

import aiohttp
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorDNSError
from yarl import URL

from discorder.rest.body import ACCEPT_ENCODING, read_body
from discorder.rest.response import Response
from discorder.transport import DaemonResolver
from discorder.transport.proxies import Proxies
from discorder.version import installed_version

PROJECT_URL = "https://github.com/discorder/discorder"
MOST_CONNECTIONS = 100
CONNECT_TIMEOUT = 10.0  # seconds for DNS, TCP and TLS
SLOWEST_UPLOAD = 64 * 1024  # bytes per second of a body, for which a try may take longer than its timeout


class Trouble(Enum):
    """What prevented an answer."""

    NAME = "name"  # it cannot be resolved
    CERTIFICATE = "certificate"  # it is not trusted
    TLS = "tls"
    PROXY = "proxy"  # it cannot be reached
    PROXY_REFUSAL = "proxy refusal"
    NETWORK = "network"  # refused, reset, timed out


_TROUBLES: tuple[tuple[type[Exception], Trouble], ...] = (  # the first that fits
    (ClientConnectorDNSError, Trouble.NAME),
    (ClientConnectorCertificateError, Trouble.CERTIFICATE),
    (aiohttp.ClientSSLError, Trouble.TLS),
    (aiohttp.ClientProxyConnectionError, Trouble.PROXY),
    (aiohttp.ClientHttpProxyError, Trouble.PROXY_REFUSAL),
)


class RequestFailed(Exception):
    """No answer arrived; the text gives the reason. Not redacted."""

    def __init__(self, reason: str, trouble: Trouble) -> None:
        super().__init__(reason)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class RestConnection:
    """The HTTP session of one event loop, and whether `BotClient.close` was called."""

    session: aiohttp.ClientSession
    loop: asyncio.AbstractEventLoop
    proxies: Proxies
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(
        self, method: str, url: URL, headers: dict[str, str], body: bytes | None, timeout: float
    ) -> Response:
        """Send one request and read the answer. ``timeout`` in seconds, plus time for a large body. Raises RequestFailed."""
        upload = len(body or b"") / SLOWEST_UPLOAD
        try:
            async with self.session.request(
                method,
                url,
                proxy=self.proxies.of(url),
                data=None if body is None else io.BytesIO(body),  # a stream is written in pieces
                headers=headers | {"User-Agent": _user_agent(), "Accept-Encoding": ACCEPT_ENCODING},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout + upload, connect=CONNECT_TIMEOUT),
            ) as response:
                content, cut = await read_body(response)
                return Response(response.status, response.reason or "", response.headers, content, cut)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = type(error)
            reason = f"{kind.__name__}: {error}" if str(error) else kind.__name__
            trouble = next((one for of, one in _TROUBLES if isinstance(error, of)), Trouble.NETWORK)
        # Raised here and not in the handler: the frames of the HTTP library hold the Authorization header in their local
        # variables, and a traceback that prints local variables would show it.
        raise RequestFailed(reason, trouble)


def open_connection(proxies: Proxies, most: int = MOST_CONNECTIONS) -> RestConnection:
    """Create the HTTP session of the running event loop. ``most``: connections at a time, 0 without a limit."""
    session = aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # `read_body` decompresses, within bounds
        connector=aiohttp.TCPConnector(
            limit=most,
            resolver=DaemonResolver(),  # a look-up that hangs must not delay the exit
        ),
    )
    return RestConnection(session, asyncio.get_running_loop(), proxies)


def _user_agent() -> str:
    return f"DiscordBot ({PROJECT_URL}, {installed_version()})"
