"""Shards that come and go while a control plane runs: handed from one plane to another on the same session store, and back."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from discorder import diagnose, is_operational, shutdown
from discorder.clock import FakeClock, SystemClock
from discorder.errors import NoSuchShard, NotRunning, NotSharded, StoreLocked, VerbRefused
from discorder.metrics import Exposition
from discorder.sessions import Health, MemorySessionStore, StoreState
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.status.board import Board
from discorder.tracking.tracker import GatewayTracker
from discorder.wire import Event, session_label
from tests.commandline import Command, Outcome
from tests.harness import Stage
from tests.metrics.scrapes import fallen, key, scrape
from tests.ports import free_port
from tests.status.conftest import checked

if TYPE_CHECKING:
    from tests.harness import StartStage

StartSimulator = Callable[..., Awaitable[Simulator]]
StartBoth = Callable[..., tuple[Stage, Stage]]
ALL, NONE = "gateway.shards={ids=[0,1],of=2}", "gateway.shards={ids=[],of=2}"


@pytest.fixture
def start_both(start_stage: StartStage, tmp_path: Path) -> StartBoth:
    """Start two planes on one store, each with a required file: the first with both shards, the second with none."""

    def start(
        sim: Simulator, *settings: str, clock: FakeClock | SystemClock | None = None, shards: str = ALL
    ) -> tuple[Stage, Stage]:
        clock = clock or FakeClock()
        store = f"session.store={tmp_path / 'sessions.sqlite3'}"
        stages = [
            start_stage(
                sim,
                *(store, layout, f"publishers.audit.path={tmp_path / name}", "publishers.audit.kind=delimited_file"),
                *("publishers.audit.required=true", *settings),
                clock=clock,
            )
            for name, layout in (("first.tsv", shards), ("second.tsv", NONE))
        ]
        return stages[0], stages[1]

    return start


@pytest.fixture
async def two_shards(start_simulator: StartSimulator) -> Simulator:
    return await start_simulator(shards=2, max_concurrency=2, guilds=4)


def sent(sim: Simulator) -> Counter[tuple[str, str]]:
    return Counter((session_label(session), str(seq)) for session, seq, _ in sim.sent)


def kept(folder: Path) -> Counter[tuple[str, str]]:
    """Return (session, seq) of each event in both files."""
    found: Counter[tuple[str, str]] = Counter()
    for path in (folder / "first.tsv", folder / "second.tsv"):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        fields = [line.split(b"\t") for line in whole.splitlines()]
        found.update((row[2].decode(), row[4].decode()) for row in fields if row[4])
    return found


def ids(stage: Stage) -> list[int]:
    return [shard.shard_id for shard in stage.tracker.shards]


async def serves(stage: Stage, shards: list[int]) -> None:
    """Wait until these are the shards of a plane, and all are Ready."""
    await stage.result(stage.ref.ready())
    await stage.until(lambda: ids(stage) == shards and is_operational(stage.tracker))


class Observer:
    """Reads document, metrics and stats of a plane again and again: valid at each moment, and no total ever falls."""

    def __init__(self, tracker: GatewayTracker, clock: FakeClock | SystemClock) -> None:
        self._tracker = tracker
        self._board = Board(tracker, clock)
        self._exposition = Exposition(tracker)
        self._totals: dict[str, int] = {}
        self._metrics = scrape(self._exposition)
        self.looks = 0

    def look(self) -> None:
        document = checked(self._board.encoded())
        assert [shard["id"] for shard in document["shards"]] == [shard.shard_id for shard in self._tracker.shards]
        assert all(total >= self._totals.get(name, 0) for name, total in document["totals"].items())
        self._totals = document["totals"]
        metrics = scrape(self._exposition)
        assert [one for one in fallen(self._metrics, metrics) if not one[0].startswith("discorder_shard_")] == []
        self._metrics = metrics
        repr(self._tracker)
        diagnose(self._tracker)
        self.looks += 1

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(0.05)


@pytest.mark.heavy
async def test_shards_move_back_and_forth_under_load(
    two_shards: Simulator, start_both: StartBoth, tmp_path: Path
) -> None:
    """Each event is in the file of one of the planes, once. No IDENTIFY is spent, no total falls."""
    sim, clock = two_shards, SystemClock()
    await sim.set_rate(400)
    first, second = start_both(sim, clock=clock)
    await serves(first, [0, 1])
    await second.result(second.ref.ready())
    observers = [Observer(stage.tracker, clock) for stage in (first, second)]
    watching = [asyncio.create_task(observer.watch()) for observer in observers]
    for _ in range(3):
        for giver, taker in ((first, second), (second, first)):
            for shard in (1, 0):
                await giver.tracker.release_shard(shard)
                await asyncio.sleep(0.1)  # Discord keeps what comes meanwhile
                await taker.tracker.start_shard(shard)
            await serves(taker, [0, 1])
            assert ids(giver) == []
            await asyncio.sleep(0.2)
    await sim.set_rate(0)
    await first.until(lambda: kept(tmp_path) == sent(sim))
    assert not any(task.done() for task in watching)
    for task in watching:
        task.cancel()
    assert (sim.identifies, sim.resumed, sim.violations) == (2, 12, [])
    stats = [stage.tracker.stats for stage in (first, second)]
    assert [one.resume_count for one in stats] == [6, 6]
    assert sum(one.published_event_count for one in stats) == len(sim.sent)
    assert min(observer.looks for observer in observers) > 20
    await first.stop()
    await second.stop()
    assert kept(tmp_path) == sent(sim)


async def test_a_plane_without_shards_waits_for_one(
    two_shards: Simulator, start_both: StartBoth, start_stage: StartStage
) -> None:
    """It is ready and well, its document and its metrics are whole, and a stop ends it."""
    _, second = start_both(two_shards)
    tracker = await second.result(second.ref.ready())
    await second.spend(60.0)
    assert (tracker.shards, tracker.stats.event_count, repr(tracker.progress)) == ((), 0, "0 of 0 ready")
    document = checked(Board(tracker, second.clock).encoded())
    assert (document["verdict"]["level"], document["verdict"]["headline"]) == ("well", "Well: no shard is here")
    assert scrape(Exposition(tracker))[key("discorder_ready")] == 1.0
    with pytest.raises(NotSharded):
        _ = tracker.state
    with pytest.raises(ValueError, match="there is no shard 0 here; there are: none"):
        tracker.restart_shard(0)
    with pytest.raises(ValueError, match=r"there is no shard 0 here|there is no shard 1 here"):
        tracker.shard_for("81384788765712384")
    with pytest.raises(NoSuchShard, match="none of the 2 shards runs in this process"):
        await tracker.send(3, {"since": None, "activities": [], "status": "online", "afk": False})
    await second.stop()


async def test_one_that_another_process_holds_is_not_started(two_shards: Simulator, start_both: StartBoth) -> None:
    """The error names the process and what to do. Nothing else changes."""
    first, second = start_both(two_shards)
    await serves(first, [0, 1])
    tracker = await second.result(second.ref.ready())
    with pytest.raises(StoreLocked, match=r"shards 0, 1 of 2 of this bot: held by .*discorder shards release 1"):
        await second.result(tracker.start_shard(1))
    with pytest.raises(ValueError, match="there is no shard 2 of 2; they are 0 to 1"):
        await tracker.start_shard(2)
    with pytest.raises(VerbRefused, match="it is here already"):
        await first.tracker.start_shard(1)
    await first.result(first.tracker.release_shard(1))
    with pytest.raises(StoreLocked, match=r"shard 0 of 2 of this bot: held by"):
        await second.result(tracker.start_shard(0))
    await second.result(tracker.start_shard(1))
    await serves(second, [1])
    assert (two_shards.identifies, two_shards.resumed) == (2, 1)
    await first.stop()
    await second.stop()


async def test_commands_of_a_released_shard_say_that_it_is_not_here(
    two_shards: Simulator, start_both: StartBoth
) -> None:
    first, second = start_both(two_shards)
    await serves(first, [0, 1])
    tracker = first.tracker
    assert tracker.saved_sessions.stored == 2
    await first.result(tracker.release_shard(1))
    assert tracker.saved_sessions.stored == 1
    presence: dict[str, object] = {"since": None, "activities": [], "status": "idle", "afk": False}
    with pytest.raises(NoSuchShard, match="there is no shard 1 of 2 in this process; its shards are: 0"):
        await tracker.send(3, presence, shard=1)
    await first.result(tracker.send(3, presence))
    assert {frame.d["status"] for frame in two_shards.received if frame.op == 3} == {"idle"}
    await first.stop()
    await second.stop()


async def test_a_paused_shard_moves_with_its_pause(two_shards: Simulator, start_both: StartBoth) -> None:
    first, second = start_both(two_shards)
    await serves(first, [0, 1])
    first.tracker.pause_shard(1)
    await first.until(lambda: first.tracker.shards[1].state is State.RESTARTING)
    since = first.tracker.shards[1].paused_since
    await first.result(first.tracker.release_shard(1))
    assert is_operational(first.tracker)
    await second.result(second.ref.ready())
    await second.result(second.tracker.start_shard(1))
    await second.spend(30.0)
    (shard,) = second.tracker.shards
    assert (shard.state, shard.paused_since) == (State.RESTARTING, since)
    second.tracker.unpause_shard(1)
    await serves(second, [1])
    assert (two_shards.identifies, two_shards.resumed) == (2, 1)
    await second.result(second.tracker.release_shard(1))
    await first.result(first.tracker.start_shard(1))
    await serves(first, [0, 1])
    await first.stop()
    await second.stop()


async def test_a_shard_in_its_back_off_is_released_with_its_session(
    two_shards: Simulator, start_both: StartBoth, tmp_path: Path
) -> None:
    sim = two_shards
    first, second = start_both(sim)
    await serves(first, [0, 1])
    await sim.refuse_upgrades(retry_after=60)
    await sim.drop(shard=1)
    await first.until(lambda: first.tracker.shards[1].state is State.RESTARTING)
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"}, shard=1)
    await first.result(first.tracker.release_shard(1))
    await sim.heal()
    await second.result(second.ref.ready())
    await second.result(second.tracker.start_shard(1))
    await serves(second, [1])
    await first.until(lambda: kept(tmp_path) == sent(sim))
    assert (sim.identifies, sim.resumed) == (2, 1)
    await first.stop()
    await second.stop()


async def test_all_shards_of_auto_are_given_up_one_by_one(
    two_shards: Simulator, start_both: StartBoth, start_stage: StartStage, tmp_path: Path
) -> None:
    """A plane that asked Discord for the number of shards held all layouts; it gives back what it does not run."""
    sim, clock = two_shards, FakeClock()
    first, second = start_both(sim, clock=clock, shards="gateway.shards=auto")
    await serves(first, [0, 1])
    await second.result(second.ref.ready())
    for shard in (0, 1):
        await first.result(first.tracker.release_shard(shard))
        await second.result(second.tracker.start_shard(shard))
    await serves(second, [0, 1])
    assert ids(first) == []
    await first.stop(goodbye=True)  # what others run is not its to end
    await second.stop()
    third = start_stage(sim, f"session.store={tmp_path / 'sessions.sqlite3'}", ALL, clock=clock)
    await serves(third, [0, 1])
    assert (sim.identifies, sim.resumed) == (2, 4)
    await third.stop()


class Shut:
    """A required publisher that accepts nothing until it is let."""

    name = "shut"
    durable = True

    def __init__(self) -> None:
        self.open_up = asyncio.Event()
        self.seen: list[tuple[str | None, int | None]] = []

    async def open(self) -> None: ...

    async def publish(self, events: Sequence[Event]) -> None:
        await self.open_up.wait()
        self.seen += [(event.session, event.seq) for event in events if event.seq is not None]

    async def close(self) -> None: ...


async def test_a_stop_during_a_release_ends_both(two_shards: Simulator, start_both: StartBoth, tmp_path: Path) -> None:
    """The release waits for a publisher that accepts nothing. The stop hands the shard on with the others."""
    sim = two_shards
    first, second = start_both(sim, "session.drain_timeout=30")
    await serves(first, [0, 1])
    shut = Shut()
    first.tracker.add_publisher(shut, required=True)
    await first.until(lambda: first.tracker.publisher_health[-1].name == "shut")
    await sim.dispatch("MESSAGE_CREATE", {"id": "1"}, shard=1)
    await first.until(lambda: first.tracker.publisher_health[-1].in_flight)
    releasing = asyncio.create_task(first.tracker.release_shard(1))
    await first.until(lambda: ids(first) == [0])
    await first.spend(1.0)
    assert not releasing.done()
    for verb in (first.tracker.release_shard, first.tracker.start_shard):
        with pytest.raises((VerbRefused, ValueError), match=r"being started or released|there is no shard 1 here"):
            await verb(1)
    stopping = asyncio.create_task(shutdown(first.tracker))
    await first.until(releasing.done)
    with pytest.raises(NotRunning, match="the control plane is stopping"):
        await releasing
    shut.open_up.set()
    await first.until(lambda: stopping.done() and first.task.done(), while_running=False)
    await stopping
    await second.result(second.ref.ready())
    for shard in (0, 1):
        await second.result(second.tracker.start_shard(shard))
    await serves(second, [0, 1])
    await second.until(lambda: kept(tmp_path) == sent(sim))
    assert (sim.identifies, sim.resumed) == (2, 2)
    with pytest.raises(NotRunning):
        await first.tracker.start_shard(0)
    await second.stop()


async def test_what_a_publisher_lacks_after_the_drain_timeout_goes_to_the_next_owner(
    two_shards: Simulator, start_both: StartBoth
) -> None:
    """A best-effort reader is not waited for longer either. The resume point is what the required publisher has."""
    sim = two_shards
    first, second = start_both(sim, "session.drain_timeout=1")
    await serves(first, [0, 1])
    shut, taken = Shut(), Shut()
    taken.open_up.set()
    first.tracker.add_publisher(shut, required=True)
    await first.until(lambda: first.tracker.publisher_health[-1].name == "shut")
    await sim.dispatch("MESSAGE_CREATE", {"id": "0"}, shard=1)
    await first.until(lambda: first.tracker.publisher_health[-1].in_flight)
    for number in (1, 2):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)}, shard=1)
    await first.until(lambda: first.tracker.publisher_health[-1].queued_events == 2)
    await first.result(first.tracker.release_shard(1))
    assert first.tracker.publisher_health[-1].queued_events == 0
    await second.result(second.ref.ready())
    second.tracker.add_publisher(taken, required=True)
    await second.result(second.tracker.start_shard(1))
    lost = [(session_label(session), seq) for session, seq, kind in sim.sent if kind == "MESSAGE_CREATE"]
    await second.until(lambda: set(lost) <= set(taken.seen))
    assert (sim.identifies, sim.resumed) == (2, 1)
    shut.open_up.set()
    await first.stop()
    assert not set(lost[1:]) & set(shut.seen)
    await second.stop()


class FailingStore(MemorySessionStore):
    """A store that cannot be written while ``fails``. ``released``: the shards that it was told to give back."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.released: list[tuple[int, int]] = []

    @property
    def health(self) -> Health:
        return Health(StoreState.FAILING, "disk full") if self.fails else super().health

    def release(self, shards: Collection[tuple[int, int]]) -> None:
        self.released += shards


async def test_nothing_is_given_back_that_is_not_on_the_disk(two_shards: Simulator, start_stage: StartStage) -> None:
    """The next owner would resume too early. A release that has begun waits for the disk."""
    store = FailingStore()
    stage = start_stage(two_shards, ALL, store=store)
    await serves(stage, [0, 1])
    store.fails = True
    with pytest.raises(VerbRefused, match="the session store cannot hand its session on: disk full"):
        await stage.tracker.release_shard(1)
    assert ids(stage) == [0, 1]
    store.fails = False
    releasing = asyncio.create_task(stage.tracker.release_shard(1))
    await asyncio.sleep(0)
    store.fails = True
    await stage.until(lambda: ids(stage) == [0])
    await stage.spend(5.0)
    assert (releasing.done(), store.released) == (False, [])
    store.fails = False
    await stage.until(releasing.done)
    await releasing
    assert store.released == [(1, 2)]
    releasing = asyncio.create_task(stage.tracker.release_shard(0))
    await asyncio.sleep(0)
    store.fails = True
    await stage.until(lambda: ids(stage) == [])
    await stage.spend(5.0)
    await stage.stop()  # it does not wait for the disk
    with pytest.raises(NotRunning, match="the control plane is stopping"):
        await releasing


async def test_a_second_signal_ends_a_release_at_once(two_shards: Simulator, start_stage: StartStage) -> None:
    stage = start_stage(two_shards, ALL, "session.drain_timeout=30")
    await serves(stage, [0, 1])
    shut = Shut()
    stage.tracker.add_publisher(shut, required=True)
    await stage.until(lambda: stage.tracker.publisher_health[-1].name == "shut")
    await two_shards.dispatch("MESSAGE_CREATE", {"id": "1"}, shard=1)
    await stage.until(lambda: stage.tracker.publisher_health[-1].in_flight)
    releasing = asyncio.create_task(stage.tracker.release_shard(1))
    await stage.until(lambda: ids(stage) == [0])
    stage.tracker.plane.hurry()
    assert await stage.end(within=3.0) is None
    with pytest.raises(NotRunning, match="the control plane is stopping"):
        await releasing


async def test_a_shard_without_a_session_identifies_where_it_is_started(
    two_shards: Simulator, start_both: StartBoth
) -> None:
    first, second = start_both(two_shards)
    await serves(first, [0, 1])
    await two_shards.forget_sessions(shard=1)
    await first.result(first.tracker.release_shard(1))
    await second.result(second.ref.ready())
    await second.result(second.tracker.start_shard(1))
    await serves(second, [1])
    assert two_shards.identifies == 3
    await first.stop()
    await second.stop()


@pytest.mark.system
async def test_processes_hand_a_shard_on_and_a_kill_changes_nothing(
    two_shards: Simulator, environment: dict[str, str], discorder: Command, tmp_path: Path
) -> None:
    """By hand, with the commands; the giver is killed right after the release."""
    sim = two_shards
    await sim.set_rate(200)
    ports = {name: free_port() for name in ("first", "second")}
    processes = {}
    for name, port in ports.items():
        config = tmp_path / f"{name}.toml"
        config.write_text(
            f'[gateway]\napi = "{sim.api_url}"\nshards = {{ ids = {[0, 1] if name == "first" else []}, of = 2 }}\n'
            f'[session]\nstore = "{tmp_path / "sessions.sqlite3"}"\n[http]\nbind = "127.0.0.1:{port}"\n'
            f'[publishers.audit]\nkind = "delimited_file"\npath = "{tmp_path / name}.tsv"\nrequired = true\n'
        )
        processes[name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "discorder", "serve", "--config", str(config)),
            env=environment | {"DISCORD_BOT_TOKEN": sim.token},
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def act(verb: str, shard: int, name: str) -> Outcome:
        return await discorder("shards", verb, str(shard), "--config", str(tmp_path / f"{name}.toml"))

    async def until_done(verb: str, shard: int, name: str) -> None:
        async with asyncio.timeout(60):
            while (outcome := await act(verb, shard, name)).code:
                assert "no control plane answers" in outcome.err, outcome.err
                await asyncio.sleep(0.2)

    try:
        await sim.wait_for(lambda: sim.connected_shards == [0, 1], timeout=60)
        await until_done("release", 1, "first")
        refused = await act("start", 0, "second")
        assert f"held by process {processes['first'].pid} " in refused.err, refused.err
        await until_done("start", 1, "second")
        await sim.wait_for(lambda: sim.connected_shards == [0, 1], timeout=60)
        await until_done("release", 0, "first")
        processes["first"].kill()
        await processes["first"].wait()
        await until_done("start", 0, "second")
        await sim.wait_for(lambda: sim.connected_shards == [0, 1], timeout=60)
        await sim.set_rate(0)
        async with asyncio.timeout(60):
            while kept(tmp_path) != sent(sim):  # noqa: ASYNC110  # other processes
                await asyncio.sleep(0.05)
        assert (sim.identifies, sim.resumed, sim.violations) == (2, 2, [])
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
