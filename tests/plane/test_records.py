"""The control plane's own records, from the machine to a publisher, against the simulator."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from discorder.clock import FakeClock
from discorder.errors import NotStarted
from discorder.records import LossKind, LostEvents, StateChange
from discorder.simulator import Simulator
from discorder.wire import Event, session_label
from tests.harness import Recorder

if TYPE_CHECKING:
    from tests.harness import Stage, StartMemoryStage, StartStage

Start = Callable[..., Awaitable[Simulator]]


class Listener(Recorder):
    """A publisher that selects all records."""

    all_records = True

    def __init__(self) -> None:
        super().__init__("listener")

    def of(self, kind: str) -> list[Event]:
        return [record for record in self.records if record.type == kind]

    @property
    def gaps(self) -> list[LostEvents]:
        return [msgspec.json.decode(record.data, type=LostEvents) for record in self.of("DISCORDER_GAP")]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the setting with which several runs share a session store."""
    return f"session.store={tmp_path / 'sessions.sqlite3'}"


async def test_each_transition_is_told_with_its_cause(
    sim: Simulator, start_stage: StartStage, listener: Listener
) -> None:
    stage = start_stage(sim, publishers=[listener])
    await stage.ready()
    await sim.close(4000)
    await stage.ready(generation=2)
    await stage.stop()
    states = listener.of("DISCORDER_STATE")
    told = [msgspec.json.decode(record.data, type=StateChange) for record in states]
    ring = stage.tracker.transitions
    assert [(s.source, s.trigger, s.target, s.cause, s.generation) for s in told] == [
        (t.source.value, t.trigger.value, t.target.value, t.cause, t.generation) for t in ring
    ]
    assert [record.received_at for record in states] == [step.at for step in ring]
    (broken,) = [s for s in told if s.target == "Unhealthy"]
    assert (broken.source, broken.trigger) == ("Ready", "closed")
    assert "4000" in (broken.cause or "")
    assert [s.milliseconds for s in told] == [pytest.approx(t.milliseconds, abs=0.1) for t in ring]
    document = msgspec.json.decode(states[-1].document)
    assert (document["type"], document["shard"], document["seq"], document["prev"]) == (
        "DISCORDER_STATE",
        [0, 1],
        None,
        None,
    )
    assert document["session"] == session_label(sim.sessions[0])
    assert msgspec.json.decode(states[0].document)["session"] is None, "there is none before the first READY"


async def test_a_publisher_that_asks_for_nothing_gets_no_states(
    sim: Simulator, start_stage: StartStage, listener: Listener
) -> None:
    stage = start_stage(sim, publishers=[listener])
    await stage.ready()
    await stage.stop()
    assert stage.recorder.records == []
    assert listener.of("DISCORDER_STATE") != []


@pytest.mark.parametrize("missed", [0, 1, 5])
async def test_a_resume_is_told_with_the_number_of_replayed_events(
    sim: Simulator, start_stage: StartStage, listener: Listener, missed: int
) -> None:
    stage = start_stage(sim, publishers=[listener])
    await stage.ready()
    await sim.drop()
    for number in range(missed):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
    await stage.ready(generation=2)
    await sim.dispatch("MESSAGE_CREATE", {"id": "live"})
    await stage.until(lambda: listener.events[-1].data == b'{"id":"live"}')
    (record,) = listener.of("DISCORDER_RESUMED")
    assert msgspec.json.decode(record.data) == {"replayed": missed}
    assert record.session == session_label(sim.sessions[0])
    place = [event.type for event in listener.everything].index("DISCORDER_RESUMED")
    assert listener.everything[place - 1].type == "RESUMED"


async def test_live_events_in_the_batch_of_resumed_do_not_count_as_replayed(
    start_memory_stage: StartMemoryStage, listener: Listener
) -> None:
    stage = start_memory_stage(publishers=[listener])
    (await stage.identified()).lose()
    line = await stage.resuming(2)
    line.feed(line.dispatched("A"))
    await stage.until(lambda: listener.events[-1].type == "A")
    line.feed(line.dispatched("B"), line.dispatched("C"), line.dispatched("RESUMED"), line.dispatched("D"))
    await stage.ready(generation=2)
    assert [msgspec.json.decode(record.data) for record in listener.of("DISCORDER_RESUMED")] == [{"replayed": 3}]


async def test_resumed_out_of_place_is_no_resume(start_memory_stage: StartMemoryStage, listener: Listener) -> None:
    stage = start_memory_stage(publishers=[listener])
    line = await stage.identified()
    line.feed(line.dispatched("RESUMED"))
    line.feed(line.dispatched("TYPING_START"))
    await stage.until(lambda: any(event.type == "TYPING_START" for event in listener.events))
    assert listener.of("DISCORDER_RESUMED") == []
    assert len(stage.exchange.lines) == 1


LOSSES: dict[str, tuple[Callable[[Simulator], Awaitable[None]], str]] = {
    "op 9 false": (lambda sim: sim.invalidate(), "invalid_session"),
    "4007": (lambda sim: sim.close(4007), "close code 4007"),
    "4009": (lambda sim: sim.close(4009), "close code 4009"),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_session_is_told_to_every_publisher_right_before_the_next_ready(
    sim: Simulator, start_stage: StartStage, listener: Listener, loss: str
) -> None:
    lose, cause = LOSSES[loss]
    stage = start_stage(sim, publishers=[listener])
    await stage.ready()
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"})
    await stage.until(lambda: listener.events[-1].type == "MESSAGE_CREATE")
    last = listener.events[-1]
    await lose(sim)
    await stage.ready(generation=2, within=60.0)
    for publisher in (listener, stage.recorder):
        (record,) = [one for one in publisher.records if one.type == "DISCORDER_GAP"]
        gap = msgspec.json.decode(record.data, type=LostEvents)
        place = publisher.everything.index(record)
        ready = publisher.everything[place + 1]
        assert (ready.type, ready.seq) == ("READY", 1)
        assert record.session == last.session != ready.session
        assert last.seq is not None
        assert (gap.kind, gap.publisher, gap.from_seq, gap.to_seq) == (LossKind.SESSION, None, last.seq + 1, None)
        assert gap.cause == cause
        assert gap.start == last.received_at
        assert gap.end is not None
        assert last.received_at <= gap.end <= ready.received_at


async def test_a_session_that_is_lost_and_not_followed_by_another_is_told_at_the_end(
    sim: Simulator, start_stage: StartStage, listener: Listener
) -> None:
    """The end of the gap is unknown."""
    stage = start_stage(sim, publishers=[listener])
    tracker = await stage.ready()
    await sim.invalidate()
    await stage.until(lambda: tracker.session is None)
    assert listener.gaps == []
    await stage.stop()
    (gap,) = listener.gaps
    assert (gap.kind, gap.cause, gap.end) == (LossKind.SESSION, "invalid_session", None)
    last = listener.events[-1].seq
    assert last is not None
    assert gap.from_seq == last + 1


async def test_a_goodbye_is_a_gap_without_an_end_and_a_hand_over_is_none(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    clock = FakeClock()
    for goodbye, causes in ((False, []), (True, ["goodbye"])):
        listener = Listener()
        stage = start_stage(sim, store, clock=clock, publishers=[listener])
        await stage.ready()
        await stage.stop(goodbye=goodbye)
        assert [gap.cause for gap in listener.gaps] == causes
    assert listener.gaps[0].end is None


async def test_a_stored_session_that_is_refused_is_told_from_what_was_delivered(
    start_simulator: Start, start_stage: StartStage, store: str
) -> None:
    sim = await start_simulator(session_ttl=0.0)  # Discord forgets the session while the client is disconnected
    clock = FakeClock()
    first = start_stage(sim, store, clock=clock)
    await first.ready()
    label, delivered = first.tracker.session_label, first.tracker.seq
    await first.stop()
    listener = Listener()
    second = start_stage(sim, store, clock=clock, publishers=[listener])
    await second.ready(within=60.0)
    assert (sim.identifies, sim.resumed) == (2, 0)
    (record,) = listener.of("DISCORDER_GAP")
    (gap,) = listener.gaps
    assert record.session == label
    assert delivered is not None
    assert (gap.from_seq, gap.to_seq, gap.cause) == (delivered + 1, None, "invalid_session")
    assert gap.start < (gap.end or gap.start)


async def test_a_lost_session_is_told_even_if_the_process_dies_before_the_next_one(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    """The session stays stored until then; the next process tries to resume it, and publishes the gap."""
    first_store, left = tmp_path / "first", tmp_path / "left"
    first_store.mkdir()
    clock = FakeClock()
    first = start_stage(sim, f"session.store={first_store / 'sessions.sqlite3'}", clock=clock)
    tracker = await first.ready()
    label = tracker.session_label
    await first.until(lambda: stored_sessions(first_store) == 1)
    await sim.invalidate()
    await first.until(lambda: tracker.session is None)
    shutil.copytree(first_store, left)  # the state after a crash
    await first.stop()
    assert stored_sessions(first_store) == 0, "an orderly end has told of it"
    listener = Listener()
    second = start_stage(sim, f"session.store={left / 'sessions.sqlite3'}", clock=clock, publishers=[listener])
    await second.ready(within=60.0)
    (record,) = listener.of("DISCORDER_GAP")
    assert record.session == label
    assert listener.everything[listener.everything.index(record) + 1].type == "READY"


class Stuck(Recorder):
    """A required publisher that accepts nothing once it is ``stuck``."""

    durable = True

    def __init__(self) -> None:
        super().__init__("stuck")
        self.free = asyncio.Event()
        self.free.set()

    def publish_nowait(self, events: Sequence[Event]) -> int:
        return super().publish_nowait(events) if self.free.is_set() else 0

    async def publish(self, events: Sequence[Event]) -> None:
        await self.free.wait()
        self.everything.extend(events)


@pytest.mark.parametrize("ended", ["killed", "stopped"])
async def test_what_a_required_publisher_lacked_of_a_lost_session_is_told_by_the_next_process(
    sim: Simulator, start_stage: StartStage, tmp_path: Path, ended: str
) -> None:
    """Its queue held the session's last events and the gap record and was lost with the process; the next session was stored."""
    first_store = tmp_path / "0"
    first_store.mkdir()
    clock, stuck = FakeClock(), Stuck()
    setting = f"session.store={first_store / 'sessions.sqlite3'}"
    first = start_stage(sim, setting, "session.drain_timeout=0", clock=clock)
    tracker = await first.ready()
    tracker.add_publisher(stuck, required=True)
    await sim.dispatch("TYPING_START", {})
    await first.until(lambda: any(event.type == "TYPING_START" for event in stuck.everything))
    accepted, lost = stuck.everything[-1].seq, tracker.session_label
    stuck.free.clear()
    await sim.dispatch("TYPING_START", {})
    await sim.invalidate()
    await first.ready(generation=2, within=60.0)
    await first.until(lambda: stored_label(first_store) == tracker.session_label != lost)
    folder = tmp_path / "left"
    if ended == "stopped":
        await first.stop()
        folder = first_store
    else:
        shutil.copytree(first_store, folder)
        stuck.free.set()
        await first.stop()
    listener = Listener()
    last = start_stage(sim, f"session.store={folder / 'sessions.sqlite3'}", clock=clock, publishers=[listener])
    await last.ready(within=60.0)
    (record,) = [record for record in listener.of("DISCORDER_GAP") if record.session == lost]
    gap = msgspec.json.decode(record.data, type=LostEvents)
    assert gap.kind is LossKind.SESSION
    assert gap.from_seq == (accepted or 0) + 1
    assert listener.everything[listener.everything.index(record) + 1].type == "READY"


async def test_an_orderly_end_keeps_a_lost_session_stored_while_a_required_publisher_lacks_some_of_it(
    sim: Simulator, start_stage: StartStage, tmp_path: Path
) -> None:
    """The gap record was in its queue and was lost with it."""
    stuck = Stuck()
    stage = start_stage(
        sim, f"session.store={tmp_path / 'sessions.sqlite3'}", "session.drain_timeout=0", clock=FakeClock()
    )
    tracker = await stage.ready()
    tracker.add_publisher(stuck, required=True)
    stuck.free.clear()
    await sim.dispatch("TYPING_START", {})
    await stage.until(lambda: any(health.in_flight for health in tracker.publisher_health))
    await sim.invalidate()
    await stage.until(lambda: tracker.session is None)
    await stage.stop()
    assert stored_sessions(tmp_path) == 1


def stored_label(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "sessions.sqlite3")) as database:
        (session_id,) = database.execute("SELECT session_id FROM session").fetchone()
    return session_label(session_id)


def stored_sessions(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "sessions.sqlite3")) as database:
        (count,) = database.execute("SELECT count(*) FROM session").fetchone()
    return int(count)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [('gateway.intents=["guilds"]', "the intents changed"), ("gateway.shards=2", "the shard layout changed")],
)
async def test_a_stored_session_that_no_longer_fits_is_told_once(
    sim: Simulator, start_stage: StartStage, store: str, changed: str, cause: str
) -> None:
    clock = FakeClock()
    first = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await first.ready()
    label, delivered = first.tracker.session_label, first.tracker.seq
    await first.stop()
    for expected in ([cause], []):
        listener = Listener()
        stage = start_stage(sim, store, "gateway.shards=1", changed, clock=clock, publishers=[listener])
        await stage.until(lambda stage=stage: all_ready(stage), within=60.0)  # type: ignore[misc]  # a default binds it
        assert [gap.cause for gap in listener.gaps] == expected
        if expected:
            (record,) = listener.of("DISCORDER_GAP")
            assert (record.shard, record.session) == ((0, 1), label)
            assert delivered is not None
            assert listener.gaps[0].from_seq == delivered + 1
            assert listener.everything[listener.everything.index(record) + 1].type == "READY"
        await stage.stop()


async def test_a_stored_session_that_no_longer_fits_is_not_lost_until_the_next_one_begins(
    sim: Simulator, start_stage: StartStage, store: str
) -> None:
    """If the start fails, the session stays stored: with the old settings it can still be resumed."""
    clock = FakeClock()
    first = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await first.ready()
    await first.stop()
    await sim.refuse_upgrades(503)
    listener = Listener()
    second = start_stage(
        sim, store, "gateway.shards=1", 'gateway.intents=["guilds"]', clock=clock, publishers=[listener]
    )
    await second.until(lambda: listener.records)
    await second.stop()
    assert listener.gaps == []
    await sim.heal()
    third = start_stage(sim, store, "gateway.shards=1", clock=clock)
    await third.ready(within=60.0)
    assert (sim.identifies, sim.resumed) == (1, 1)


def all_ready(stage: Stage) -> bool:
    """Return whether the tracker is filled and each of its shards has been Ready."""
    try:
        return all(shard.was_ready for shard in stage.tracker.shards)
    except NotStarted:
        return False
