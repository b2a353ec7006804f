"""`subscribe(state=True)` on real sockets: the guilds as they are, and then every event, whenever the bot joins."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from discorder.bot.positions import Gap
from discorder.bot.subscriber import Subscription, subscribe
from discorder.errors import GuildsNotKept
from discorder.guilds import ShardGuilds
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.wire import Event, ReceivedEvent
from tests.facade.memory_feed import MemoryFeed

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 30.0
GUILDS = (10, 20, 30)


class Plane:
    """What a bot sees of a control plane: a bus, and a feed of guilds that gets the same events."""

    def __init__(self, bus: ZmqPublisher, shards: int = 1) -> None:
        self.feed: MemoryFeed | None = MemoryFeed(shards, now=lambda: 0.0)
        self.sessions: dict[int, str] = {}
        self.shards = shards
        self._bus = bus
        self._messages = 0
        bus.answer_from(self)

    async def command(
        self, name: str, d: Any, *, shard: int | None, guild_id: int | str | None, wait_s: float = 0.0
    ) -> Mapping[str, object]:
        return {}

    def take_report(self, door: str, part: int, parts: int, status: bytes) -> None:
        pytest.fail(f"nobody reports, as {door} did")

    def last_ready(self, shard: int) -> Event | None:
        return None

    def begin(self, shard: int = 0, session: str = "first") -> None:
        assert self.feed is not None
        self.sessions[shard] = f"{session}-{shard}"
        self.feed.begin(self.sessions[shard], GUILDS, shard=shard)
        end = self.feed.end(shard)
        assert end is not None
        entries = self.feed.entries(shard, end._replace(seq=0), 1_000_000)
        for entry in entries:
            self._publish(entry.type, entry.seq or 0, entry.data, shard)

    def happen(self, shard: int = 0) -> None:
        """Let a message come and a channel change: the first leaves no trace in a guild, the second does."""
        self._messages += 1
        guild = str(GUILDS[self._messages % 3])
        self._both("MESSAGE_CREATE", {"id": str(self._messages), "guild_id": guild}, shard)
        channel = {"id": str(self._messages % 7), "guild_id": guild, "type": 0, "n": self._messages}
        self._both("CHANNEL_UPDATE", channel, shard)

    def _both(self, kind: str, d: Any, shard: int) -> None:
        assert self.feed is not None
        self._publish(kind, self.feed.happen(kind, d, shard=shard), msgspec.json.encode(d), shard)

    def _publish(self, kind: str, seq: int, data: bytes, shard: int) -> None:
        event = Event(kind, (shard, self.shards), seq, None, self.sessions[shard], MOMENT, data)
        self._bus.publish_nowait([event])

    def documents(self, shard: int = 0) -> dict[int, Any]:
        assert self.feed is not None
        snapshot = self.feed.snapshot(shard)
        assert snapshot is not None
        return {one: msgspec.json.decode(snapshot.guilds.document(one)) for one in snapshot.guilds.states}


class Bot:
    """Folds what it reads: its guilds are to be those of the control plane."""

    def __init__(self, events: Subscription[ReceivedEvent]) -> None:
        self._events = events
        self._guilds: dict[tuple[int, int], ShardGuilds] = {}
        self.items: list[ReceivedEvent | Gap] = []

    async def read(self) -> ReceivedEvent | Gap:
        async with asyncio.timeout(SECONDS):
            item = await anext(self._events)
        self.items.append(item)
        if isinstance(item, ReceivedEvent) and item.session is not None:
            guilds = self._guilds.setdefault(item.shard, ShardGuilds())
            guilds.apply(item.session, "READY", b'{"user":{"id":"42"},"guilds":[]}')
            guilds.apply(item.session, item.type, item.data)
        return item

    async def read_until(self, plane: Plane, shards: int = 1) -> None:
        """Read until the bot has one more event of every shard, and all before it."""
        assert plane.feed is not None
        for shard in range(shards):
            while shard not in {item.shard[0] for item in self.items}:
                await self.read()
            plane.happen(shard)
            end = plane.feed.end(shard)
            assert end is not None
            while end.seq not in self.seqs(shard):
                assert isinstance(await self.read(), ReceivedEvent)

    def documents(self, shard: tuple[int, int] = (0, 1)) -> dict[int, Any]:
        snapshot = self._guilds[shard].freeze()
        assert snapshot is not None
        return {one: msgspec.json.decode(snapshot.document(one)) for one in snapshot.states}

    def seqs(self, shard: int = 0) -> list[int]:
        return [one.seq for one in self.items if isinstance(one, ReceivedEvent) and one.shard[0] == shard and one.seq]


@pytest.fixture
async def bus() -> AsyncIterator[ZmqPublisher]:
    made = ZmqPublisher("tcp://127.0.0.1:*")
    yield made
    await made.close()


def bot_of(bus: ZmqPublisher, **options: Any) -> Subscription[ReceivedEvent]:
    return subscribe(bus.endpoints[0], replay=bus.replay_endpoint, state=True, **options)


@contextlib.asynccontextmanager
async def traffic(plane: Plane, shards: int = 1) -> AsyncIterator[None]:
    """Let things happen all the time."""

    async def run() -> None:
        while True:
            for shard in range(shards):
                plane.happen(shard)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_bot_that_joins_in_the_middle_has_the_guilds_and_every_later_event(bus: ZmqPublisher) -> None:
    plane = Plane(bus)
    await bus.open()
    plane.begin()
    for _ in range(100):
        plane.happen()
    async with bot_of(bus) as events, traffic(plane):
        bot = Bot(events)
        for _ in range(300):
            await bot.read()
    # the traffic has stopped
    first = bot.items[: len(GUILDS)]
    assert [(one.type, getattr(one, "seq", 0)) for one in first] == [("GUILD_CREATE", None)] * len(GUILDS)
    seqs = bot.seqs()
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert seqs[0] > 204


async def test_what_the_bot_folds_equals_what_the_control_plane_has(bus: ZmqPublisher) -> None:
    plane = Plane(bus, shards=3)
    await bus.open()
    for shard in range(3):
        plane.begin(shard)
    async with bot_of(bus) as events:
        bot = Bot(events)
        async with traffic(plane, 3):
            for _ in range(500):
                await bot.read()
        await bot.read_until(plane, 3)
    for shard in range(3):
        assert bot.documents((shard, 3)) == plane.documents(shard)
        seqs = bot.seqs(shard)
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        first = [one for one in bot.items if one.shard[0] == shard][: len(GUILDS)]
        assert {one.type for one in first} == {"GUILD_CREATE"}


async def test_a_shard_without_a_session_holds_up_no_other_one(bus: ZmqPublisher) -> None:
    plane = Plane(bus, shards=2)
    await bus.open()
    plane.begin(1)
    async with bot_of(bus) as events:
        bot = Bot(events)
        for _ in GUILDS:
            await bot.read()
        plane.happen(1)
        assert (await bot.read()).shard == (1, 2)
        plane.begin(0)
        await bot.read_until(plane, 2)
    assert bot.documents((0, 2)) == plane.documents(0)


async def test_a_new_session_brings_the_guilds_again_in_the_stream(bus: ZmqPublisher) -> None:
    plane = Plane(bus)
    await bus.open()
    plane.begin()
    async with bot_of(bus) as events:
        bot = Bot(events)
        for _ in GUILDS:
            await bot.read()
        plane.begin(session="second")
        assert isinstance(await bot.read(), Gap)
        await bot.read_until(plane)
    assert bot.documents() == plane.documents()


async def test_a_bot_may_start_before_the_control_plane(bus: ZmqPublisher) -> None:
    await bus.open()
    address, replay = bus.endpoints[0], bus.replay_endpoint
    await bus.close()
    later = ZmqPublisher(address, replay=replay)
    plane = Plane(later)
    async with subscribe(address, replay=replay, state=True) as events:
        bot = Bot(events)
        first = asyncio.create_task(bot.read())
        await asyncio.sleep(0.02)
        await later.open()
        try:
            plane.begin()
            assert (await first).type == "GUILD_CREATE"
            await bot.read_until(plane)
        finally:
            await later.close()
    assert bot.documents() == plane.documents()


async def test_named_types_follow_the_guilds(bus: ZmqPublisher) -> None:
    plane = Plane(bus)
    await bus.open()
    plane.begin()
    async with bot_of(bus, types=["MESSAGE_CREATE"]) as events:
        bot = Bot(events)
        for _ in GUILDS:
            await bot.read()
        for _ in range(5):
            plane.happen()
        for _ in range(5):
            await bot.read()
    assert [one.type for one in bot.items] == ["GUILD_CREATE"] * 3 + ["MESSAGE_CREATE"] * 5


async def test_without_a_journal_the_error_names_the_key(bus: ZmqPublisher) -> None:
    plane = Plane(bus)
    plane.feed = None
    await bus.open()
    async with bot_of(bus) as events:
        with pytest.raises(GuildsNotKept, match=r"tcp://.*: this control plane keeps no guilds: set facade\.journal"):
            await Bot(events).read()


@pytest.mark.parametrize("options", [{"cursor": "bot.cursor"}, {"start": "oldest"}, {"live_only": True}])
def test_state_excludes_another_start(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="state begins with the guilds as they are now"):
        subscribe(state=True, **options)
