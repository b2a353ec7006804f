"""Cases 37 to 39: what REST answers a bot that shares its client or its address with the control plane."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from discorder.clock import FakeClock
from discorder.errors import HTTPError
from discorder.rest import BotClient
from discorder.simulator import Simulator
from tests.faults.fault import FREE, Fault, say
from tests.faults.table import Case
from tests.harness import StartStage

CHANNEL = 1345205174045638728  # #general of guild 0
DISCORD_EPOCH_MS = 1_420_070_400_000
DAY_MS = 86_400_000


async def test_37_an_oauth_endpoint_answers_401_to_the_shared_client(
    case: Case, sim: Simulator, start_stage: StartStage
) -> None:
    """The client still looks up the gateway, and the session that is lost next is replaced."""
    stage = start_stage(sim)
    await stage.ready()
    fault = Fault(case, sim, stage)
    with pytest.raises(HTTPError, match="GET /oauth2/@me: 401"):
        await stage.client.request("GET", "/oauth2/@me")
    info = await stage.client.gateway_bot()
    assert info.url == sim.gateway_url
    await sim.invalidate(resumable=False)
    assert await fault.recovered(2) <= 30
    await say(sim)
    assert (await fault.cost()).identifies == 1


async def test_38_the_address_is_banned_while_a_session_runs(
    case: Case, sim: Simulator, start_stage: StartStage, clock: FakeClock
) -> None:
    """A bot with forty requests sends one after each growing pause; the session is not affected."""
    stage = start_stage(sim)
    await stage.ready()
    async with BotClient(sim.token, api=sim.api_url, clock=clock) as client:
        fault = Fault(case, sim, stage)
        await sim.block_address()
        before = len(sim.rest_requests)
        ask = partial(client.request, "GET", "/channels/{channel_id}", channel_id=CHANNEL)
        jobs = [asyncio.create_task(ask()) for _ in range(40)]
        await stage.spend(120)
        await say(sim)
        sent = len(sim.rest_requests) - before
        assert sent <= 6
        case.note(note=f"{sent} requests in the 2 min of a ban")
        await sim.heal()
        await stage.until(lambda: all(job.done() for job in jobs), within=400)
        await asyncio.gather(*jobs)
        fault.over()
        assert await fault.cost() == FREE


async def test_39_deletions_of_messages_of_every_age_and_renames(
    case: Case, sim: Simulator, start_stage: StartStage, clock: FakeClock
) -> None:
    """Three buckets of one route, and a limit that no header shows."""
    stage = start_stage(sim)
    await stage.ready()
    async with BotClient(sim.token, api=sim.api_url, clock=clock) as client:
        fault = Fault(case, sim, stage)
        now = int(clock.now().timestamp() * 1000) - DISCORD_EPOCH_MS
        ids = [((now - age) << 22) + n for n in range(10) for age in (0, DAY_MS, 20 * DAY_MS)]
        delete = partial(client.request, "DELETE", "/channels/{channel_id}/messages/{message_id}", channel_id=CHANNEL)
        rename = partial(client.request, "PATCH", "/channels/{channel_id}", channel_id=CHANNEL)
        jobs = [asyncio.create_task(delete(message_id=message)) for message in ids]
        await stage.until(lambda: all(job.done() for job in jobs), within=120)
        assert sim.violations == []
        for name in ("a", "b"):
            await rename(json={"name": name})
        third = asyncio.create_task(rename(json={"name": "c"}))
        await stage.until(lambda: len(sim.violations) == 1)
        await rename(json={"bitrate": 64_000})
        assert not third.done()
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)
        case.note(note="0 of 30 deletions answered 429")
        fault.over()
        assert await fault.cost() == FREE
