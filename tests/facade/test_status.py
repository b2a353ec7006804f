"""What the status says of the bots that are connected to the façade."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus
from tests.facade.conftest import SECONDS, Bot, Stage
from tests.facade.memory_feed import MemoryFeed


def status(stage: Stage) -> FacadeStatus:
    assert stage.server is not None
    return stage.server.status()


def session(stage: Stage) -> FacadeSessionStatus:
    """Return the only session."""
    (one,) = status(stage).sessions
    return one


def client(stage: Stage, name: str = "one") -> FacadeClientStatus:
    return next(one for one in status(stage).clients if one.name == name)


def counts(one: FacadeSessionStatus | FacadeClientStatus) -> tuple[int, int, int]:
    return one.identifies, one.resumes, one.invalid_sessions


async def test_who_is_connected(facade: Stage) -> None:
    """Each session with its bot's library and the events that it has; each bot that may connect, connected or not."""
    began = datetime.now(UTC)
    bot = await facade.bot()
    await bot.identify(guilds=2)
    one = session(facade)
    assert (one.client, one.shard, one.library, one.lag, one.lag_s) == ("one", 0, "raw", 0, 0.0)
    assert one.position == facade.feed.end(0)
    assert began <= one.since <= datetime.now(UTC)
    assert counts(one) == (1, 0, 0)
    assert status(facade).url == facade.url
    seen_at = client(facade).seen_at
    assert seen_at is not None
    assert datetime.now(UTC) - seen_at < timedelta(seconds=60)
    assert (client(facade).sessions, client(facade).catch_up) == (1, 120.0)
    assert client(facade).away_s == 0.0 < client(facade, "two").away_s < 60
    two = client(facade, "two")
    assert (two.sessions, two.lag, two.lag_s, two.seen_at, counts(two)) == (0, 0, 0.0, None, (0, 0, 0))


async def test_counts_outlive_the_connections(facade: Stage) -> None:
    """A bot that resumes is still known by its library; IDENTIFYs, RESUMEs and op 9s are those of all connections."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    before = session(facade).since
    await bot.gone()
    assert status(facade).sessions == ()
    await bot.dial()
    await bot.resume()
    await bot.event("RESUMED")
    again = session(facade)
    assert again.library == "raw"
    assert again.since > before
    assert counts(again) == (1, 1, 0)
    facade.feed.begin("label two", [10])
    assert (await bot.frame())["op"] == 9
    await bot.identify(guilds=1)
    assert counts(session(facade)) == counts(client(facade)) == (2, 1, 1)


@pytest.mark.parametrize("seq", [None, 0])
async def test_a_refused_resume_counts(facade: Stage, seq: int | None) -> None:
    """For the bot in any case, and for the shard if the session id names one."""
    bot = await facade.bot()
    await bot.identify(guilds=2)
    other = await facade.bot()
    await other.resume("forged" if seq is None else bot.session_id, seq)
    assert (await other.frame())["op"] == 9
    assert counts(client(facade)) == (1, 0, 1)
    assert counts(session(facade)) == (1, 0, 0 if seq is None else 1)


async def lagging(stage: Stage) -> Bot:
    """Return a bot that has resumed and reads nothing; what it has yet to get is 100 s old and more than the sockets hold."""
    stage.feed = MemoryFeed(now=lambda: stage.now() - 100)
    stage.feed.begin("label", [10])
    await stage.open()
    bot = await stage.bot()
    await bot.identify(guilds=1)
    await bot.gone()
    for number in range(400):
        stage.feed.happen("MESSAGE_CREATE", {"id": str(number), "guild_id": "10", "content": "x" * 50_000})
    await bot.dial()
    await bot.resume()
    return bot


async def until_resumed(stage: Stage) -> None:
    async with asyncio.timeout(SECONDS):
        while not status(stage).sessions:  # noqa: ASYNC110  # the façade gives no sign of it
            await asyncio.sleep(0.005)


async def test_the_lag_of_a_bot_that_does_not_read(stage: Stage) -> None:
    """It is the number of the events that it has not got, and the age of the oldest; both are 0 when it has them."""
    bot = await lagging(stage)
    await until_resumed(stage)
    one = session(stage)
    assert 0 < one.lag <= 400
    assert 100 <= one.lag_s < 160
    for _ in range(400):
        await bot.event("MESSAGE_CREATE")
    await bot.event("RESUMED")
    assert (session(stage).lag, session(stage).lag_s) == (0, 0.0)


@pytest.mark.heavy
async def test_the_lag_follows_the_oldest_event(stage: Stage) -> None:
    """While a bot stands still its lag grows with the clock, and an event that comes meanwhile changes nothing."""
    await lagging(stage)
    await until_resumed(stage)
    before = session(stage).lag_s
    stage.feed.happen("MESSAGE_CREATE", {"id": "400", "guild_id": "10"})
    async with asyncio.timeout(SECONDS):
        while session(stage).lag_s < before + 2:  # noqa: ASYNC110  # the façade gives no sign of it
            await asyncio.sleep(0.05)


@pytest.mark.heavy
async def test_the_lag_of_events_that_came_after_the_session_began(stage: Stage) -> None:
    """The oldest event is looked up within a second."""
    stage.feed = MemoryFeed(now=lambda: stage.now() - 100)
    stage.feed.begin("label", [10])
    await stage.open()
    await (await stage.bot()).identify(guilds=1)
    for number in range(400):
        stage.feed.happen("MESSAGE_CREATE", {"id": str(number), "guild_id": "10", "content": "x" * 50_000})
    async with asyncio.timeout(SECONDS):
        while session(stage).lag_s < 100:  # noqa: ASYNC110  # the façade gives no sign of it
            await asyncio.sleep(0.05)
