"""What the façade does with HTTP requests: /gateway is answered, everything else passes to the API unread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from discorder.facade.rest import PassThrough
from discorder.logs import logger
from discorder.transport.proxies import DIRECT
from tests.facade.conftest import SECONDS, TOKENS, Stage

REAL = "the-real-token"


class Api:
    """An API that records what it gets, and answers what the test wants."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.response: Callable[[], web.Response] = lambda: web.Response(text="{}")
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.raw_path, headers, await request.read()))
        return self.response()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def passing(stage: Stage, api: Api) -> Stage:
    """A façade that passes REST requests to ``api``."""
    stage.rest = lambda clients: PassThrough(f"{api.url}/api/v10", REAL, clients, DIRECT)
    stage.feed.begin("label")
    await stage.open()
    return stage


def bot(name: str = "one") -> dict[str, str]:
    return {"Authorization": f"Bot {TOKENS[name]}"}


@pytest.mark.parametrize("prefix", ["", "/api", "/api/v10", "/api/v9"])
async def test_the_gateway_is_the_facade(facade: Stage, prefix: str) -> None:
    """The look-up names the façade, and lets a library start all its shards at once."""
    async with facade.http.get(f"{facade.url}{prefix}/gateway") as response:
        assert await response.json() == {"url": facade.url.replace("http", "ws")}
    async with facade.http.get(f"{facade.url}{prefix}/gateway/bot", headers=bot()) as response:
        document = await response.json()
        assert response.headers["Content-Type"] == "application/json"
    assert document["shards"] == document["session_start_limit"]["max_concurrency"] == 1
    assert document["session_start_limit"]["remaining"] == 1000


async def test_the_gateway_of_a_bot_needs_its_token_and_the_layout(facade: Stage) -> None:
    """401 without a token, with the remedy in the log; 503 with Retry-After while the control plane does not know its shards."""
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message} {extra}")
    async with facade.http.get(f"{facade.url}/gateway/bot", headers={"Authorization": "Bot no"}) as response:
        assert response.status == 401
    logger.remove(sink)
    (line,) = said
    assert "unknown token was refused {'path': '/gateway/bot'" in line
    assert "if the client is new, restart `discorder serve`" in line
    facade.feed.layout = None
    async with facade.http.get(f"{facade.url}/gateway/bot", headers=bot()) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")


async def test_a_request_passes_with_the_real_token(passing: Stage, api: Api) -> None:
    """Method, path, query, body and headers are the bot's; the token is the real one, and nothing of the connection passes."""
    api.response = lambda: web.Response(
        body=b"\xff\x00raw", status=418, headers={"X-RateLimit-Bucket": "abc", "Content-Type": "application/x-odd"}
    )
    path = "/api/v9/channels/1/messages/2/reactions/%F0%9F%94%A5/@me?x=%2F&y"
    async with passing.http.put(
        URL(passing.url + path, encoded=True),
        data=b"body \xff",
        headers={**bot(), "X-Audit-Log-Reason": "%20", "Connection": "close, X-Mine", "X-Mine": "1"},
    ) as response:
        assert (response.status, await response.read()) == (418, b"\xff\x00raw")
        assert response.headers["X-RateLimit-Bucket"] == "abc"
        assert response.headers["Content-Type"] == "application/x-odd"
    method, raw_path, headers, body = api.seen[0]
    assert (method, raw_path, body) == ("PUT", path, b"body \xff")
    assert headers["authorization"] == f"Bot {REAL}"
    assert headers["x-audit-log-reason"] == "%20"
    assert headers["host"] == api.url.removeprefix("http://")
    assert "x-mine" not in headers
    assert "accept-encoding" not in headers


async def test_a_path_without_a_version_gets_that_of_the_configuration(passing: Stage, api: Api) -> None:
    """For libraries whose base URL ends at the port."""
    async with passing.http.get(f"{passing.url}/users/@me", headers=bot()):
        pass
    assert api.seen[0][1] == "/api/v10/users/@me"


async def test_only_a_known_token_is_exchanged(passing: Stage, api: Api) -> None:
    """An unknown bot token is refused here; webhooks have none, and a bearer token is not ours."""
    async with passing.http.get(f"{passing.url}/api/users/@me", headers={"Authorization": "Bot x.y.z"}) as response:
        assert response.status == 401
    assert api.seen == []
    async with passing.http.post(f"{passing.url}/api/v10/webhooks/1/secret", json={"content": "x"}):
        pass
    async with passing.http.get(f"{passing.url}/api/users/@me", headers={"Authorization": "Bearer abc"}):
        pass
    assert [headers.get("authorization") for _, _, headers, _ in api.seen] == [None, "Bearer abc"]


async def test_redirects_and_refusals_reach_the_bot(passing: Stage, api: Api) -> None:
    """Nothing is followed and nothing is judged: a redirect must not take the real token elsewhere."""
    api.response = lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})
    async with passing.http.get(f"{passing.url}/api/users/@me", headers=bot(), allow_redirects=False) as response:
        assert response.status == 302
    assert len(api.seen) == 1


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/api/v10/users",
        "http://evil.example/api/v10/users",
        "/api/v10/../../users",
        "/api/v10/%2e%2E/users",
        "/api/./users",
        "/api/v10\\users",
        "users",
    ],
)
async def test_a_target_that_servers_read_in_two_ways_is_refused(passing: Stage, api: Api, target: str) -> None:
    """The real token goes to one origin and to plain paths only."""
    host = passing.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n".encode())
    writer.write(f"Authorization: Bot {TOKENS['one']}\r\n\r\n".encode())
    status = await reader.readline()
    writer.close()
    assert b" 400 " in status
    assert api.seen == []


async def test_another_name_of_the_host_is_refused(passing: Stage, api: Api) -> None:
    """A web page that gives its own name the address 127.0.0.1 gets nothing, on REST and on the websocket."""
    for headers in ({}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
        async with passing.http.get(
            f"{passing.url}/api/users/@me", headers={**bot(), **headers, "Host": "evil.example:7000"}
        ) as response:
            assert response.status == 421
    async with passing.http.get(
        f"{passing.url}/api/users/@me", headers={**bot(), "Sec-Fetch-Site": "cross-site"}
    ) as response:
        assert response.status == 403
    assert api.seen == []


async def test_an_api_that_does_not_answer(stage: Stage) -> None:
    """502 with a sentence, and no header of the request in it."""
    stage.rest = lambda clients: PassThrough("http://127.0.0.1:1/api/v10", REAL, clients, DIRECT)
    await stage.open()
    async with stage.http.get(f"{stage.url}/api/users/@me", headers=bot()) as response:
        assert response.status == 502
        assert REAL not in await response.text()


async def test_rest_may_be_off(facade: Stage) -> None:
    """Then only the look-up is answered."""
    async with facade.http.get(f"{facade.url}/api/users/@me", headers=bot()) as response:
        assert response.status == 404
        assert "facade.rest" in (await response.json())["message"]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND"])
async def test_only_methods_of_discord_are_passed_on(passing: Stage, api: Api, method: str) -> None:
    """An answer to TRACE would hold the real token."""
    async with passing.http.request(method, f"{passing.url}/api/v10/x", headers=bot()) as response:
        assert response.status == 405
    assert api.seen == []


async def test_two_authorizations_are_refused(passing: Stage, api: Api) -> None:
    headers = [("Authorization", "Bearer z"), *bot().items()]
    async with passing.http.get(f"{passing.url}/api/v10/x", headers=headers) as response:
        assert response.status == 400
    assert api.seen == []


async def test_slow_requests_of_one_bot_hold_up_no_other(passing: Stage, api: Api) -> None:
    """150 bodies that do not come; another bot's request is answered meanwhile, and theirs once they time out or come."""
    come = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await come.wait()
        yield b"}"

    async def post() -> int:
        async with http.post(f"{passing.url}/api/v10/slow", data=body(), headers=bot("one")) as response:
            return response.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        slow = [asyncio.create_task(post()) for _ in range(150)]
        async with asyncio.timeout(SECONDS), http.get(f"{passing.url}/api/v10/quick", headers=bot("two")) as response:
            assert response.status == 200
        assert [path for _, path, _, _ in api.seen] == ["/api/v10/quick"]
        come.set()
        assert set(await asyncio.gather(*slow)) == {200}
