"""BotClient against a server on loopback: what it sends, what it makes of answers, and how it closes."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import socket
import traceback
from typing import Any

import pytest

from discorder.clock import FakeClock
from discorder.errors import AuthenticationFailed, ConfigError, HTTPError, NoAnswer, RestError, TokenMissing
from discorder.rest import BotClient, RateLimitMode


async def test_a_request_carries_token_user_agent_body_query_and_reason(
    client: BotClient, server: Any, token: str
) -> None:
    answer = await client.request(
        "POST",
        "/channels/{channel_id}/messages",
        channel_id=42,
        json={"content": "hé"},
        params={"wait": True, "after": None, "id": [1, 2], "q": "a b"},
        reason="spam & más",
    )
    assert answer == {"ok": 1}
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/channels/42/messages?wait=true&id=1&id=2&q=a+b")
    assert seen.body == '{"content":"hé"}'.encode()
    assert seen.headers["Authorization"] == f"Bot {token}"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["X-Audit-Log-Reason"] == "spam%20%26%20m%C3%A1s"
    assert seen.headers["User-Agent"].startswith("DiscordBot (https://")


async def test_a_quoted_path_arrives_as_quoted(client: BotClient, server: Any) -> None:
    await client.request("PUT", "/channels/{channel_id}/reactions/{emoji}/@me", channel_id=1, emoji="a/b%")
    assert server.paths == ["/channels/1/reactions/a%2Fb%25/@me"]


async def test_a_request_without_a_body_has_no_content_type(client: BotClient, server: Any) -> None:
    await client.request("GET", "/users/@me")
    assert server.seen[0].body == b""
    assert "Content-Type" not in server.seen[0].headers


async def test_an_answer_without_content_is_none(client: BotClient, server: Any, plays: Any) -> None:
    server.script.append(plays.text(204, ""))
    assert await client.request("DELETE", "/channels/{channel_id}", channel_id=1) is None


async def test_an_error_carries_discords_code_message_and_the_nested_report(
    client: BotClient, server: Any, plays: Any
) -> None:
    report = {"code": "BASE_TYPE_REQUIRED", "message": "This field is required"}
    errors = {"embeds": {"0": {"title": {"_errors": [report]}}}, "content": {"_errors": [{"message": "Too long"}]}}
    server.script.append(plays.answer(400, {"code": 50035, "message": "Invalid Form Body", "errors": errors}))
    with pytest.raises(HTTPError) as caught:
        await client.request("POST", "/channels/{channel_id}/messages", channel_id=42, json={})
    error = caught.value
    assert (error.status, error.code, error.method, error.path) == (400, 50035, "POST", "/channels/42/messages")
    assert error.message == "Invalid Form Body (embeds.0.title: This field is required; content: Too long)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>nope</html>", r"Forbidden \(the answer is text/html, not JSON: '<html>nope</html>'\)"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not JSON"),
        ('{"code": "x", "message": 7, "errors": [1]}', "code 0: Forbidden$"),
        ('{"errors": {"_errors": ["bare"]}}', r"Forbidden \(bare\)$"),
    ],
)
async def test_an_error_body_of_any_shape_becomes_a_readable_error(
    client: BotClient, server: Any, plays: Any, body: str, message: str
) -> None:
    server.script.append(plays.text(403, body))
    with pytest.raises(HTTPError, match=message) as caught:
        await client.request("GET", "/users/@me")
    assert (caught.value.status, caught.value.code) == (403, 0)


async def test_a_good_answer_that_is_not_json_is_an_error_that_says_so(
    client: BotClient, server: Any, plays: Any
) -> None:
    server.script.append(plays.text(200, "<html>captive portal</html>"))
    with pytest.raises(RestError, match="GET /users/@me: 200, but the answer is not JSON"):
        await client.request("GET", "/users/@me")


async def test_a_redirect_is_not_followed(client: BotClient, server: Any, plays: Any) -> None:
    server.script.append(plays.text(302, "", Location=server.api + "/elsewhere"))
    with pytest.raises(HTTPError, match="302"):
        await client.request("GET", "/users/@me")
    assert server.paths == ["/users/@me"]


async def test_server_errors_and_cut_connections_are_tried_again(
    client: BotClient, server: Any, plays: Any, run: Any
) -> None:
    server.script.extend(
        [plays.text(502, "bad gateway"), plays.reset, plays.answer(503, {}), plays.answer(200, {"id": "1"})]
    )
    assert await run(client.request("POST", "/channels/{channel_id}/messages", channel_id=1, json={})) == {"id": "1"}
    assert len(server.seen) == 4
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert all(gap >= 0.25 for gap in gaps)


async def test_after_five_tries_the_last_error_is_raised(client: BotClient, server: Any, plays: Any, run: Any) -> None:
    server.script.extend([plays.reset] * 4 + [plays.answer(500, {"message": "oops", "code": 7})] * 5)
    with pytest.raises(HTTPError, match="500, Discord's code 7: oops"):
        await run(client.request("POST", "/users/@me/channels"))
    assert len(server.seen) == 5


async def test_a_client_error_is_not_tried_again(client: BotClient, server: Any, plays: Any) -> None:
    server.script.append(plays.answer(404, {"message": "Unknown Channel", "code": 10003}))
    with pytest.raises(HTTPError, match="GET /channels/1: 404, Discord's code 10003: Unknown Channel"):
        await client.request("GET", "/channels/{channel_id}", channel_id=1)
    assert len(server.seen) == 1


async def test_a_server_that_never_answers_is_given_up(server: Any, plays: Any, token: str, run: Any) -> None:
    server.script.extend([plays.stall] * 5)
    async with BotClient(token, api=server.api, clock=server.clock, timeout=0.01) as client:
        with pytest.raises(NoAnswer, match=r"GET /users/@me: no answer: .*Timeout"):
            await run(client.request("GET", "/users/@me"))


async def test_a_401_is_not_tried_again_and_is_remembered(client: BotClient, server: Any, plays: Any) -> None:
    server.script.append(plays.answer(401, {"message": "401: Unauthorized", "code": 0}))
    for path in ("/gateway/bot", "/users/@me"):
        with pytest.raises(AuthenticationFailed, match=r"GET /gateway/bot: 401, 401: Unauthorized.*developer portal"):
            await client.request("GET", path)
    assert server.paths == ["/gateway/bot"]


async def test_requests_that_wait_when_a_401_comes_fail_without_being_sent(
    client: BotClient, server: Any, plays: Any
) -> None:
    server.script.append(plays.answer(401, {"message": "401: Unauthorized", "code": 0}))
    outcomes = await asyncio.gather(*(client.request("GET", "/users/@me") for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AuthenticationFailed] * 5
    assert len(server.seen) == 1


async def test_a_401_about_a_webhooks_token_says_nothing_about_the_bots(
    client: BotClient, server: Any, plays: Any
) -> None:
    server.script.append(plays.answer(401, {"message": "Invalid Webhook Token", "code": 50027}))
    with pytest.raises(HTTPError, match="POST /webhooks/1/<token>: 401"):
        await client.request("POST", "/webhooks/{webhook_id}/{webhook_token}", webhook_id=1, webhook_token="wrong")
    assert await client.request("GET", "/users/@me") == {"ok": 2}


async def test_a_body_that_is_not_json_material_is_a_type_error(client: BotClient) -> None:
    with pytest.raises(TypeError):
        await client.request("POST", "/users/@me/channels", json=object())


async def test_a_query_parameter_of_the_wrong_type_is_named(client: BotClient) -> None:
    wrong: Any = {"before": object()}
    with pytest.raises(TypeError, match="query parameter before"):
        await client.request("GET", "/users/@me", params=wrong)


# --- the token


def test_without_a_token_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISCORD_BOT_TOKEN", raising=False)
    with pytest.raises(TokenMissing, match=r"DISCORD_BOT_TOKEN.*gateway.token_file"):
        BotClient()
    monkeypatch.setenv("DISCORD_BOT_TOKEN", "")
    with pytest.raises(TokenMissing, match="DISCORD_BOT_TOKEN"):
        BotClient()


@pytest.mark.parametrize("text", ["abc\n", " abc", "a b", "a\tb", "Bearer abc", "täst", "a\x00b"])
def test_a_token_with_what_no_token_has_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DISCORD_BOT_TOKEN", text) if "\x00" not in text else None
    with pytest.raises(ConfigError) as caught:
        BotClient() if "\x00" not in text else BotClient(text)
    assert "DISCORD_BOT_TOKEN" in str(caught.value) or "\x00" in text
    assert text not in str(caught.value)


async def test_the_token_of_the_environment_is_used_without_its_prefix(
    monkeypatch: pytest.MonkeyPatch, server: Any, token: str
) -> None:
    monkeypatch.setenv("DISCORD_BOT_TOKEN", f"Bot {token}")
    async with BotClient(api=server.api) as client:
        await client.request("GET", "/users/@me")
        assert client.token.reveal() == token
    assert server.seen[0].headers["Authorization"] == f"Bot {token}"


async def test_the_repr_shows_buckets_and_mode_and_hides_the_token(client: BotClient, server: Any, plays: Any) -> None:
    assert repr(client) == "BotClient(<token>, RateLimiter(buckets={}, WAIT))"
    headers = {"X_RateLimit_Bucket": "abc", "X_RateLimit_Limit": "5", "X_RateLimit_Remaining": "4"}
    server.script.append(plays.answer(200, {}, **headers, X_RateLimit_Reset_After="1.5"))
    await client.request("GET", "/channels/{channel_id}", channel_id=42)
    assert repr(client) == "BotClient(<token>, RateLimiter(buckets={abc / channel 42: 4 of 5}, WAIT))"
    assert repr(BotClient("t", mode=RateLimitMode.RAISE)) == "BotClient(<token>, RateLimiter(buckets={}, RAISE))"


def test_the_token_is_in_no_repr_of_the_parts_and_cannot_be_pickled_or_copied(token: str) -> None:
    client = BotClient(token)
    assert token not in repr(vars(client))
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        for thing in (client, client.token):
            with pytest.raises(TypeError, match="cannot be pickled or copied"):
                copier(thing)


async def test_the_token_is_in_no_error_traceback_or_log(
    server: Any, plays: Any, token: str, run: Any, caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    """Not even in tracebacks that print local variables, and not when the server echoes it."""
    caplog.set_level(logging.DEBUG)
    echo = {"message": f"no such token: Bot {token}", "code": 1, "errors": {"_errors": [{"message": token}]}}
    scripts = [
        [plays.answer(400, echo)],
        [plays.answer(401, echo)],
        [plays.text(403, f"<b>{token}</b>")],
        [plays.text(200, token)],
        [plays.reset] * 10,  # a cut GET: the HTTP library asks twice
        [plays.text(429, token, Retry_After="1")],
    ]
    for script in scripts:
        server.script.extend(script)
        async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
            await assert_hidden(run(client.request("GET", "/users/@me")), token)
    async with BotClient(token, api=f"http://127.0.0.1:{unused_tcp_port}", clock=server.clock) as client:
        await assert_hidden(run(client.request("GET", "/users/@me")), token)
    assert len(caplog.records) > 10
    assert token not in caplog.text


async def assert_hidden(awaitable: Any, token: str) -> None:
    with pytest.raises((RestError, AuthenticationFailed)) as caught:
        await awaitable
    error = caught.value
    report = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "client.py" in report
    report = report.replace(f"token = '{token}'", "")  # the test's own variable
    assert token not in report + repr(error) + str(error) + repr(vars(error))


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- the base URL


def test_the_api_is_discords_until_it_is_set() -> None:
    client = BotClient("t")
    assert (client.api, client.base_url) == (None, "https://discord.com/api/v10")
    client.api = "http://127.0.0.1:8080/api/v10/"
    assert client.base_url == client.api == "http://127.0.0.1:8080/api/v10"


@pytest.mark.parametrize(
    "api", ["", "discord.com/api", "ws://discord.com", "http://", "http://h/?a=1", "http://u:p@h", "http://h:x"]
)
def test_what_is_no_base_url_is_refused(api: str) -> None:
    with pytest.raises(ConfigError, match="http or https URL"):
        BotClient("t", api=api)


# --- life


async def test_close_leaves_nothing_open_and_the_client_can_be_used_again(
    server: Any, token: str, eventually: Any
) -> None:
    client = BotClient(token, api=server.api)
    await client.close()
    for _ in range(2):
        await client.request("GET", "/users/@me")
        await client.close()
        await client.close()
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})  # the server has noticed, too
    gc.collect()  # an unclosed session or transport would warn, and warnings are errors


def test_one_client_serves_two_loops_one_after_the_other(token: str) -> None:
    client = BotClient(token, api="http://127.0.0.1:1", clock=FakeClock())

    async def use() -> None:
        with pytest.raises(NoAnswer):
            await client.gateway_bot(tries=1)
        await client.close()

    asyncio.run(use())
    asyncio.run(use())


async def test_a_client_in_use_in_another_loop_is_refused(client: BotClient) -> None:
    await client.request("GET", "/users/@me")

    async def use() -> None:
        with pytest.raises(RestError, match="in use in another event loop"):
            await client.request("GET", "/users/@me")

    await asyncio.to_thread(asyncio.run, use())


async def test_close_ends_requests_under_way_waiting_and_between_tries(
    client: BotClient, server: Any, plays: Any, eventually: Any
) -> None:
    server.script.extend([plays.reset, plays.stall])
    retrying = asyncio.create_task(client.request("POST", "/users/@me/channels"))
    await eventually(lambda: server.clock.next_due() is not None)
    under_way = asyncio.create_task(client.request("GET", "/gateway"))
    waiting = asyncio.create_task(client.request("GET", "/gateway"))
    await eventually(lambda: len(server.seen) == 2)
    await client.close()
    outcomes = await asyncio.gather(retrying, under_way, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RestError] * 3
    assert all("the client was closed" in str(outcome) for outcome in outcomes)
    assert server.clock.next_due() is None
