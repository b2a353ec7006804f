"""What only answers show: several buckets of one route, sub-limits, a ban of the address."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from discorder.errors import RateLimited
from discorder.rest import BotClient, RateLimitMode
from discorder.simulator import Simulator, ViolationKind

MESSAGE = "/channels/{channel_id}/messages/{message_id}"
REACTION = MESSAGE + "/reactions/{emoji}/@me"
CHANNEL = 1345205174045638728  # #general of guild 0 of the simulator
DISCORD_EPOCH_MS = 1_420_070_400_000
BLOCKED = {"message": "You are being blocked from accessing our API temporarily due to …", "code": 0}


async def in_parallel(most: int, jobs: Sequence[Callable[[], Any]]) -> None:
    """At most ``most`` at a time, as a bot that clears a channel does it."""
    permits = asyncio.Semaphore(most)

    async def one(job: Callable[[], Any]) -> None:
        async with permits:
            await job()

    await asyncio.gather(*(one(job) for job in jobs))


# --- several buckets of one route


@pytest.mark.parametrize(
    "order", ["alternating", "alternating the other way", "blocks", "random 1", "random 2", "three"]
)
async def test_a_route_with_several_buckets_is_not_overdrawn(
    client: BotClient, server: Any, run: Any, order: str
) -> None:
    """Nothing in the request tells which bucket its answer will name."""
    buckets: dict[str, Callable[[int], int]] = {
        "alternating": lambda n: n % 2,
        "alternating the other way": lambda n: 1 - n % 2,
        "blocks": lambda n: n // 10 % 2,
        "random 1": lambda n: random.Random(n).randrange(2),
        "random 2": lambda n: random.Random(n + 999).randrange(2),
        "three": lambda n: n % 3,
    }
    server.quota_of = {"h0": (30, 4.0), "h1": (3, 0.333), "h2": (5, 1.0)}
    server.bucket_of = lambda path: (f"h{buckets[order](int(path.rpartition('/')[2]))}", "x")
    delete = [partial(client.request, "DELETE", MESSAGE, channel_id=1, message_id=n) for n in range(120)]
    await run(in_parallel(12, delete))
    assert server.refused <= 2
    assert server.times[-1] < 60


async def test_a_bucket_that_a_route_once_had_does_not_slow_it_down(client: BotClient, server: Any, run: Any) -> None:
    names = deque(["old"])
    server.quota_of = {"old": (1, 3600.0), "new": (50, 1.0)}
    server.bucket_of = lambda _path: (names[0], "x")
    await client.request("GET", "/channels/{channel_id}", channel_id=1)
    await server.clock.advance(3600)
    names[0] = "new"
    await client.request("GET", "/channels/{channel_id}", channel_id=1)
    started = server.clock.monotonic()
    await run(asyncio.gather(*(client.request("GET", "/channels/{channel_id}", channel_id=1) for _ in range(40))))
    assert server.clock.monotonic() - started < 5


async def test_deletions_of_messages_of_every_age_are_not_refused_and_do_not_wait_for_each_other(
    server: Any, run: Any
) -> None:
    """The simulator has three buckets for them: 3 a second when new, 30 in two minutes after 14 days, 5 a second otherwise."""
    clock = server.clock
    async with Simulator(guilds=1, clock=clock) as sim, BotClient(sim.token, api=sim.api_url, clock=clock) as client:
        ids = {
            name: (int(clock.now().timestamp() * 1000) - DISCORD_EPOCH_MS - int(age.total_seconds() * 1000)) << 22
            for name, age in {"new": timedelta(0), "middle": timedelta(days=1), "old": timedelta(days=20)}.items()
        }
        mixed = [ids[name] + n for n in range(15) for name in ("new", "middle", "old")]
        delete = [partial(client.request, "DELETE", MESSAGE, channel_id=CHANNEL, message_id=i) for i in mixed]
        await run(in_parallel(12, delete))
        assert sim.violations == []
        assert clock.monotonic() < 20, "the deletions of old messages used 15 of their 30"


@pytest.mark.parametrize("literal", [False, True])
async def test_reactions_of_all_emojis_share_a_bucket_however_they_are_written(
    server: Any, run: Any, literal: bool
) -> None:
    emojis = ["👍", "❤️", "%F0%9F%94%A5", "name:123456789012345678", "🇩🇪", "ok", "✅", "123"]
    clock = server.clock
    async with Simulator(guilds=1, clock=clock) as sim, BotClient(sim.token, api=sim.api_url, clock=clock) as client:
        jobs = [
            client.request("PUT", f"/channels/{CHANNEL}/messages/{CHANNEL}/reactions/{emoji}/@me")
            if literal
            else client.request("PUT", REACTION, channel_id=CHANNEL, message_id=CHANNEL, emoji=emoji)
            for emoji in emojis
        ]
        await run(asyncio.gather(*jobs))
        assert sim.violations == []


# --- sub-limits


async def test_renames_wait_for_their_own_limit_and_other_edits_go_on(server: Any, run: Any, eventually: Any) -> None:
    clock = server.clock
    async with Simulator(guilds=1, clock=clock) as sim, BotClient(sim.token, api=sim.api_url, clock=clock) as client:

        async def edit(**changes: object) -> float:
            await client.request("PATCH", "/channels/{channel_id}", channel_id=CHANNEL, json=changes)
            at: float = clock.monotonic()
            return at

        renames = [asyncio.create_task(edit(name=f"n{n}")) for n in range(5)]
        await eventually(lambda: len(sim.violations) > 0)
        for _ in range(3):
            assert await asyncio.wait_for(edit(bitrate=64_000), 2) < 10
        both = asyncio.create_task(edit(name="x", bitrate=1))
        await asyncio.sleep(0.01)
        finished = [await run(rename) for rename in renames]
        assert await run(both) >= 600
        assert [int(at // 600) for at in finished] == [0, 0, 1, 1, 2]
        assert {violation.kind for violation in sim.violations} == {ViolationKind.REST_LIMIT}
        assert len(sim.violations) <= 6, "the first ones, which went out together, and one per period"


async def test_a_rename_raises_and_other_edits_pass_in_mode_raise(server: Any, token: str) -> None:
    clock = server.clock
    async with (
        Simulator(guilds=1, clock=clock) as sim,
        BotClient(sim.token, api=sim.api_url, clock=clock, mode=RateLimitMode.RAISE) as client,
    ):

        async def edit(**changes: object) -> object:
            return await client.request("PATCH", "/channels/{channel_id}", channel_id=CHANNEL, json=changes)

        await edit(name="a")
        await edit(topic="b")
        for _ in range(3):
            with pytest.raises(RateLimited) as caught:
                await edit(name="c")
            assert caught.value.retry_after == pytest.approx(600)
            await edit(nsfw=True)
        assert len(sim.violations) == 1


async def test_a_sub_limit_that_meets_two_paths_holds_the_route(
    client: BotClient, server: Any, plays: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Edits of old messages: the answers do not state the scope of the limit, so each message would be tried in vain."""
    left = {"X_RateLimit_Bucket": "b", "X_RateLimit_Limit": "5", "X_RateLimit_Remaining": "4"}
    left["X_RateLimit_Reset_After"] = "1.0"
    refused = {"message": "Maximum number of edits …", "code": 30046, "retry_after": 500.0, "global": False}
    server.script.extend([plays.answer(200, {}, **left), *[plays.answer(429, refused, **left)] * 2])

    async def edit(message: int, **changes: object) -> None:
        await client.request("PATCH", MESSAGE, channel_id=1, message_id=message, json=changes)

    await edit(1, content="x")
    held = [asyncio.create_task(edit(message, content="y")) for message in range(2, 20)]
    await eventually(lambda: caplog.text.count("rate limited (user)") == 2)
    held += [asyncio.create_task(edit(message, content="y")) for message in range(20, 40)]
    await asyncio.wait_for(edit(50, flags=4), 5)  # it has the last place in the queue of the route
    assert len(server.seen) < 9
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


# --- a ban of the address


async def test_a_ban_of_the_address_stops_everything_with_growing_pauses(
    server: Any, run: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = server.clock
    async with Simulator(guilds=1, clock=clock) as sim, BotClient(sim.token, api=sim.api_url, clock=clock) as client:
        await sim.block_address()
        jobs = [
            asyncio.create_task(client.request("GET", "/channels/{channel_id}", channel_id=CHANNEL)) for _ in range(8)
        ]
        jobs += [asyncio.create_task(client.request("GET", "/guilds/{guild_id}", guild_id=n)) for n in sim.guild_ids]
        callback = "/interactions/{interaction_id}/{interaction_token}/callback"
        jobs += [
            asyncio.create_task(
                client.request("POST", callback, interaction_id=n, interaction_token="t", json={"type": 5})
            )
            for n in range(8)
        ]
        await eventually(lambda: clock.next_due() is not None)
        await asyncio.sleep(0.1)
        at_first = len(sim.rest_requests)
        tried: list[int] = []
        for pause in (5, 10, 20, 40, 80, 160, 320, 600, 600):
            await clock.advance(pause - 0.1)
            await asyncio.sleep(0.02)
            assert len(sim.rest_requests) == at_first + len(tried), f"nothing within {pause} s"
            await clock.advance(0.1)
            await eventually(lambda: len(sim.rest_requests) > at_first + len(tried))
            await asyncio.sleep(0.02)
            tried.append(pause)
            assert len(sim.rest_requests) == at_first + len(tried), "one request finds out"
        assert sum("Discord refuses every request from this address" in text for text in caplog.messages) == 10
        await sim.heal()
        await run(asyncio.gather(*jobs))
        assert "Discord answers this address again; requests go on" in caplog.messages
        assert sim.rest_requests[-1].status in {200, 204}


async def test_a_probe_that_is_cancelled_leaves_its_turn_to_the_next(
    client: BotClient, server: Any, plays: Any, run: Any, eventually: Any
) -> None:
    server.script.extend([plays.answer(429, BLOCKED), plays.stall])
    first = asyncio.create_task(client.request("GET", "/channels/{channel_id}", channel_id=1))
    await eventually(lambda: server.clock.next_due() is not None)
    second = asyncio.create_task(client.request("GET", "/channels/{channel_id}", channel_id=2))
    await server.clock.advance(5.0)
    await eventually(lambda: len(server.seen) == 2)
    first.cancel()
    await run(asyncio.gather(second))
    await asyncio.gather(first, return_exceptions=True)


async def test_a_ban_raises_in_mode_raise(server: Any, plays: Any, token: str) -> None:
    server.script.append(plays.answer(429, BLOCKED))
    async with BotClient(token, api=server.api, clock=server.clock, mode=RateLimitMode.RAISE) as client:
        for path in ("/users/@me", "/channels/1"):
            with pytest.raises(RateLimited) as caught:
                await client.request("GET", path)
            assert (caught.value.scope, caught.value.retry_after) == ("global", 5.0)
    assert len(server.seen) == 1


@pytest.mark.parametrize("is_global", [False, True])
@pytest.mark.parametrize("stated", [0, 0.001, "nonsense", None])
async def test_a_server_that_refuses_for_ever_is_not_hammered(
    client: BotClient, server: Any, plays: Any, stated: object, is_global: bool
) -> None:
    body = {"message": "You are being rate limited.", "retry_after": stated, "global": is_global}
    refuse = plays.answer(429, body)

    async def refuse_after_a_while(request: web.Request) -> web.StreamResponse:
        await server.clock.advance(0.001)
        response: web.StreamResponse = await refuse(request)
        return response

    server.script.extend([refuse_after_a_while] * 1000)
    task = asyncio.create_task(client.request("GET", "/users/@me"))
    for _ in range(120):
        await asyncio.sleep(0.001)
        await server.clock.advance(0.5)
    assert len(server.seen) < 15, "in a minute"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_window_name_that_jumped_does_not_hide_later_windows(
    client: BotClient, server: Any, plays: Any
) -> None:
    def answer(reset: str, remaining: int) -> Any:
        headers = {"X_RateLimit_Bucket": "b", "X_RateLimit_Limit": "5", "X_RateLimit_Remaining": str(remaining)}
        return plays.answer(200, {}, **headers, X_RateLimit_Reset_After="1", X_RateLimit_Reset=reset)

    server.script.extend([answer("99999999999", 4), answer("1700000000.5", 0)])
    await client.request("GET", "/channels/{channel_id}", channel_id=1)
    await server.clock.advance(2.0)
    await client.request("GET", "/channels/{channel_id}", channel_id=1)
    assert "b / channel 1: 0 of 5" in repr(client)
