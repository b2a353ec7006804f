"""Answers that are not what Discord documents: 401s of other endpoints, bombs, echoed tokens, numbers without sense."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import json
import resource
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from discorder.errors import AuthenticationFailed, HTTPError, NoAnswer, RateLimited, RestError
from discorder.rest import BotClient, RateLimitMode
from discorder.rest.body import MAX_BODY
from discorder.rest.response import Response
from discorder.version import installed_version

UNAUTHORIZED = {"message": "401: Unauthorized", "code": 0}


# --- a status is about the endpoint that answered it


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/oauth2/@me"),
        ("GET", "/users/@me/guilds"),
        ("PATCH", "/users/@me"),
        ("GET", "/users/@me/connections"),
        ("POST", "/webhooks/1/wrong"),
        ("POST", "/interactions/1/wrong/callback"),
        ("GET", "/channels/1"),
    ],
)
async def test_a_401_of_another_endpoint_says_nothing_about_the_token(
    client: BotClient, server: Any, plays: Any, method: str, path: str
) -> None:
    server.script.append(plays.answer(401, UNAUTHORIZED))
    with pytest.raises(HTTPError, match="401: Unauthorized") as caught:
        await client.request(method, path)
    assert caught.value.status == 401
    assert await client.request("GET", "/users/@me") == {"ok": 2}
    assert await client.request(method, path) == {"ok": 3}


@pytest.mark.parametrize(
    "body",
    ["<html>log in to this network</html>", "", "[]", '{"error": "unauthorized"}', '{"message": "x", "code": 7}'],
)
async def test_a_401_that_is_not_in_discords_words_says_nothing_about_the_token(
    client: BotClient, server: Any, plays: Any, body: str
) -> None:
    for path in ("/gateway/bot", "/users/@me"):
        server.script.append(plays.text(401, body))
        with pytest.raises(HTTPError):
            await client.request("GET", path)
    assert await client.request("GET", "/users/@me") == {"ok": 3}


@pytest.mark.parametrize("path", ["/gateway/bot", "/users/@me"])
async def test_discords_401_about_the_token_ends_every_later_request(
    client: BotClient, server: Any, plays: Any, path: str
) -> None:
    server.script.append(plays.answer(401, UNAUTHORIZED))
    for each in (path, "/channels/1"):
        with pytest.raises(AuthenticationFailed, match="developer portal"):
            await client.request("GET", each)
    assert server.paths == [path]


# --- the size of an answer


def compressed(encoding: str, size: int) -> bytes:
    """``size`` zero bytes, a megabyte at a time, so that the test itself stays small."""
    bits = {"gzip": 31, "deflate": 15, "raw": -15}[encoding]
    pack = zlib.compressobj(wbits=bits)
    return b"".join([*(pack.compress(bytes(2**20)) for _ in range(size // 2**20)), pack.flush()])


def body(data: bytes, status: int = 200, **headers: str) -> Any:
    async def play(_request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=data, headers=named)

    return play


@pytest.mark.heavy
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw"])
async def test_a_bomb_costs_no_more_than_the_bound(client: BotClient, server: Any, encoding: str) -> None:
    bomb = compressed(encoding, 2**28)
    server.script.append(body(bomb, Content_Encoding=encoding.replace("raw", "deflate")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RestError, match=r"GET /users/@me: 200, but the answer has more than 16,777,216 bytes"):
        await client.request("GET", "/users/@me")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 * 1024, f"{grown} KiB; the bomb has 256 MiB"
    assert len(server.seen) == 1
    assert await client.request("GET", "/users/@me") == {"ok": 2}


async def endless(request: web.Request) -> web.StreamResponse:
    """A body that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(bytes(2**20))
    except ConnectionError:
        return response


async def test_a_body_without_end_is_not_read_to_its_end(client: BotClient, server: Any) -> None:
    server.script.append(endless)
    with pytest.raises(RestError, match="more than 16,777,216 bytes"):
        await client.request("GET", "/users/@me")


async def test_the_status_of_an_answer_that_is_too_large_still_counts(client: BotClient, server: Any, run: Any) -> None:
    server.script.append(body(compressed("gzip", 2**26), 503, Content_Encoding="gzip"))
    assert await run(client.request("GET", "/users/@me")) == {"ok": 2}
    server.script.append(body(compressed("gzip", 2**26), 404, Content_Encoding="gzip"))
    with pytest.raises(HTTPError, match="404"):
        await run(client.request("GET", "/users/@me"))


async def test_an_answer_of_the_largest_size_is_read(client: BotClient, server: Any) -> None:
    text = json.dumps("x" * (MAX_BODY - 2)).encode()
    server.script.append(body(gzip.compress(text, 1), Content_Encoding="gzip"))
    assert len(await client.request("GET", "/users/@me")) == MAX_BODY - 2


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (gzip.compress(b'{"a":', mtime=0) + gzip.compress(b"1}", mtime=0), "gzip"),
        (gzip.compress(b'{"a":1}', mtime=0), "X-GZIP"),
        (zlib.compress(b'{"a":1}'), "deflate"),
        (zlib.compress(b'{"a":1}')[2:-4], "deflate"),
        (b'{"a":1}', "identity"),
    ],
)
async def test_every_encoding_that_was_asked_for_is_undone(
    client: BotClient, server: Any, data: bytes, encoding: str
) -> None:
    server.script.append(body(data, Content_Encoding=encoding))
    assert await client.request("GET", "/users/@me") == {"a": 1}
    assert server.seen[0].headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [(b"{}", "gzip"), (gzip.compress(b'{"a":1}', mtime=0)[:-9], "gzip"), (b"{}", "br"), (b"{}", "gzip, gzip")],
)
async def test_a_broken_encoding_is_a_fault_of_the_connection(
    client: BotClient, server: Any, run: Any, data: bytes, encoding: str
) -> None:
    server.script.extend([body(data, Content_Encoding=encoding)] * 5)
    with pytest.raises(NoAnswer, match="GET /users/@me: no answer: ClientPayloadError"):
        await run(client.request("GET", "/users/@me"))


async def test_an_answer_with_a_lone_surrogate_is_json(client: BotClient, server: Any) -> None:
    server.script.append(body(b'{"name":"\\ud83d"}'))
    assert await client.request("GET", "/users/@me") == {"name": "\ud83d"}


@pytest.mark.parametrize(
    "data", [b"NaN", b"[Infinity]", b"\xff", b"[" * 3000, b"1" + b"0" * 5000 + b".", b'{"a":1', b"1e999"]
)
async def test_what_is_no_json_is_an_error_that_says_so(client: BotClient, server: Any, data: bytes) -> None:
    server.script.append(body(data))
    try:
        assert await client.request("GET", "/users/@me") == float("inf")  # 1e999, as Python reads it
    except RestError as error:
        assert "200, but the answer is not JSON" in str(error)  # noqa: PT017


# --- a token that the server echoes


def notations(token: str) -> Iterator[tuple[str, str]]:
    """The ways in which a page may show a token."""
    data = f"Bot {token}".encode()
    yield "plain", token
    yield "html", "".join(f"&#{ord(c)};" for c in token)
    yield "html hex", "".join(f"&#x{ord(c):x};" for c in token)
    yield "entities", token.replace(".", "&period;").replace("-", "&#45;")
    yield "url", "".join(f"%{ord(c):02X}" for c in token)
    yield "url twice", "".join(f"%25{ord(c):02x}" for c in token)
    yield "json", "".join(f"\\u{ord(c):04x}" for c in token)
    yield "python", "".join(f"\\x{ord(c):02x}" for c in token)
    yield "escaped", token.replace("-", "\\-").replace(".", "\\.")
    yield "hex", data.hex()
    yield "base64", base64.b64encode(data).decode()
    yield "base64 of more", base64.urlsafe_b64encode(b"x" + data).decode()
    yield "twice", token + token


@pytest.mark.parametrize("before", [0, 37, 60, 99])
async def test_an_echoed_token_is_hidden_wherever_the_page_is_cut(
    server: Any, plays: Any, token: str, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By us after a hundred characters, or by the server, which may begin or end its echo in the middle."""
    async with BotClient(token, api=server.api, clock=server.clock) as client:
        for name, text in notations(token):
            for shown in (text, text[: len(text) // 2], text[len(text) // 3 :]):
                server.script.append(plays.text(502, "." * before + shown + " follows"))
                with pytest.raises(HTTPError) as caught:
                    await client.gateway_bot(tries=1)
                leaked = longest_part(text, str(caught.value)) * len(token) / len(text)
                assert leaked <= 12, (name, shown, str(caught.value))
    assert longest_part(token, caplog.text) < 12


def longest_part(secret: str, text: str) -> int:
    """The length of the longest part of ``secret`` that ``text`` shows."""
    longest = 0
    for start in range(len(secret)):
        while start + longest < len(secret) and secret[start : start + longest + 1] in text:
            longest += 1
    return longest


async def test_a_webhooks_token_is_hidden_in_every_notation_too(client: BotClient, server: Any, plays: Any) -> None:
    secret = "aW50ZXJhY3Rpb24.the_token-of-a.webhook"
    for _, text in notations(secret):
        server.script.append(plays.answer(400, {"message": f"no such webhook: {text}", "code": 1}))
        with pytest.raises(HTTPError) as caught:
            await client.request("GET", "/webhooks/{webhook_id}/{webhook_token}", webhook_id=1, webhook_token=secret)
        assert longest_part(secret, str(caught.value)) < 12


async def test_a_message_of_any_length_and_depth_is_cut(client: BotClient, server: Any, plays: Any, token: str) -> None:
    deep: Any = {"_errors": [{"message": "deep"}]}
    for _ in range(400):
        deep = {"a": deep}
    for document in ({"message": "m" * 990 + token}, {"errors": deep}, {"errors": {"_errors": ["x" * 5000] * 50}}):
        server.script.append(plays.answer(400, document))
        with pytest.raises(HTTPError) as caught:
            await client.request("GET", "/users/@me")
        assert len(caught.value.message) <= 1000
        assert longest_part(token, str(caught.value)) < 12


# --- numbers


NONSENSE = ["1e9", "-1", "nan", "inf", "-inf", "1e400", "9" * 400, "86400.001", '"5"x', "", "0x10", "1_0", "٣", "true"]


@pytest.mark.parametrize("number", NONSENSE)
@pytest.mark.parametrize(
    "name", ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset-After", "Retry-After", "retry_after"]
)
def test_a_number_that_makes_no_sense_is_as_good_as_none(name: str, number: str) -> None:
    headers = {
        "X-RateLimit-Bucket": "b",
        "X-RateLimit-Limit": "5",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset-After": "2.5",
        "Retry-After": "2.5",
    }
    document = {"retry_after": 2.5} | ({name: number} if name == "retry_after" else {})
    if name == "Retry-After":
        document = {"retry_after": "soon"}
    answer = Response(429, "", headers | {name: number}, json.dumps(document).encode())
    limited = answer.rate_limit()
    assert limited is not None
    assert limited.retry_after == 2.5
    assert (answer.limits() is None) is (name.startswith("X-") and name != "X-RateLimit-Bucket")


@pytest.mark.parametrize("number", [1e9, 10**30, 10**400, -1, -0.5, True, None, [], {}, "", "1e3", "nan", "x" * 10_000])
async def test_a_retry_after_that_makes_no_sense_is_not_waited_out(
    server: Any, token: str, run: Any, number: object, plays: Any
) -> None:
    server.script.append(plays.answer(429, {"message": "x", "retry_after": number, "global": False}))
    async with BotClient(token, api=server.api, clock=server.clock) as client:
        assert await run(client.request("GET", "/users/@me")) == {"ok": 2}
    assert server.times == [0.0, 5.0]


async def test_the_longest_limit_of_discords_is_believed(server: Any, token: str, plays: Any) -> None:
    server.script.append(plays.too_many(86_400, "user"))
    async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
        with pytest.raises(RateLimited) as caught:
            await client.request("GET", "/users/@me")
    assert caught.value.retry_after == 86_400


@pytest.mark.parametrize("code", [True, 1.5, "7", 10**30, None, []])
async def test_a_code_that_is_none_is_zero(client: BotClient, server: Any, plays: Any, code: object) -> None:
    server.script.append(plays.answer(400, {"message": "m", "code": code}))
    with pytest.raises(HTTPError) as caught:
        await client.request("GET", "/users/@me")
    assert caught.value.code == 0


# --- without the package's metadata


async def test_requests_work_from_a_copied_tree_without_metadata(
    client: BotClient, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", no_version)
    installed_version.cache_clear()
    await client.request("GET", "/users/@me")
    installed_version.cache_clear()
    assert server.seen[0].headers["User-Agent"] == "DiscordBot (https://github.com/discorder/discorder, unknown)"
