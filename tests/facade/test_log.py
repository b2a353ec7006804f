"""What the log says of sessions that begin and end, so that an operator can date a disconnection and a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from discorder.logs import logger
from tests.facade.conftest import SECONDS, Stage

Record = tuple[str, str, dict[str, Any]]  # level, text, fields


class Said:
    """The records so far, from INFO on."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def of(self, text: str) -> list[tuple[str, dict[str, Any]]]:
        """Return level and fields of the records whose text begins with ``text``."""
        return [(level, fields) for level, one, fields in self.records if one.startswith(text)]

    async def ended(self, count: int = 1) -> dict[str, Any]:
        """Return the fields of the record of a session's end once there are ``count`` of them."""
        async with asyncio.timeout(SECONDS):
            while len(found := self.of("A session of a bot ended")) < count:  # noqa: ASYNC110  # a log wakes nobody
                await asyncio.sleep(0.005)
        assert found[-1][0] == "INFO"
        return found[-1][1]


@pytest.fixture
def said() -> Iterator[Said]:
    found = Said()
    sink = logger.add(
        lambda line: found.records.append(
            (line.record["level"].name, line.record["message"], dict(line.record["extra"]))
        ),
        level="INFO",
    )
    yield found
    logger.remove(sink)


async def test_why_a_session_ended(stage: Stage, said: Said) -> None:
    """The bot closes it, its socket breaks, it is refused, the façade stops: with client and shard, each once."""
    stage.feed.begin("label", [10])
    await stage.open()
    for number, why in enumerate(
        (
            "closed by the bot with 4123",
            "its socket broke",
            "refused with 4001: there is no opcode 99",
            "the façade stops",
        ),
        1,
    ):
        bot = await stage.bot()
        await bot.identify(guilds=1)
        assert bot.websocket is not None
        if number == 1:
            await bot.websocket.close(code=4123)
        elif number == 2:
            bot.vanish()
        elif number == 3:
            await bot.send(99)
        else:
            await stage.close()
        fields = await said.ended(number)
        assert {**fields, "connected_s": 0} == {"client": "one", "shard": 0, "why": why, "connected_s": 0, "behind": 0}
    assert len(said.of("A session of a bot ended")) == 4


async def test_a_bot_without_heartbeats(stage: Stage, said: Said) -> None:
    stage.heartbeat = 0.05
    stage.feed.begin("label", [10])
    await stage.open()
    await (await stage.bot()).identify(guilds=1)
    assert (await said.ended())["why"] == "it sent no heartbeats, so its socket was cut"


async def away(stage: Stage, seconds: float) -> None:
    """Let a bot be away, while three events come."""
    bot = await stage.bot()
    await bot.identify(guilds=2)
    await bot.gone()
    await stage.close()
    (place,) = stage.store.places
    for number in range(3):
        stage.feed.happen("MESSAGE_CREATE", {"id": str(number), "guild_id": "10"})
    stage.store.places = [place | {"seen_at": place["seen_at"] - seconds}]
    await stage.open()


async def test_what_a_bot_does_not_get_after_its_catch_up(facade: Stage, said: Said) -> None:
    """A warning with the numbers; that the session begins without them is no news."""
    await away(facade, 130)
    await (await facade.bot()).identify(guilds=2)
    ((level, fields),) = said.of("A bot was away for longer than its catch_up")
    assert level == "WARNING"
    assert 130 <= fields.pop("away_s") < 190
    assert fields == {"client": "one", "shard": 0, "catch_up": 120.0, "not_sent": 3}
    assert said.of("A bot began a session of the façade")[-1][1]["caught_up"] == 0


async def test_what_a_bot_catches_up_on(facade: Stage, said: Said) -> None:
    """Within its catch_up there is no warning."""
    await away(facade, 60)
    await (await facade.bot()).identify(guilds=2)
    assert said.of("A bot began a session of the façade")[-1][1]["caught_up"] == 3
    assert {level for level, _, _ in said.records} == {"INFO"}
