"""The guilds of a control plane against the simulator: through its tracker, and for a bot that joins a session late."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from discorder.bot.positions import Gap
from discorder.bot.subscriber import Subscription, subscribe
from discorder.clock import SystemClock
from discorder.errors import GuildsNotKept
from discorder.guilds import ShardGuilds
from discorder.simulator import Simulator
from discorder.wire import ReceivedEvent, shard_of_guild

if TYPE_CHECKING:
    from tests.harness import Stage, StartStage

SECONDS = 60.0
SAMPLE = 1345192221523181594
UNKNOWN = 1345192221523181595


def settings(folder: Path) -> tuple[str, ...]:
    return (
        f"session.store={folder / 'sessions.sqlite3'}",
        f"facade.journal={folder / 'journal'}",
        f"publishers.zmq.bind=ipc://{folder / 'bus'}",
        "publishers.zmq.kind=zmq",
    )


async def test_the_tracker_shows_the_guilds_as_they_are_now(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    stage = start_stage(sim, *settings(tmp_path), clock=SystemClock())
    await stage.ready()
    guilds = stage.tracker.guilds
    await stage.until(lambda: len(guilds) == 2)
    await sim.dispatch("CHANNEL_CREATE", {"id": "7", "guild_id": str(SAMPLE), "type": 0, "field_of_tomorrow": 1})
    await stage.until(lambda: guilds[SAMPLE]["channels"][-1]["id"] == "7")
    assert guilds[str(SAMPLE)]["channels"][-1]["field_of_tomorrow"] == 1
    assert SAMPLE in guilds
    assert set(guilds) <= set(guilds.ids)
    assert await asyncio.to_thread(guilds.document, SAMPLE) == guilds.document(SAMPLE)
    assert guilds.get(UNKNOWN) is None
    with pytest.raises(KeyError, match=f"no document of guild {UNKNOWN}: the bot is not in it"):
        guilds.document(UNKNOWN)
    await stage.stop()


async def test_a_tracker_without_a_journal_names_the_key(sim: Simulator, start_stage: StartStage) -> None:
    stage = start_stage(sim)
    await stage.ready()
    with pytest.raises(GuildsNotKept, match=r"set facade\.journal to a directory"):
        len(stage.tracker.guilds)
    await stage.stop()


class Bot:
    """A bot that folds the events that it reads."""

    def __init__(self, folder: Path) -> None:
        self.events: Subscription[ReceivedEvent] = subscribe(f"ipc://{folder / 'bus'}", state=True)
        self.seen: list[tuple[str | None, int | None, str]] = []
        self._guilds: dict[int, ShardGuilds] = {}

    async def read_to(self, message: str) -> None:
        """Read until every shard has brought this message."""
        missing = set(range(2))
        async with asyncio.timeout(SECONDS):
            while missing:
                item = await anext(self.events)
                assert not isinstance(item, Gap), item
                self.seen.append((item.session, item.seq, item.type))
                if item.session is not None:
                    guilds = self._guilds.setdefault(item.shard[0], ShardGuilds())
                    guilds.apply(item.session, "READY", b'{"user":{"id":"1345187989315256333"},"guilds":[]}')
                    guilds.apply(item.session, item.type, item.data)
                if item.type == "MESSAGE_CREATE" and item.json()["id"] == message:
                    missing.discard(item.shard[0])

    @property
    def guilds(self) -> dict[int, Any]:
        snapshots = [guilds.freeze() for guilds in self._guilds.values()]
        return {
            guild_id: msgspec.json.decode(snapshot.document(guild_id))
            for snapshot in snapshots
            if snapshot is not None
            for guild_id in snapshot.states
        }

    @property
    def events_of_discord(self) -> list[tuple[str | None, int | None]]:
        return [(session, seq) for session, seq, _ in self.seen if seq is not None]


async def message(sim: Simulator, number: str) -> None:
    """Let things happen in guilds, and then a message on each shard."""
    shard = shard_of_guild(SAMPLE, 2)
    await sim.play_all_payloads(shard=shard, without=("GUILD_DELETE", "READY", "RESUMED"))
    for shard in range(2):
        await sim.dispatch("MESSAGE_CREATE", {"id": number}, shard=shard)


@pytest.mark.heavy
async def test_a_bot_that_joins_late_has_the_guilds_of_the_control_plane_also_after_its_restart(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    stage = await begin(sim, start_stage, tmp_path)
    await message(sim, "1")
    first = Bot(tmp_path)
    async with first.events:
        await join(sim, first)
        await message(sim, "2")
        await first.read_to("2")
        await stage.until(lambda: first.guilds == dict(stage.tracker.guilds))
        await stage.stop()
        await message(sim, "3")
        stage = await begin(sim, start_stage, tmp_path)
        second = Bot(tmp_path)
        async with second.events:
            await join(sim, second)
            await message(sim, "4")
            await asyncio.gather(first.read_to("4"), second.read_to("4"))
            await stage.until(lambda: first.guilds == second.guilds == dict(stage.tracker.guilds))
    for bot in (first, second):
        assert len(set(bot.events_of_discord)) == len(bot.events_of_discord)
        for session in {session for session, _ in bot.events_of_discord}:
            seqs = sorted(seq for label, seq in bot.events_of_discord if label == session and seq is not None)
            assert seqs == list(range(seqs[0], seqs[-1] + 1))
    assert sim.identifies == 2
    await stage.stop()


async def join(sim: Simulator, bot: Bot) -> None:
    """Let things happen until the bot reads the events of both shards."""
    reading = asyncio.create_task(bot.read_to("joining"))
    while not reading.done():
        await message(sim, "joining")
        await asyncio.sleep(0.05)
    await reading


async def begin(sim: Simulator, start_stage: StartStage, folder: Path) -> Stage:
    stage = start_stage(sim, *settings(folder), "gateway.shards=2", clock=SystemClock())
    await stage.result(stage.ref.ready())
    await stage.until(lambda: len(stage.tracker.guilds) >= 2)
    return stage
