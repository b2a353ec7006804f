"""The REST routes, their errors and their rate limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from discorder.clock import FakeClock
from discorder.simulator import RestRequest, Simulator, ViolationKind

Start = Callable[..., Awaitable[Simulator]]
Make = Callable[[Simulator], Any]
CHANNEL = 1345205174045638728  # #general of guild 0


class Rest:
    """Requests with the bot's token."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.headers: dict[str, str] = {}

    async def __call__(self, sim: Simulator, verb: str, **options: Any) -> tuple[int, Any]:
        method, path = verb.split()
        headers = {"Authorization": f"Bot {sim.token}"} | options.pop("headers", {})
        async with self._http.request(method, sim.api_url + path, headers=headers, **options) as response:
            self.headers = dict(response.headers)
            return response.status, await response.json() if response.status != 204 else None


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    """A REST client."""
    async with aiohttp.ClientSession() as http:
        yield Rest(http)


async def test_the_gateway_is_looked_up(start_simulator: Start, rest: Rest) -> None:
    """`/gateway` needs no token; `/gateway/bot` shows shards and the identify budget."""
    sim = await start_simulator(clock=FakeClock(), shards=3, max_concurrency=2, session_start_remaining=990)
    assert sim.api_url.endswith("/api/v10")
    assert await rest(sim, "GET /gateway", headers={"Authorization": ""}) == (200, {"url": sim.gateway_url})
    limit = {"total": 1000, "remaining": 990, "reset_after": 86_400_000, "max_concurrency": 2}
    expected = {"url": sim.gateway_url, "shards": 3, "session_start_limit": limit}
    assert await rest(sim, "GET /gateway/bot") == (200, expected)
    assert rest.headers["Content-Type"] == "application/json"


async def test_the_budget_shows_what_is_left(start_simulator: Start, rest: Rest, make_client: Make) -> None:
    """An IDENTIFY costs one; the reset is up to 24 h away."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    await (await make_client(sim).dial()).identify()
    await clock.advance(1)
    _, answer = await rest(sim, "GET /gateway/bot")
    assert answer["session_start_limit"]["remaining"] == 999
    assert answer["session_start_limit"]["reset_after"] == (24 * 3600 - 1) * 1000


@pytest.mark.parametrize("prefix", ["/api", "/api/v9", "/api/v10"])
async def test_every_version_prefix_is_served(start_simulator: Start, rest: Rest, prefix: str) -> None:
    """Without a version too."""
    sim = await start_simulator()
    root = sim.api_url.removesuffix("/api/v10")
    async with aiohttp.ClientSession() as http, http.get(f"{root}{prefix}/gateway") as response:
        assert response.status == 200


@pytest.mark.parametrize("authorization", ["", "Bot wrong", "Bearer x"])
async def test_a_wrong_token_is_refused(start_simulator: Start, rest: Rest, authorization: str) -> None:
    """401 with Discord's body, on unknown routes too."""
    sim = await start_simulator()
    for path in ("/users/@me", "/nothing/here"):
        status, body = await rest(sim, f"GET {path}", headers={"Authorization": authorization})
        assert (status, body) == (401, {"message": "401: Unauthorized", "code": 0})


async def test_errors_have_discords_body(start_simulator: Start, rest: Rest) -> None:
    """Unknown routes, methods, channels, guilds, and bodies that are no JSON."""
    sim = await start_simulator()
    assert await rest(sim, "GET /nothing") == (404, {"message": "404: Not Found", "code": 0})
    assert (await rest(sim, "DELETE /gateway"))[0] == 405
    assert (await rest(sim, "GET /channels/1"))[1]["code"] == 10003
    assert (await rest(sim, "POST /channels/1/messages", json={"content": "x"}))[1]["code"] == 10003
    assert (await rest(sim, "GET /guilds/1"))[1]["code"] == 10004
    assert (await rest(sim, f"POST /channels/{CHANNEL}/messages", data=b"{"))[1]["code"] == 50109
    assert (await rest(sim, f"POST /channels/{CHANNEL}/messages", json={}))[1]["code"] == 50006


async def test_the_bot_and_its_application(start_simulator: Start, rest: Rest) -> None:
    """One identity everywhere; guilds and channels can be read."""
    sim = await start_simulator()
    _, user = await rest(sim, "GET /users/@me")
    for path in ("/oauth2/applications/@me", "/applications/@me"):
        assert (await rest(sim, f"GET {path}"))[1]["id"] == user["id"]
    assert (await rest(sim, f"GET /guilds/{sim.guild_ids[1]}"))[1]["id"] == str(sim.guild_ids[1])
    status, channel = await rest(sim, f"GET /channels/{CHANNEL + (1 << 22)}")
    assert (status, channel["guild_id"]) == (200, str(sim.guild_ids[1]))


async def test_a_message_is_answered_and_heard_by_the_world(
    start_simulator: Start, rest: Rest, make_client: Make
) -> None:
    """MESSAGE_CREATE goes to the shard of the channel's guild, with the content, and only if the intents allow."""
    sim = await start_simulator(guilds=2)
    client = await make_client(sim).dial()
    await client.identify()
    channel = CHANNEL + (1 << 22)
    status, message = await rest(sim, f"POST /channels/{channel}/messages", json={"content": "hi", "nonce": "7"})
    heard = await client.until("MESSAGE_CREATE")
    assert (status, message["content"], message["channel_id"], message["nonce"]) == (200, "hi", str(channel), "7")
    assert heard == message
    assert heard["guild_id"] == str(sim.guild_ids[1])
    assert heard["author"]["bot"] is True
    form = aiohttp.FormData()
    form.add_field("payload_json", '{"content":"with a file"}')
    form.add_field("files[0]", b"data", filename="a.txt")
    _, message = await rest(sim, f"POST /channels/{CHANNEL}/messages", data=form)
    assert (await client.until("MESSAGE_CREATE"))["content"] == message["content"] == "with a file"


async def test_a_slash_command_bot_finds_its_routes(start_simulator: Start, rest: Rest) -> None:
    """Commands are echoed with ids; an interaction is answered with 204, or with the callback; follow-ups are messages."""
    sim = await start_simulator()
    app = (await rest(sim, "GET /users/@me"))[1]["id"]
    commands = [{"name": "ping", "description": "pong"}]
    status, echoed = await rest(sim, f"PUT /applications/{app}/commands", json=commands)
    assert (status, echoed[0]["name"], echoed[0]["application_id"]) == (200, "ping", app)
    assert (await rest(sim, f"GET /applications/{app}/commands")) == (200, [])
    callback = "POST /interactions/123/fake-token/callback"
    anybody = {"Authorization": ""}
    assert await rest(sim, callback, json={"type": 5}, headers=anybody) == (204, None)
    answer = {"type": 4, "data": {"content": "pong"}}
    status, body = await rest(sim, callback + "?with_response=true", json=answer, headers=anybody)
    assert (status, body["resource"]["message"]["content"]) == (200, "pong")
    hook = f"/webhooks/{app}/fake-token"
    assert (await rest(sim, f"POST {hook}", json={"content": "more"}))[1]["content"] == "more"
    assert (await rest(sim, f"PATCH {hook}/messages/@original", json={"content": "new"}))[1]["content"] == "new"
    assert await rest(sim, f"DELETE {hook}/messages/@original") == (204, None)


async def test_a_bucket_runs_out_and_refills(start_simulator: Start, rest: Rest) -> None:
    """Five messages in 5 s and channel; the sixth is a 429 that says how long; another channel has its own bucket."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    post = f"POST /channels/{CHANNEL}/messages"
    for left in (4, 3, 2, 1, 0):
        assert (await rest(sim, post, json={"content": "x"}))[0] == 200
        assert rest.headers["X-RateLimit-Remaining"] == str(left)
    bucket = rest.headers["X-RateLimit-Bucket"]
    await clock.advance(2)
    status, body = await rest(sim, post, json={"content": "x"})
    assert (status, body["retry_after"], body["global"]) == (429, 3.0, False)
    assert (rest.headers["Retry-After"], rest.headers["X-RateLimit-Scope"]) == ("3", "user")
    assert rest.headers["X-RateLimit-Reset-After"] == "3.000"
    assert (await rest(sim, f"POST /channels/{CHANNEL + (1 << 22)}/messages", json={"content": "x"}))[0] == 200
    assert rest.headers["X-RateLimit-Bucket"] == bucket
    await clock.advance(3)
    assert (await rest(sim, post, json={"content": "x"}))[0] == 200
    assert [violation.kind for violation in sim.violations] == [ViolationKind.REST_LIMIT]


async def test_the_global_limit_counts_every_route_but_interactions(start_simulator: Start, rest: Rest) -> None:
    """429 with the global flag and headers."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock, rest_global_limit=2)
    await rest(sim, "GET /users/@me")
    await rest(sim, "GET /gateway/bot")
    status, body = await rest(sim, "GET /users/@me")
    assert (status, body["global"], rest.headers["X-RateLimit-Global"]) == (429, True, "true")
    assert (await rest(sim, "POST /interactions/1/t/callback", json={"type": 5}))[0] == 204
    await clock.advance(1)
    assert (await rest(sim, "GET /users/@me"))[0] == 200


async def test_every_request_is_recorded(start_simulator: Start, rest: Rest) -> None:
    """Method, path below the version, query, body, status; never the token."""
    sim = await start_simulator()
    await rest(sim, "GET /users/@me?a=b")
    await rest(sim, "POST /nowhere", json={})
    assert sim.rest_requests == [
        RestRequest("GET", "/users/@me", "a=b", b"", 200),
        RestRequest("POST", "/nowhere", "", b"{}", 404),
    ]


async def test_a_deletion_counts_on_a_bucket_of_the_messages_age(start_simulator: Start, rest: Rest) -> None:
    """Three buckets of one route: below 10 s, above 14 days, and in between."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    now = int(clock.now().timestamp() * 1000) - 1_420_070_400_000
    seen = []
    for age in (1_000, 60_000, 15 * 86_400_000):
        await rest(sim, f"DELETE /channels/{CHANNEL}/messages/{(now - age) << 22}")
        seen.append((rest.headers["X-RateLimit-Bucket"], rest.headers["X-RateLimit-Limit"]))
    assert [limit for _, limit in seen] == ["3", "5", "30"]
    assert len({bucket for bucket, _ in seen}) == 3


async def test_a_third_rename_is_refused_by_a_limit_that_no_header_shows(start_simulator: Start, rest: Rest) -> None:
    """The bucket has requests left; another edit passes; ten minutes later a rename does, too."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    edit = f"PATCH /channels/{CHANNEL}"
    for change in ({"name": "a"}, {"topic": "b"}):
        status, channel = await rest(sim, edit, json=change)
        assert (status, {key: channel[key] for key in change}) == (200, change)
    status, body = await rest(sim, edit, json={"name": "c"})
    assert (status, body["retry_after"], rest.headers["X-RateLimit-Remaining"]) == (429, 600.0, "17")
    assert (await rest(sim, edit, json={"nsfw": True}))[0] == 200
    await clock.advance(600)
    assert (await rest(sim, edit, json={"name": "c"}))[0] == 200
    assert (await rest(sim, "PATCH /channels/1", json={"name": "c"}))[1]["code"] == 10003
    assert (await rest(sim, edit, json=[]))[0] == 400


async def test_reactions_of_a_channel_share_a_bucket(start_simulator: Start, rest: Rest) -> None:
    """One in a quarter of a second, whatever the emoji and the method."""
    clock = FakeClock()
    sim = await start_simulator(clock=clock)
    reactions = f"/channels/{CHANNEL}/messages/1/reactions"
    assert (await rest(sim, f"PUT {reactions}/👍/@me"))[0] == 204
    assert (await rest(sim, f"DELETE {reactions}/name:123/@me"))[0] == 429
    await clock.advance(0.25)
    assert (await rest(sim, f"DELETE {reactions}/name:123/@me"))[0] == 204
    await clock.advance(0.25)
    assert (await rest(sim, "PUT /channels/1/messages/1/reactions/x/@me"))[0] == 404


async def test_an_oauth_endpoint_refuses_bots(start_simulator: Start, rest: Rest) -> None:
    """With the same words as a wrong token gets."""
    sim = await start_simulator()
    assert await rest(sim, "GET /oauth2/@me") == (401, {"message": "401: Unauthorized", "code": 0})
    assert (await rest(sim, "GET /users/@me"))[0] == 200


async def test_a_banned_address_gets_a_429_without_a_wait_until_it_is_healed(
    start_simulator: Start, rest: Rest
) -> None:
    """On every route, with a token or without."""
    sim = await start_simulator()
    await sim.block_address()
    for verb in ("GET /gateway", "GET /users/@me", "POST /interactions/1/t/callback"):
        status, body = await rest(sim, verb)
        assert (status, set(body)) == (429, {"message", "code"})
        assert not [name for name in rest.headers if name.startswith(("X-RateLimit", "Retry"))]
    await sim.heal()
    assert (await rest(sim, "GET /users/@me"))[0] == 200
    with pytest.raises(ValueError, match="shard is 0"):
        await sim.block_address(shard=0)
