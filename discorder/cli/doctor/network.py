"""Check the way to Discord: proxy, names, the REST API, the gateway up to its Hello, and the clock."""

from __future__ import annotations

import asyncio
import contextlib
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from yarl import URL

from discorder.cli.doctor.facts import ApiAnswer, DoctorFacts
from discorder.cli.doctor.finding import Finding, fail, failed, not_checked, ok, warn
from discorder.errors import Closed, ConfigError, ConnectFailed, ProtocolBreach, RestError
from discorder.redaction import Redactor
from discorder.rest.hosts import DISCORDS_GATEWAY, Hosts, is_discords
from discorder.rest.http import RequestFailed, Trouble
from discorder.transport import AiohttpTransport, DaemonResolver, choose_compression, gateway_url, inflater, is_loopback
from discorder.transport.address import ip_address
from discorder.wire import Op, decode_envelope

NORMAL_CLOSE = 1000  # without a session there is nothing to keep
CLOSE_SECONDS = 1.0  # for the gateway's answer to the close frame
PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
TOLERATED_SKEW = 5.0  # seconds; the Date header has whole seconds
WORST_SKEW = 300.0  # seconds; from there on certificates and the window of the identify budget are judged wrongly

_NO_API = "check gateway.api, the proxy, and whether this network asks for a login in a browser (captive portal)"
_TRUST = (
    "install the system's CA certificates (package ca-certificates) and check the clock; where a proxy inspects TLS, "
    "add its CA to them, or name a file with SSL_CERT_FILE"
)
_REMEDIES = {
    Trouble.NAME: "check the name in gateway.api and the resolver (/etc/resolv.conf)",
    Trouble.CERTIFICATE: _TRUST,
    Trouble.TLS: f"check that the port speaks TLS; else {_TRUST}",
    Trouble.PROXY: "check gateway.proxy, or the proxy variables of the environment",
    Trouble.PROXY_REFUSAL: "the proxy refuses: check its rules, and user and password in gateway.proxy",
    Trouble.NETWORK: "check the network, the firewall, and whether a proxy is needed (gateway.proxy)",
}


async def check_proxy(facts: DoctorFacts) -> list[Finding]:
    """Name the proxies in use."""
    gateway = facts.config.gateway
    try:
        used = gateway.proxies.describe()
    except ConfigError as error:
        return [failed("proxy", error)]
    return [ok("proxy", "none: connections are direct" if used == "direct" else used)]


async def check_dns(facts: DoctorFacts) -> list[Finding]:
    """Resolve the names of the API and of the main host, unless a proxy does that."""
    gateway = facts.config.gateway
    api = urlsplit(gateway.api)
    targets = [api]
    if is_discords(api.hostname or ""):
        targets.append(urlsplit(f"wss://{DISCORDS_GATEWAY}"))
    try:
        direct = [target for target in targets if gateway.proxies.of(URL(target.geturl())) is None]
    except ConfigError:  # the line about the proxy reports it
        return [not_checked("dns", "the proxy cannot be used", "see the line proxy")]
    if not direct:
        return [ok("dns", "the proxy resolves the names")]
    return list(await asyncio.gather(*map(_resolve, direct)))


async def _resolve(target: SplitResult) -> Finding:
    host = target.hostname or ""
    if ip_address(host) is not None:
        return ok("dns", f"{host} is an address, no name")
    try:
        found = await DaemonResolver().resolve(host, target.port or PORTS[target.scheme])
    except OSError as error:
        return fail("dns", f"{host} cannot be resolved: {error.strerror or error}", _REMEDIES[Trouble.NAME])
    addresses = list(dict.fromkeys(one["host"] for one in found))
    return ok("dns", f"{host} is {', '.join(addresses)}")


async def check_api(facts: DoctorFacts) -> list[Finding]:
    """Request ``GET /gateway`` without the token, and judge the answer."""
    api = facts.config.gateway.api
    try:
        answer = await facts.api_answer()
    except RequestFailed as error:
        return [fail("api", f"{api}: no answer: {error}", _REMEDIES[error.trouble])]
    except ConfigError:
        return [not_checked("api", "the proxy cannot be used", "see the line proxy")]
    return [_judge(api, answer)]


def _judge(api: str, answer: ApiAnswer) -> Finding:
    response = answer.response
    if answer.gateway_url is not None:
        way = "over TLS" if api.startswith("https:") else "not encrypted, which is fine on this machine only"
        if is_loopback(urlsplit(api).hostname or "") and not api.startswith("https:"):
            way = "on this machine, not encrypted"
        return ok("api", f"{api} answered in {answer.seconds * 1000:.0f} ms, {way}")
    limited = response.rate_limit()
    if limited is not None:
        whose = "Discord refuses every request from this address" if limited.address else "a rate limit"
        text = f"{api}: {whose} (HTTP 429), for {limited.retry_after:.0f} s"
        return fail("api", text, "find what sends so many requests from this address; a ban ends by itself")
    if 300 <= response.status < 400:
        target = urlsplit(response.headers.get("Location", "")).hostname or "another address"
        return fail("api", f"{api} answered with a redirect to {target}, as a login page does", _NO_API)
    if response.status >= 500:
        return fail("api", f"{api} answered with HTTP {response.status}", "wait; see https://discordstatus.com")
    _, message = response.error(Redactor())
    return fail("api", f"{api} answered with HTTP {response.status}, but not as Discord does: {message}", _NO_API)


async def check_gateway(facts: DoctorFacts) -> list[Finding]:
    """Dial the main host and wait for its Hello, then close: no IDENTIFY is sent."""
    try:
        url = (await facts.api_answer()).gateway_url
    except (RequestFailed, ConfigError):
        url = None
    if url is None:
        return [not_checked("gateway", "the API did not say where it is", "see the line api")]
    gateway = facts.config.gateway
    try:
        Hosts(gateway.api, insecure=gateway.insecure_api).check_main(url)
        began = facts.clock.monotonic()
        await _greet(facts, url)
    except (ConnectFailed, Closed, ProtocolBreach, RestError) as error:
        remedy = f"check the firewall and the proxy; for a certificate: {_TRUST}; see https://discordstatus.com"
        return [fail("gateway", f"{_shown(url)}: {error}", remedy)]
    except ConfigError as error:  # a compression that is not installed
        return [failed("gateway", error)]
    took = (facts.clock.monotonic() - began) * 1000
    return [ok("gateway", f"{_shown(url)} said Hello after {took:.0f} ms; the connection was closed without IDENTIFY")]


async def _greet(facts: DoctorFacts, url: str) -> None:
    """Dial ``url`` and wait for Hello. Raises as the transport does, and ProtocolBreach for another message."""
    gateway = facts.config.gateway
    mode = choose_compression(gateway.compress)
    transport = AiohttpTransport(inflater=inflater(mode), proxies=gateway.proxies)
    messages: asyncio.Queue[bytes] = asyncio.Queue()
    ending: asyncio.Task[None] | None = None

    def deliver(batch: list[bytes]) -> None:
        for message in batch:
            messages.put_nowait(message)

    try:
        await transport.connect(gateway_url(url, mode), deliver)
        ending = asyncio.create_task(transport.wait_closed(), name="gateway")
        first = asyncio.create_task(messages.get(), name="hello")
        await asyncio.wait([first, ending], return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            await ending
        if not _is_hello(first.result()):
            msg = "the first message was not Hello"
            raise ProtocolBreach(msg)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await transport.close(NORMAL_CLOSE)
        transport.abort()
        if ending is not None:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)


def _is_hello(message: bytes) -> bool:
    try:
        return decode_envelope(message).op == Op.HELLO
    except ValueError:
        return False


async def check_clock(facts: DoctorFacts) -> list[Finding]:
    """Compare this machine's clock with the Date of the API's answer."""
    try:
        answer = await facts.api_answer()
    except (RequestFailed, ConfigError):
        return [not_checked("clock", "the API gave no answer to compare it with", "see the line api")]
    try:
        theirs = parsedate_to_datetime(answer.response.headers.get("Date", ""))
        skew = (answer.at - theirs).total_seconds()
    except (ValueError, TypeError):
        return [not_checked("clock", "the API's answer has no Date", "compare it with another clock")]
    remedy = "set it, and keep it right with NTP (timedatectl set-ntp true)"
    text = f"it is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} Discord's"
    if abs(skew) > WORST_SKEW:
        return [fail("clock", f"{text}: certificates and the identify budget are judged wrongly", remedy)]
    if abs(skew) > TOLERATED_SKEW:
        return [warn("clock", text, remedy)]
    return [ok("clock", f"it agrees with Discord's to {TOLERATED_SKEW:.0f} s")]


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
