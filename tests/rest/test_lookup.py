"""GET /gateway/bot: decoding, and the look-up that does not give up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from discorder.errors import AddressBanned, AuthenticationFailed, GatewayUnreachable, HTTPError, NoAnswer, RestError
from discorder.rest import BotClient, GatewayInfo, RateLimitMode, SessionStartLimit, look_up


async def test_the_answer_is_decoded(client: BotClient, server: Any, plays: Any, gateway_document: Any) -> None:
    server.script.append(plays.answer(200, gateway_document))
    info = await client.gateway_bot()
    assert info == GatewayInfo("wss://gateway.discord.gg/", 2, SessionStartLimit(1000, 998, 14_400_000, 16))
    assert server.paths == ["/gateway/bot"]


@pytest.mark.parametrize(
    ("where", "value", "complaint"),
    [
        ("url", "https://discord.com", r"url"),
        ("url", "wss://", r"url"),
        ("url", None, r"url"),
        ("shards", 0, r"shards"),
        ("shards", "2", r"shards"),
        ("shards", 10**9, r"shards"),
        ("shards", 1e30, r"shards"),
        ("url", "ws://xn--/", r"url"),
        ("url", "ws://user:secret@gateway.test/", r"url"),
        ("url", "ws://gateway.test:0/", r"url"),
        ("url", "wss://gateway.test\n/", r"url"),
        ("total", 10**30, r"session_start_limit.total"),
        ("remaining", 10**400, r"session_start_limit.remaining"),
        ("reset_after", 10**18, r"session_start_limit.reset_after"),
        ("max_concurrency", 10**9, r"session_start_limit.max_concurrency"),
        ("remaining", -1, r"session_start_limit.remaining"),
        ("max_concurrency", 0, r"session_start_limit.max_concurrency"),
        ("reset_after", "soon", r"session_start_limit.reset_after"),
    ],
)
async def test_a_malformed_answer_is_an_error_that_says_what_is_wrong(
    client: BotClient, server: Any, plays: Any, gateway_document: Any, where: str, value: object, complaint: str
) -> None:
    limit = gateway_document["session_start_limit"]
    (limit if where in limit else gateway_document)[where] = value
    server.script.append(plays.answer(200, gateway_document))
    with pytest.raises(RestError, match=f"GET /gateway/bot: .*{complaint}"):
        await client.gateway_bot()
    assert len(server.seen) == 1


async def test_a_missing_field_is_named(client: BotClient, server: Any, plays: Any, gateway_document: Any) -> None:
    del gateway_document["session_start_limit"]["max_concurrency"]
    server.script.append(plays.answer(200, gateway_document))
    with pytest.raises(RestError, match="max_concurrency"):
        await client.gateway_bot()


async def test_without_a_limit_it_tries_until_there_is_an_answer(
    client: BotClient, server: Any, plays: Any, run: Any, gateway_document: Any
) -> None:
    # a cut GET: the HTTP library asks twice
    faults = [
        plays.text(502, "bad"),
        plays.reset,
        plays.reset,
        plays.answer(500, {}),
    ]
    server.script.extend(faults * 4 + [plays.answer(200, gateway_document)])
    retries: list[tuple[int, float, BaseException]] = []
    info = await run(look_up(client, tries=None, clock=server.clock, on_retry=lambda *told: retries.append(told)))
    assert info.shards == 2
    assert [tried for tried, _, _ in retries] == list(range(1, 13))
    assert all(0.25 <= seconds <= 60 for _, seconds, _ in retries)
    assert {type(error) for _, _, error in retries} == {HTTPError, NoAnswer}
    assert server.clock.monotonic() == pytest.approx(sum(seconds for _, seconds, _ in retries))


async def test_after_its_tries_it_says_where_what_and_what_to_do(
    client: BotClient, server: Any, plays: Any, run: Any
) -> None:
    server.script.extend([plays.text(502, "bad gateway")] * 9)
    with pytest.raises(GatewayUnreachable, match=r"after 5 tries; the last error: .*502.*gateway.api") as caught:
        await run(look_up(client, tries=5, clock=server.clock))
    assert f"{server.api}/gateway/bot" in str(caught.value)
    assert isinstance(caught.value.__cause__, HTTPError)
    assert len(server.seen) == 5


async def test_a_refused_token_is_not_tried_again(client: BotClient, server: Any, plays: Any) -> None:
    server.script.append(plays.answer(401, {"message": "401: Unauthorized", "code": 0}))
    with pytest.raises(AuthenticationFailed):
        await look_up(client, tries=None, clock=server.clock)
    assert len(server.seen) == 1


NOT_DISCORDS = {
    "a login page": (200, "<html>please log in</html>"),
    "another document": (200, '{"message": "The service is being updated"}'),
    "a list": (200, "[]"),
    "nested too deeply": (200, "[" * 100_000),
    "no content": (204, ""),
    "a redirect": (302, ""),
    "a bad request": (400, "<html>"),
    "a proxy's 401": (401, "<html>proxy authentication</html>"),
    "an edge page": (403, "<html>Attention Required!</html>"),
    "an internal network error": (403, '{"message": "internal network error", "code": 40333}'),
    "no such page": (404, '{"message": "404: Not Found", "code": 0}'),
    "a timeout": (408, ""),
    "gone": (410, ""),
    "a teapot": (418, "short and stout"),
    "a legal matter": (451, ""),
}


@pytest.mark.parametrize("name", NOT_DISCORDS)
async def test_an_answer_that_is_not_discords_is_tried_again(
    client: BotClient, server: Any, plays: Any, run: Any, gateway_document: Any, name: str
) -> None:
    """Proxies, login pages and edge servers answer in Discord's place, and go away again."""
    status, body = NOT_DISCORDS[name]
    server.script.extend([plays.text(status, body)] * 3 + [plays.answer(200, gateway_document)])
    info = await run(look_up(client, tries=None, clock=server.clock))
    assert info.shards == 2
    assert len(server.seen) == 4


async def test_an_answer_that_the_caller_cannot_use_is_tried_again(
    client: BotClient, server: Any, plays: Any, run: Any, gateway_document: Any
) -> None:
    """``check`` says which."""
    server.script.extend([plays.answer(200, {**gateway_document, "shards": 5}), plays.answer(200, gateway_document)])

    def few(info: GatewayInfo) -> None:
        if info.shards > 4:
            msg = "too many shards"
            raise RestError(msg)

    assert (await run(look_up(client, tries=2, clock=server.clock, check=few))).shards == 2


async def test_it_does_not_give_up_while_it_may_not(
    client: BotClient, server: Any, plays: Any, run: Any, gateway_document: Any
) -> None:
    """The tries are used up and the token is refused, but a session runs that needs no answer."""
    refused = plays.answer(401, {"message": "401: Unauthorized", "code": 0})
    server.script.extend([plays.text(503, "")] * 3 + [refused])
    held = [False] * 5 + [True]
    with pytest.raises(AuthenticationFailed):
        await run(look_up(client, tries=2, clock=server.clock, may_give_up=lambda: held.pop(0)))
    assert held == []


BANNED = {"message": "You are being blocked from accessing our API temporarily.", "code": 0}


@pytest.mark.parametrize("mode", RateLimitMode)
async def test_a_rate_limit_is_a_failed_try_that_says_how_long_the_next_one_waits(
    server: Any, plays: Any, token: str, run: Any, gateway_document: Any, mode: RateLimitMode
) -> None:
    server.script.extend([plays.too_many(90.0, "user"), plays.answer(200, gateway_document)])
    retries: list[float] = []
    async with BotClient(token, api=server.api, clock=server.clock, mode=mode) as client:
        await run(look_up(client, tries=2, clock=server.clock, on_retry=lambda _, seconds, __: retries.append(seconds)))
    assert server.times[1] >= 90.0
    assert [seconds >= 90.0 for seconds in retries] == [True]


async def test_a_ban_of_the_address_is_named_and_uses_up_the_tries(
    client: BotClient, server: Any, plays: Any, run: Any
) -> None:
    server.script.extend([plays.answer(429, BANNED)] * 9)
    retries: list[str] = []
    with pytest.raises(GatewayUnreachable, match=r"after 3 tries; .*our address is banned"):
        await run(look_up(client, tries=3, clock=server.clock, on_retry=lambda *noted: retries.append(str(noted[2]))))
    assert [f"the next one is sent in {seconds} s" in text for seconds, text in zip((5, 10), retries, strict=True)] == [
        True,
        True,
    ]
    assert server.times[2] >= 15.0


async def test_a_ban_that_another_request_meets_is_named_wherever_the_look_up_waits(
    client: BotClient, server: Any, plays: Any, run: Any, eventually: Any, gateway_document: Any
) -> None:
    """Behind requests that wait for the end of the ban, and behind the one that finds out whether it has ended."""
    released = asyncio.Event()
    refused = plays.answer(429, BANNED)
    server.script.append(refused)
    others = [asyncio.create_task(client.request("GET", "/channels/{channel_id}", channel_id=n)) for n in range(2)]
    await eventually(lambda: server.clock.next_due() is not None and server.at_once == 0)
    with pytest.raises(AddressBanned, match="our address is banned"):
        await client.gateway_bot(waits=False)
    before = len(server.seen)
    server.script.append(plays.stall_until(released, refused))
    await server.clock.advance(5.0)
    await eventually(lambda: len(server.seen) > before)
    server.script.extend([plays.answer(200, gateway_document)] * 3)
    waiting = asyncio.create_task(client.gateway_bot(waits=False))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    released.set()
    with pytest.raises(AddressBanned):
        await waiting
    await run(asyncio.gather(*others))
    await client.gateway_bot(waits=False)
