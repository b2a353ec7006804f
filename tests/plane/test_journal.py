"""A control plane with a journal, against the simulator: where RESUME begins, and what happens if the guilds are not known."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from discorder.bot.positions import Gap
from discorder.bot.subscriber import subscribe
from discorder.clock import Clock, FakeClock, SystemClock
from discorder.rest import GatewayInfo, SessionStartLimit
from discorder.simulator import Simulator
from discorder.tracking.diagnosis import diagnose
from discorder.wire import Op, session_label
from tests.harness import Recorder
from tests.publishers.journals import opened

if TYPE_CHECKING:
    from tests.harness import LookUp, Stage, StartStage

Place = tuple[str, int]


class Life:
    """The stages of a test, one after the other, with one store and one journal."""

    def __init__(self, start: StartStage, sim: Simulator, folder: Path) -> None:
        self._start = start
        self._sim = sim
        self.clock: Clock = FakeClock()
        self.folder = folder
        self.recorders: list[Recorder] = []

    @property
    def store(self) -> Path:
        return self.folder / "sessions.sqlite3"

    @property
    def journal(self) -> Path:
        return self.folder / "sessions.sqlite3.journal"

    def begin(self, *settings: str, look_up: LookUp | None = None) -> Stage:
        """Start a control plane whose façade has one client, so that it keeps a journal."""
        client = f"facade.clients.main.token_file={self.folder / 'token'}"
        stage = self._start(
            self._sim, f"session.store={self.store}", client, *settings, clock=self.clock, look_up=look_up
        )
        self.recorders.append(stage.recorder)
        return stage

    async def content(self) -> tuple[Place | None, list[Place], int]:
        """Return the end of the journal, every event in it, and the number of guilds with a state. Nothing runs."""
        async with opened(self.journal, clock=None) as journal:
            end, snapshot = journal.end(0), journal.snapshot(0)
            if end is None or snapshot is None:
                return None, [], 0
            entries = journal.entries(0, end._replace(seq=0), 10_000_000)
            return end, [(end.session, entry.seq or 0) for entry in entries], len(snapshot.guilds.states)


@pytest.fixture
def life(start_stage: StartStage, sim: Simulator, tmp_path: Path) -> Life:
    return Life(start_stage, sim, tmp_path)


def sent(sim: Simulator) -> list[Place]:
    """Return (session label, seq) of each event of the newest session."""
    newest = sim.sent[-1][0]
    return [(session_label(session), seq) for session, seq, _ in sim.sent if session == newest]


def resumed_at(sim: Simulator) -> list[int]:
    return [frame.d["seq"] for frame in sim.received if frame.op == Op.RESUME]


async def reached(stage: Stage, sim: Simulator) -> None:
    """Wait until the stage has every event, and its store too."""
    await stage.until(lambda: stage.recorder.events and stage.recorder.events[-1].seq == sim.sent[-1][1])
    await stage.until(
        lambda: all(not one.queued_events and not one.in_flight for one in stage.tracker.publisher_health)
    )
    await stage.spend(1.5)  # a checkpoint
    await stage.tracker.wait_stored()


async def test_the_journal_has_every_event_and_guild_through_a_restart(sim: Simulator, life: Life) -> None:
    first = life.begin()
    await first.ready()
    await reached(first, sim)
    await first.stop()
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    second = life.begin()
    await second.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "2"})
    await reached(second, sim)
    assert {one.name: one.required for one in second.tracker.publisher_health}["journal"]
    await second.stop()
    assert (sim.identifies, sim.resumed) == (1, 1)
    end, events, guilds = await life.content()
    assert (events, guilds) == (sent(sim), 2)
    assert end == events[-1]


async def test_a_stored_sequence_before_the_end_of_the_journal_brings_no_double(sim: Simulator, life: Life) -> None:
    """A kill: the store lags behind the journal by up to a second."""
    first = life.begin()
    await first.ready()
    await reached(first, sim)
    stored = [
        shutil.copy(path, path.with_suffix(f"{path.suffix}.then"))
        for path in life.folder.glob("sessions.sqlite3*")
        if path.is_file()
    ]
    before = sim.sent[-1][1]
    for number in range(5):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    await reached(first, sim)
    await first.stop()
    for path in map(Path, stored):
        path.replace(path.with_suffix(""))
    second = life.begin()
    await second.ready()
    await reached(second, sim)
    await second.stop()
    assert resumed_at(sim) == [before]
    assert (await life.content())[1:] == (sent(sim), 2)


async def test_a_stored_sequence_after_the_end_of_the_journal_resumes_from_that_end(sim: Simulator, life: Life) -> None:
    """A power cut: the store is synced, the journal is not."""
    first = life.begin()
    await first.ready()
    await reached(first, sim)
    then = shutil.copytree(life.journal, life.folder / "then")
    end = sim.sent[-1][1]
    for number in range(5):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    await reached(first, sim)
    await first.stop()
    shutil.rmtree(life.journal)
    shutil.move(then, life.journal)
    second = life.begin()
    await second.ready()
    await reached(second, sim)
    await second.stop()
    assert resumed_at(sim) == [end]
    assert sim.identifies == 1
    assert (await life.content())[1:] == (sent(sim), 2)


@pytest.mark.parametrize("how", ["deleted", "of another session"])
async def test_without_guilds_the_session_is_resumed_first_and_then_replaced(
    sim: Simulator, life: Life, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """The first start with a journal, or a lost one: Discord sends the guilds once per session."""
    if how == "of another session":
        before = life.begin()
        await before.ready()
        await before.stop(goodbye=True)
    identifies = sim.identifies
    first = life.begin("facade.journal=" + str(life.folder / "elsewhere")) if how != "deleted" else life.begin()
    await first.ready()
    await reached(first, sim)
    await first.stop()
    if how == "deleted":
        shutil.rmtree(life.journal)
    await sim.dispatch("MESSAGE_CREATE", {"id": "while it was away"})
    missed = sent(sim)[-1]
    second = life.begin()
    await second.until(lambda: sim.identifies == identifies + 2)
    await second.ready()
    await reached(second, sim)
    await second.stop()
    assert sim.resumed in {1, 2}, "once more if the look-up has answered after the first RESUMED"
    assert sim.identifies == identifies + 2
    assert missed in [(event.session, event.seq) for event in second.recorder.events], "RESUME brought it first"
    assert (await life.content())[1:] == (sent(sim), 2)
    log = capsys.readouterr().err
    assert "The journal has no guilds of the stored session" in log
    assert log.count("the journal has no guilds of this session, and Discord sends them to a new one only") >= 1


@pytest.mark.heavy
@pytest.mark.parametrize("ring", ["journal", "memory"])
async def test_a_bot_that_was_away_over_a_restart_of_the_control_plane_gets_what_it_missed(
    sim: Simulator, life: Life, ring: str
) -> None:
    """With the ring in the journal; without it, the events before the restart are a gap."""
    settings = (
        "publishers.bus.kind=zmq",
        f"publishers.bus.bind=ipc://{life.folder}/bus",
        f"publishers.bus.ring={ring}",
    )
    life.clock = SystemClock()  # that of the bus
    address, cursor = f"ipc://{life.folder}/bus", life.folder / "cursor"
    first = life.begin(*settings)
    await first.ready()
    await reached(first, sim)
    async with subscribe(address, cursor=cursor) as events:
        reading = asyncio.ensure_future(anext(events))
        await first.spend(1.0)  # for the subscription
        await sim.dispatch("MESSAGE_CREATE", {"id": "0"})
        await first.until(reading.done)
        await first.result(events.commit())
    for number in range(1, 4):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    await reached(first, sim)
    await first.stop()
    second = life.begin(*settings)
    await second.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "4"})
    await reached(second, sim)
    seen: list[object] = []
    async with subscribe(address, cursor=cursor) as events:
        while "4" not in seen or (ring == "memory" and "gap" not in seen):
            reading = asyncio.ensure_future(anext(events))
            await second.until(reading.done)
            item = reading.result()
            if isinstance(item, Gap) or item.type == "MESSAGE_CREATE":
                seen.append("gap" if isinstance(item, Gap) else item.json()["id"])
    await second.stop()
    assert seen == ["1", "2", "3", "4"] or (ring == "memory" and set(seen) == {"gap", "4"})


def spent(sim: Simulator, clock: Clock, seconds: float) -> Callable[[], Awaitable[GatewayInfo]]:
    """Return a look-up that finds no IDENTIFY left for so many seconds."""
    until = clock.monotonic() + seconds

    async def look_up() -> GatewayInfo:
        left = max(0, int((until - clock.monotonic()) * 1000))
        limit = SessionStartLimit(1000, 0 if left else 1000, left or 86_400_000, 1)
        return GatewayInfo(sim.gateway_url, 1, limit)

    return look_up


async def test_a_budget_that_allows_no_identify_keeps_the_session_and_says_so(sim: Simulator, life: Life) -> None:
    """Until it does: then the shard resumes once more, and the session is replaced."""
    first = life.begin()
    await first.ready()
    await reached(first, sim)
    await first.stop()
    shutil.rmtree(life.journal)
    second = life.begin(look_up=spent(sim, life.clock, 300.0))
    await second.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    await reached(second, sim)
    assert sim.identifies == 1
    verdict = diagnose(second.tracker)
    assert verdict.healthy
    assert any("the journal has no guilds of shard 0" in note for note in verdict.notes)
    second.stride = 1.0
    await second.until(lambda: sim.identifies == 2, within=400.0)
    await second.ready(within=60.0)
    await reached(second, sim)
    await second.until(lambda: not any("no guilds" in note for note in diagnose(second.tracker).notes))
    await second.stop()
    assert (await life.content())[1:] == (sent(sim), 2)
