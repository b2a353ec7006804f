"""GET /gateway/bot: decoding, and the look-up that does not give up."""

from __future__ import annotations

from typing import Any

import pytest

from discorder.errors import AuthenticationFailed, GatewayUnreachable, HTTPError, NoAnswer, RestError
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
        await look_up(client, tries=None, clock=server.clock)
    assert len(server.seen) == 1


async def test_a_missing_field_is_named(client: BotClient, server: Any, plays: Any, gateway_document: Any) -> None:
    del gateway_document["session_start_limit"]["max_concurrency"]
    server.script.append(plays.answer(200, gateway_document))
    with pytest.raises(RestError, match="max_concurrency"):
        await client.gateway_bot()


async def test_without_a_limit_it_tries_until_there_is_an_answer(
    client: BotClient, server: Any, plays: Any, run: Any, gateway_document: Any
) -> None:
    faults = [
        plays.text(502, "bad"),
        plays.reset,
        plays.reset,
        plays.answer(500, {}),
    ]  # a cut GET: the HTTP library asks twice
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


async def test_a_wrong_base_url_is_not_tried_again(client: BotClient, server: Any, plays: Any) -> None:
    server.script.append(plays.answer(404, {"message": "404: Not Found", "code": 0}))
    with pytest.raises(HTTPError, match="404"):
        await look_up(client, tries=None, clock=server.clock)


async def test_a_rate_limit_is_waited_out_even_by_a_client_that_raises(
    server: Any, plays: Any, token: str, run: Any, gateway_document: Any
) -> None:
    server.script.extend([plays.too_many(90.0, "user"), plays.answer(200, gateway_document)])
    async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
        await run(look_up(client, tries=2, clock=server.clock))
    assert server.times[1] >= 90.0
