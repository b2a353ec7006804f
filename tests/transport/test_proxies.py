"""A real proxy on loopback: it tunnels encrypted connections and forwards the others."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from aiohttp import web
from yarl import URL

from discorder.errors import Closed, ConfigError, ConnectFailed
from discorder.transport import AiohttpTransport
from discorder.transport.proxies import Proxies, checked_proxy

if TYPE_CHECKING:
    from discorder.simulator import Simulator
    from tests.harness import StartStage

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Proxy:
    """Records the first line of each request. ``user``: the credentials that it requires."""

    def __init__(self, user: str = "") -> None:
        self._wanted = b"Basic " + base64.b64encode(user.encode()) if user else b""
        self.requests: list[bytes] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        method, target, _ = line.split(b" ")
        self.requests.append(line)
        if self._wanted and b"Proxy-Authorization: " + self._wanted not in headers:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        url = URL(f"http://{target.decode()}" if method == b"CONNECT" else target.decode())
        assert url.scheme == "http"
        upstream, onward = await asyncio.open_connection(url.host, url.port)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            onward.write(head.replace(target, url.path_qs.encode(), 1))
        await asyncio.gather(self._pass(reader, onward), self._pass(upstream, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()


@asynccontextmanager
async def proxy(user: str = "") -> AsyncIterator[Proxy]:
    running = Proxy(user)
    server = await asyncio.start_server(running.handle, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.02)


async def echo(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(autoclose=False)
    await websocket.prepare(request)
    await websocket.send_str("hello")
    await websocket.send_str(await websocket.receive_str())
    await websocket.close(code=4000)
    return websocket


@asynccontextmanager
async def gateway(authority: trustme.CA | None) -> AsyncIterator[str]:
    """Return the URL of a server that sends hello, then echoes."""
    tls = None
    if authority is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'ws' if tls is None else 'wss'}://127.0.0.1:{runner.addresses[0][1]}/?v=10"
    finally:
        await runner.cleanup()


async def talk(url: str, proxies: Proxies, authority: trustme.CA | None) -> list[bytes]:
    """Return the messages of a whole connection."""
    trust = None
    if authority is not None:
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
    messages: list[bytes] = []
    transport = AiohttpTransport(proxies=proxies, ssl_context=trust)
    await transport.connect(url, messages.extend)
    await transport.send(b"to you")
    async with asyncio.timeout(60):
        with pytest.raises(Closed) as ended:
            await transport.wait_closed()
    assert ended.value.code == 4000
    return messages


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("user", ["", "me:hush"])
async def test_a_gateway_is_reached_through_a_proxy(encrypted: bool, user: str) -> None:
    """An encrypted connection uses a tunnel, so that the proxy sees only the host."""
    authority = trustme.CA() if encrypted else None
    async with gateway(authority) as url, proxy(user) as way:
        at = f"{user}@" if user else ""
        proxies = Proxies(f"http://{at}127.0.0.1:{way.port}")
        assert await talk(url, proxies, authority) == [b"hello", b"to you"]
        target = url.partition("//")[2]
        host = target.partition("/")[0]
        line = f"CONNECT {host} HTTP/1.1" if encrypted else f"GET http://{target} HTTP/1.1"
        assert way.requests == [line.encode()]


async def failure(url: str, proxies: Proxies) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await AiohttpTransport(proxies=proxies).connect(url, lambda _: None)
    assert "hush" not in str(caught.value)
    return caught.value


async def test_a_proxy_that_refuses_is_named_and_its_status_is_not_the_gateways() -> None:
    async with proxy("me:other") as way:
        failed = await failure("wss://gateway.invalid/", Proxies(f"http://me:hush@127.0.0.1:{way.port}"))
    assert str(failed) == "the proxy refused the tunnel to gateway.invalid:443 with HTTP 407"
    assert failed.status is None


async def test_a_proxy_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    failed = await failure("wss://gateway.invalid/", Proxies(f"http://me:hush@127.0.0.1:{unused_tcp_port}"))
    assert str(failed).startswith(f"cannot connect to the proxy 127.0.0.1:{unused_tcp_port}: ")


async def test_rest_and_gateway_of_a_control_plane_go_through_the_proxy(
    sim: Simulator, start_stage: StartStage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log shows the proxy, without the password."""
    async with proxy("me:hush") as way:
        stage = start_stage(sim, f"gateway.proxy=http://me:hush@127.0.0.1:{way.port}")
        await stage.ready()
        await stage.stop()
    look_up, dial = [request.decode() for request in way.requests]
    assert look_up == f"GET {sim.api_url}/gateway/bot HTTP/1.1"
    assert dial.startswith(f"GET {sim.gateway_url.replace('ws', 'http', 1)}/?v=10&")
    log = capsys.readouterr().err
    assert f"Proxy chosen=http://127.0.0.1:{way.port}" in log
    assert "hush" not in log


# ---------------------------------------------------------------- which proxy is used


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove all proxy variables from the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_the_environment_does_not_count_by_default(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    assert Proxies().of(URL("wss://gateway.test")) is None
    assert Proxies().describe() == "direct"


@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_the_environments_proxy_of_https_is_that_of_wss(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("HTTPS_PROXY", "http://me:hush@proxy.test:3128")
    proxies = Proxies(trust_env=True)
    assert proxies.of(URL(f"{scheme}://gateway.test")) == URL("http://me:hush@proxy.test:3128")
    assert proxies.of(URL("ws://gateway.test")) is None
    assert proxies.describe() == "https: http://proxy.test:3128, http: direct (environment)"


def test_the_environments_other_variables_count_too(environment: pytest.MonkeyPatch) -> None:
    """A proxy without a scheme is an HTTP proxy; NO_PROXY lists the exceptions."""
    environment.setenv("ALL_PROXY", "proxy.test:3128")
    environment.setenv("NO_PROXY", "inside.test")
    proxies = Proxies(trust_env=True)
    assert proxies.of(URL("ws://gateway.test")) == URL("http://proxy.test:3128")
    assert proxies.of(URL("wss://inside.test")) is None


def test_the_configured_proxy_has_precedence_and_no_exceptions(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    environment.setenv("NO_PROXY", "*")
    proxies = Proxies("http://me:hush@mine.test:1", trust_env=True)
    assert proxies.of(URL("wss://gateway.test")) == URL("http://me:hush@mine.test:1")
    assert proxies.describe() == "http://mine.test:1"
    assert proxies.secrets == ("hush",)
    assert "hush" not in repr(proxies)


def test_a_proxy_of_the_environment_that_cannot_be_used_is_a_configuration_error(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("ALL_PROXY", "socks5://me:hush@proxy.test:1080")
    with pytest.raises(
        ConfigError, match=r"the proxy of the environment cannot be used: it is not an http or https URL"
    ):
        Proxies(trust_env=True).describe()


@pytest.mark.parametrize(
    "text",
    ["proxy", "socks5://h:1", "http://", "http://h:0", "http://h:99999", "http://h/path", "http://h/?q", "http://[x"],
)
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        checked_proxy(text)
