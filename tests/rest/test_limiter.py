"""The rate limiter through the client, against a server that keeps the limits by itself."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from discorder.errors import HTTPError, RateLimited, TooManyInvalidRequests
from discorder.rest import BotClient, RateLimitMode
from discorder.rest.limits import INVALID_STOP
from discorder.rest.response import Response


def by_channel(path: str) -> tuple[str, str] | None:
    """One hash for all routes of a channel, one quota per channel; everything else is unlimited."""
    match = re.match(r"/channels/(\d+)", path)
    return ("hash", match[1]) if match else None


def get(client: BotClient, channel: int, message: int) -> asyncio.Task[Any]:
    return asyncio.create_task(
        client.request("GET", "/channels/{channel_id}/messages/{message_id}", channel_id=channel, message_id=message)
    )


async def test_a_bucket_is_never_overdrawn_and_its_requests_leave_in_order(
    client: BotClient, server: Any, run: Any
) -> None:
    server.bucket_of = by_channel
    await run(asyncio.gather(*(get(client, 1, n) for n in range(23))))
    assert server.refused == 0
    assert server.paths == [f"/channels/1/messages/{n}" for n in range(23)]
    assert server.times[-1] == pytest.approx(20.0, abs=0.1), "five windows of five"


async def test_an_unknown_bucket_is_tried_with_one_request(client: BotClient, server: Any, eventually: Any) -> None:
    server.bucket_of, server.hold = by_channel, asyncio.Event()
    tasks = [get(client, channel, n) for n in range(4) for channel in (1, 2)]
    await eventually(lambda: server.at_once == 2)
    await asyncio.sleep(0.02)
    assert sorted(server.paths) == ["/channels/1/messages/0", "/channels/2/messages/0"], (
        "one per route and major parameter"
    )
    server.hold.set()
    await asyncio.gather(*tasks)
    assert len(server.seen) == 8


async def test_a_known_bucket_is_used_in_parallel(client: BotClient, server: Any, eventually: Any) -> None:
    server.bucket_of = by_channel
    await get(client, 1, 0)
    server.hold = asyncio.Event()
    tasks = [get(client, 1, n) for n in range(1, 5)]
    await eventually(lambda: server.at_once == 4)
    server.hold.set()
    await asyncio.gather(*tasks)


async def test_routes_that_share_a_hash_share_the_bucket(client: BotClient, server: Any, run: Any) -> None:
    server.bucket_of = by_channel
    for method in ("GET", "PATCH"):
        await client.request(method, "/channels/{channel_id}", channel_id=1)
    tasks = [client.request(m, "/channels/{channel_id}", channel_id=1) for m in ("GET", "PATCH") for _ in range(4)]
    await run(asyncio.gather(*tasks))
    assert server.refused == 0


async def test_a_route_without_limits_is_not_serialised(client: BotClient, server: Any, eventually: Any) -> None:
    await client.request("GET", "/users/@me")
    server.bucket_of, server.hold = lambda _path: ("h", "x"), asyncio.Event()
    tasks = [asyncio.create_task(client.request("GET", "/users/@me")) for _ in range(5)]
    await eventually(lambda: server.at_once == 5)
    server.hold.set()
    await asyncio.gather(*tasks)


async def test_at_most_fifty_requests_leave_in_a_second_over_all_buckets(
    client: BotClient, server: Any, run: Any
) -> None:
    await run(asyncio.gather(*(client.request("GET", "/channels/{channel_id}", channel_id=n) for n in range(120))))
    assert sorted(server.paths) == sorted(f"/channels/{n}" for n in range(120))
    times = sorted(server.times)
    assert all(late - early >= 1.0 for early, late in zip(times, times[50:], strict=False))
    assert times[-1] < 4.0


async def test_interaction_endpoints_do_not_count_in_the_global_limit(
    client: BotClient, server: Any, plays: Any
) -> None:
    server.script.extend([plays.answer(200, {})] * 120)
    callback = "/interactions/{interaction_id}/{interaction_token}/callback"
    await asyncio.gather(
        *(client.request("POST", callback, interaction_id=n, interaction_token="t", json={}) for n in range(120))
    )
    assert server.clock.monotonic() == 0.0


@pytest.mark.parametrize("scope", ["user", "shared"])
async def test_a_429_holds_its_bucket_and_no_other(
    client: BotClient, server: Any, plays: Any, run: Any, eventually: Any, scope: str
) -> None:
    server.script.append(plays.too_many(7.5, scope))
    held = [get(client, 1, n) for n in range(3)]
    await eventually(lambda: server.clock.next_due() is not None)
    await get(client, 2, 0)
    assert server.clock.monotonic() == 0.0
    await run(asyncio.gather(*held))
    assert server.paths[:1] + server.paths[2:] == [f"/channels/1/messages/{n}" for n in (0, 0, 1, 2)], (
        "sent back to the head"
    )
    assert server.times[2] == 7.5


async def test_a_global_429_holds_everything_but_interactions(
    client: BotClient, server: Any, plays: Any, run: Any, eventually: Any
) -> None:
    server.script.append(plays.too_many(3.0, "global"))
    held = get(client, 1, 0)
    await eventually(lambda: len(server.seen) == 1)
    await asyncio.sleep(0.01)
    other = get(client, 2, 0)
    await client.request("POST", "/interactions/{a}/{b}/callback", a=1, b="t")
    assert server.clock.monotonic() == 0.0
    await run(asyncio.gather(held, other))
    assert server.times[2:] == [3.0, 3.0]


@pytest.mark.parametrize(("headers", "wait"), [({"Retry_After": "12"}, 12.0), ({}, 5.0), ({"Retry_After": "nan"}, 5.0)])
async def test_a_429_without_json_holds_everything(
    client: BotClient, server: Any, plays: Any, run: Any, eventually: Any, headers: dict[str, str], wait: float
) -> None:
    server.script.append(plays.text(429, "error code: 1015", **headers))
    held = get(client, 1, 0)
    await eventually(lambda: server.clock.next_due() is not None)
    others = [
        get(client, 2, 0),
        asyncio.create_task(client.request("POST", "/interactions/{a}/{b}/callback", a=1, b="t")),
    ]
    await run(asyncio.gather(held, *others))
    assert server.times[1:] == [wait] * 3


async def test_a_429_does_not_use_up_the_tries(client: BotClient, server: Any, plays: Any, run: Any) -> None:
    server.script.extend([plays.too_many(1.0, "user")] * 8)
    assert await run(get(client, 1, 0)) == {"ok": 9}


async def test_mode_raise_raises_at_once_what_it_would_have_to_wait(server: Any, token: str) -> None:
    server.bucket_of = by_channel
    async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
        outcomes = await asyncio.gather(*(get(client, 1, n) for n in range(8)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [dict] * 5 + [RateLimited] * 3
        error = outcomes[-1]
        assert isinstance(error, RateLimited)
        assert (error.retry_after, error.scope, error.method, error.path) == (
            5.0,
            "user",
            "GET",
            "/channels/1/messages/7",
        )
        await server.clock.advance(5.0)
        await get(client, 1, 9)


async def test_mode_raise_raises_for_the_global_limit_and_frees_the_bucket(server: Any, token: str) -> None:
    async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
        await asyncio.gather(*(get(client, n, 0) for n in range(50)))
        with pytest.raises(RateLimited) as caught:
            await get(client, 99, 0)
        assert caught.value.scope == "global"
        await server.clock.advance(1.0)
        await get(client, 99, 0)


@pytest.mark.parametrize("scope", ["user", "global", "shared"])
async def test_mode_raise_raises_for_a_429(server: Any, plays: Any, token: str, scope: str) -> None:
    server.script.append(plays.too_many(2.0, scope))
    async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
        for _ in range(2):
            with pytest.raises(RateLimited) as caught:
                await get(client, 1, 0)
            assert (caught.value.scope, caught.value.retry_after) == (scope, 2.0)
    assert len(server.seen) == 1


async def test_a_cancelled_waiter_leaves_no_trace(client: BotClient, server: Any, eventually: Any) -> None:
    server.bucket_of, server.hold = by_channel, asyncio.Event()
    tasks = [get(client, 1, n) for n in range(5)]
    await eventually(lambda: len(server.seen) == 1)
    for doomed in tasks[1:4]:
        doomed.cancel()
    await asyncio.gather(*tasks[1:4], return_exceptions=True)
    server.hold.set()
    await asyncio.gather(tasks[0], tasks[4])
    assert server.paths == ["/channels/1/messages/0", "/channels/1/messages/4"]


async def test_a_request_cancelled_under_way_lets_the_next_one_go(
    client: BotClient, server: Any, eventually: Any
) -> None:
    server.bucket_of, server.hold = by_channel, asyncio.Event()
    first, second = get(client, 1, 0), get(client, 1, 1)
    await eventually(lambda: len(server.seen) == 1)
    first.cancel()
    server.hold.set()
    await second
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()


async def test_a_request_cancelled_in_the_moment_it_is_woken_passes_its_turn_on(
    client: BotClient, server: Any, eventually: Any
) -> None:
    """The answer to the first wakes the second, which is cancelled before it runs; the third must not be left behind."""
    server.bucket_of, server.hold = by_channel, asyncio.Event()
    first, second, third = (get(client, 1, n) for n in range(3))
    first.add_done_callback(lambda _: second.cancel())
    await eventually(lambda: len(server.seen) == 1)
    server.hold.set()
    await asyncio.wait_for(third, 5)
    await asyncio.gather(first, second, return_exceptions=True)


@pytest.mark.heavy
async def test_too_many_invalid_requests_stop_everything_well_before_the_ban(
    client: BotClient, server: Any, plays: Any, run: Any
) -> None:
    shared = [plays.too_many(0.0, "shared")] * 3
    server.script.extend(shared + [plays.answer(403, {"message": "Missing Access", "code": 50001})] * INVALID_STOP)

    async def ask(number: int) -> None:
        with pytest.raises(HTTPError, match="50001"):
            await client.request("POST", "/interactions/{a}/{b}/callback", a=number, b="t")

    for start in range(0, INVALID_STOP, 500):
        await asyncio.gather(*(ask(n) for n in range(start, start + 500)))
        await server.clock.advance(1.0)
    sent = len(server.seen)
    assert sent == INVALID_STOP + 3, "a shared 429 does not count"
    with pytest.raises(TooManyInvalidRequests, match="403 or 429") as caught:
        await client.request("GET", "/users/@me")
    assert len(server.seen) == sent
    assert caught.value.retry_after == pytest.approx(590.0)
    await server.clock.advance(590.0)
    await client.request("GET", "/users/@me")


@pytest.mark.parametrize(
    ("status", "scope", "counts"),
    [
        *((401, "", True), (403, "", True), (429, "user", True), (429, "global", True), (429, "", True)),
        *((429, "shared", False), (404, "", False), (400, "", False), (500, "", False), (200, "", False)),
    ],
)
def test_what_counts_on_the_way_to_a_ban(status: int, scope: str, counts: bool) -> None:
    """docs/protocol.md#rest: 401, 403 and 429, unless somebody else used up what all share."""
    headers = {"X-RateLimit-Scope": scope} if scope else {}
    assert Response(status, "", headers, b"{}").is_invalid is counts


async def test_idle_buckets_are_forgotten(client: BotClient, server: Any) -> None:
    server.bucket_of = by_channel
    for channel in range(20):
        await get(client, channel, 0)
    assert "… 12 more" in repr(client)
    await server.clock.advance(60.0)
    await get(client, 1, 0)
    assert repr(client) == "BotClient(<token>, RateLimiter(buckets={hash / channel 1: 4 of 5}, WAIT))"


@pytest.mark.parametrize(
    "broken", [{"X_RateLimit_Limit": "many"}, {"X_RateLimit_Reset_After": "inf"}, {"X_RateLimit_Remaining": "-1"}]
)
async def test_headers_that_make_no_sense_are_ignored(
    client: BotClient, server: Any, plays: Any, broken: dict[str, str]
) -> None:
    good = {
        "X_RateLimit_Bucket": "b",
        "X_RateLimit_Limit": "1",
        "X_RateLimit_Remaining": "0",
        "X_RateLimit_Reset_After": "9",
    }
    server.script.append(plays.answer(200, {}, **{**good, **broken}))
    await get(client, 1, 0)
    await get(client, 1, 0)
    assert server.clock.monotonic() == 0.0
