"""Cases 11, 12, 18 and 30: publishers that are down, hang, raise or are slow, and a subscriber that stops reading."""

from __future__ import annotations

import asyncio
import itertools
import resource
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from discorder import is_operational
from discorder.bot import bus as bot_bus
from discorder.bot.subscriber import Gap, Subscription, subscribe
from discorder.clock import SystemClock
from discorder.publishers.delivery.health import PublisherHealth
from discorder.publishers.zeromq.publisher import ZmqPublisher
from discorder.publishers.zeromq.subscriptions import connections
from discorder.records import LossKind, LostEvents, RecordType
from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import Op, ReceivedEvent
from tests.faults.fault import FREE, Cost, Fault, loss, told
from tests.faults.spool import Spool
from tests.faults.table import Case
from tests.harness import Stage, StartStage

Start = Callable[..., Awaitable[Simulator]]
RATE = 50  # events a second


async def let_live(stage: Stage, sim: Simulator, seconds: int) -> None:
    """Dispatch fifty events in each second of the clock."""
    for number in range(seconds * 5):
        for _ in range(RATE // 5):
            await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
        await stage.spend(0.2)


def stored_seq(path: Path) -> int:
    """Return the resume point that a process would find now."""
    with sqlite3.connect(path) as connection:
        (seq,) = connection.execute("SELECT seq FROM session").fetchone()
    connection.close()
    return int(seq)


def health(stage: Stage, name: str) -> PublisherHealth:
    (found,) = [one for one in stage.tracker.publisher_health if one.name == name]
    return found


# ---------------------------------------------------------------- 11


@pytest.mark.parametrize("queue", [10_000, 500])
async def test_11_a_required_publisher_is_down_for_2_min(
    case: Case,
    sim: Simulator,
    start_stage: StartStage,
    spools: Mapping[str, Spool],
    tmp_path: Path,
    queue: int,
) -> None:
    """The session is kept, the resume point does not move, and afterwards nothing is missing.

    With a queue that holds six thousand events nothing happens at all; with a small one the connection is closed and resumed.
    """
    path = tmp_path / "sessions.sqlite3"
    settings = ["kind=spool", "required=true", f"max_events={queue}"]
    stage = start_stage(sim, f"session.store={path}", *(f"publishers.spool.{setting}" for setting in settings))
    tracker = await stage.ready()
    spool, session = spools["spool"], tracker.session_label
    stage.stride = 0.2
    await let_live(stage, sim, 3)
    await stage.until(lambda: len(spool.events) == len(sim.sent))
    await stage.spend(3.0)  # two checkpoints
    await asyncio.sleep(0.05)  # the store's own thread
    point = stored_seq(path)
    assert point == spool.events[-1].seq
    spool.down = True
    fault = Fault(case, sim, stage, [spool])
    await let_live(stage, sim, 120)
    assert stored_seq(path) == point
    assert spool.refusals > 10
    assert sim.resumed == 0 if queue == 10_000 else sim.resumed >= 1
    spool.down = False
    up_again = Fault(case, sim, stage, [spool])
    await stage.until(lambda: len(spool.seen) >= len(sim.sent) and tracker.state is State.READY, within=90.0)
    up_again.over()
    assert await fault.cost() == FREE
    assert loss(told(sim), stage.recorder.seen) == FREE  # nobody else was held up or served twice
    assert tracker.session_label == session
    await stage.spend(3.0)
    await asyncio.sleep(0.05)
    assert stored_seq(path) == spool.events[-1].seq
    assert sim.violations == []
    case.note(note=f"{len(sim.sent)} events, {sim.resumed} resumes with a queue of {queue}")


# ---------------------------------------------------------------- 12


async def test_12_a_best_effort_publisher_blocks_for_ever_another_raises_on_each_event(
    case: Case, sim: Simulator, start_stage: StartStage, spools: Mapping[str, Spool]
) -> None:
    """The session and the other publisher are not affected; drops are counted; afterwards there is one GAP per run of drops."""
    settings = [
        f"publishers.{name}.{setting}" for name in ("stuck", "broken") for setting in ("kind=spool", "max_events=100")
    ]
    stage = start_stage(sim, *settings)
    tracker = await stage.ready()
    await stage.until(lambda: len(stage.recorder.events) == len(sim.sent))
    await stage.spend(1.0)
    stuck, broken = spools["stuck"], spools["broken"]
    stuck.hang()
    broken.down = True
    fault = Fault(case, sim, stage)
    stage.stride = 0.2
    await let_live(stage, sim, 40)
    assert is_operational(tracker)
    assert await fault.cost() == FREE
    assert sim.connects == 1
    counts = {name: health(stage, name).dropped for name in spools}
    assert all(count > 1500 for count in counts.values())
    stuck.go_on()
    broken.down = False
    stage.stride = 1.0
    await stage.until(lambda: all(spool.seen[-1:] == told(sim)[-1:] for spool in (stuck, broken)), within=70.0)
    for spool in (stuck, broken):
        (gap,) = gaps(spool)
        assert (gap.kind, gap.publisher) == (LossKind.PUBLISHER, spool.name)
        known = {event.seq for event in spool.events} | set(range(gap.from_seq, (gap.to_seq or 0) + 1))
        assert known == {seq for _, seq, _ in told(sim)}
        assert loss(told(sim), spool.seen) == Cost(0, health(stage, spool.name).dropped, 0)
    case.note(note="one GAP per run, it covers each drop")


def gaps(spool: Spool) -> list[LostEvents]:
    return [msgspec.json.decode(e.data, type=LostEvents) for e in spool.everything if e.type == RecordType.GAP.value]


# ---------------------------------------------------------------- 18

MEGABYTE = 1_000_000
BOUND = 8 * MEGABYTE


@pytest.mark.slow
async def test_18_bursts_of_1_mb_guild_creates_and_a_slow_consumer(
    case: Case, start_simulator: Start, start_stage: StartStage, spools: Mapping[str, Spool]
) -> None:
    """Beats on time on the real clock, memory within the queue's bound, and the consumer gets gaps for what it missed."""
    sim = await start_simulator(clock=SystemClock(), heartbeat_interval_ms=1000, replay_buffer=4, identify_spacing=0.0)
    settings = ["kind=spool", f"max_bytes={BOUND}"]
    stage = start_stage(sim, *(f"publishers.slow.{setting}" for setting in settings), clock=SystemClock())
    tracker = await stage.ready()
    slow = spools["slow"]
    slow.seconds = 0.2
    data = b'{"id":"1","pad":"%b"}' % (b"\xc3\xa9" * (MEGABYTE // 2))
    beats: list[float] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop = asyncio.get_running_loop()
    end = loop.time() + 6.0
    most = 0
    while loop.time() < end:
        for _ in range(5):
            await sim.dispatch_raw("GUILD_CREATE", data)
        await sim.wait_for(lambda: True)
        await asyncio.sleep(0.05)
        stage.recorder.events.clear()
        stage.recorder.everything.clear()
        slow.everything.clear()
        most = max(most, health(stage, "slow").queued_bytes)
        if (sent := len([frame for frame in sim.received if frame.op == Op.HEARTBEAT])) > len(beats):
            beats += [loop.time()] * (sent - len(beats))
    assert (tracker.generation, sim.identifies) == (1, 1)
    assert len(beats) >= 4
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 1.75
    assert most <= BOUND
    assert health(stage, "slow").dropped > 0
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 150
    case.note(
        identifies=sim.identifies - 1,
        note=f"{len(sim.sent)} MB sent, at most {most / MEGABYTE:.0f} MB queued, {grown:.0f} MiB more used",
    )
    await stage.stop()


# ---------------------------------------------------------------- 30

LARGE = {"content": "x" * 20_000}
SENT = 1_500  # thirty megabytes: far more than all pipes together hold


@pytest.mark.parametrize("ring", [64_000_000, 2_000_000], ids=["within the ring", "beyond the ring"])
async def test_30_one_of_two_subscribers_stalls(
    case: Case, start_simulator: Start, start_stage: StartStage, ring: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has every event at once and in order; the stalled one gets the rest by replay, or a Gap that covers it."""
    monkeypatch.setattr(bot_bus, "RECEIVE_HWM", 100)  # else ten thousand messages wait in the stalled one's own process
    sim = await start_simulator(clock=SystemClock(), heartbeat_interval_ms=600_000)
    settings = ("kind=zmq", "bind=tcp://127.0.0.1:*", "hwm=100", f"ring_bytes={ring}")
    stage = start_stage(sim, *(f"publishers.bus.{setting}" for setting in settings), clock=SystemClock())
    await stage.ready()
    (bus,) = [one for one in stage.tracker.publishers if isinstance(one, ZmqPublisher)]
    kinds = ["MESSAGE_CREATE"]
    async with (
        subscribe(bus.endpoints[0], kinds, replay=bus.replay_endpoint) as stalled,
        subscribe(bus.endpoints[0], kinds, replay=bus.replay_endpoint) as other,
    ):
        await stage.until(lambda: len(connections(bus.endpoints)) == 2 and bus.subscriptions == 3)
        await asyncio.sleep(0.05)  # for the second subscription to the same topics, which ZeroMQ does not tell
        await sim.dispatch("MESSAGE_CREATE", LARGE)
        first = [await next_of(stalled), await next_of(other)][0]
        seen: list[int] = []
        for _ in range(SENT // 20):
            for _ in range(20):
                await sim.dispatch("MESSAGE_CREATE", LARGE)
            seen += [event.seq for event in [await next_of(other) for _ in range(20)]]
        wanted = [seq for _, seq, kind in sim.sent if kind == "MESSAGE_CREATE" and seq > first.seq]
        assert seen == wanted
        got: list[int] = []
        covered: set[int] = set()
        while not set(wanted) <= {*got, *covered}:
            item = await next_of(stalled)
            if isinstance(item, Gap):
                covered |= set(range(item.from_seq, (item.to_seq or 0) + 1))
            else:
                got.append(item.seq)
    assert len(got) == len(set(got))
    assert got == sorted(got)
    assert (got == wanted and not covered) if ring > SENT * 20_000 else (covered and len(got) < SENT)
    assert (stage.tracker.generation, sim.identifies) == (1, 1)
    case.note(
        identifies=sim.identifies - 1,
        lost=len(set(wanted) - {*got, *covered}),
        duplicates=0,
        note=f"{'told of' if covered else 'replayed'} {len(covered & set(wanted)) or len(got)} of {SENT}",
    )
    await stage.stop()


async def next_of(events: Subscription[ReceivedEvent]) -> Any:
    async with asyncio.timeout(60):
        return await anext(events)
