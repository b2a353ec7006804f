"""One session over several lives, each but the last ended by SIGKILL; then a comparison with the file."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from discorder.guilds.feed import Entry, NotHeld
from discorder.publishers.journal import Journal
from discorder.simulator import Simulator
from tests.endurance.evidence import Account, count_lines
from tests.endurance.process import PlaneProcess
from tests.endurance.waiting import caught_up, until
from tests.kills.bots import ALL_LINES, Bots
from tests.kills.points import POINTS, Life, Point

RATE = 200.0  # events per second
OUTSIDE = "from outside"
OUTSIDE_SHARE = 0.1  # of the moments that are drawn
# seconds: a ticket that died with its process holds its bucket for 15, and the machine may be busy
REACHED_WITHIN = 90.0
SERVE = ("-m", "tests.kills.child")
FACADE = '[facade]\njournal = "{folder}/journal"\nring_bytes = 1_048_576\n'  # segments of 128 KiB
TINY_QUEUE = "max_events = 10\nblock_timeout = 0.3\nhold_off = 1.0\n"
CAUGHT_UP_WITHIN = 90.0
JUST_BEFORE = 60  # events since READY: 0.3 s, for a machine that is busy with other tests
WORKS_BEFORE_STOP = 0.4  # seconds of events before a life is asked to stop


@dataclass(frozen=True, slots=True)
class Moment:
    """``delay`` seconds after the ``passes``-th pass of ``point``; `OUTSIDE`: after the start, by this process."""

    point: str
    passes: int = 1
    delay: float = 0.0

    def __str__(self) -> str:
        return f"{self.point} #{self.passes} +{self.delay * 1000:.0f} ms"


@dataclass(slots=True)
class Kill:
    """The effect of one moment, seen in the life after it."""

    moment: Moment
    missing: int = 0
    duplicates: int = 0
    identifies: int = 0
    excused: bool = False


@dataclass(slots=True)
class Story:
    """The result of `tell`. ``faults``: sentences; ``log``: the end of the output of the processes, for a story with faults.

    ``facade_kills``: how often a façade in a process of its own was killed.
    """

    kills: list[Kill] = field(default_factory=list)
    events: int = 0
    facade_kills: int = 0
    faults: list[str] = field(default_factory=list)
    log: str = ""


Choose = Callable[[bool], Moment]  # whether the next life must identify, to the moment that ends it


async def tell(
    count: int,
    choose: Choose,
    *,
    compress: str = "auto",
    zlib_split: int = 1,
    rotate_bytes: int = 0,
    slow_disk: bool = False,
    apart: bool = False,
    seed: object = 0,
) -> Story:
    """Live and be killed ``count`` times, and live once more to a graceful end.

    Two bots are connected to its façade meanwhile, which cut their connections at moments that ``seed`` draws.
    ``slow_disk``: the file cannot keep up and its queue is tiny, so that connections are closed for congestion all the time.
    ``apart``: the façade is a process of its own, which is killed too.
    """
    story = Story()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        async with Simulator(
            guilds=1, rate=RATE, zlib_split=zlib_split, keep_documents=True, heartbeat_interval_ms=10_000
        ) as sim:
            bots = Bots(folder, sim, apart=apart)
            more = (TINY_QUEUE if slow_disk else "") + FACADE.format(folder=folder) + bots.config
            plane = PlaneProcess(folder, sim, compress=compress, rotate_bytes=rotate_bytes, bus=bots.bus, more=more)
            serve = (*SERVE, "--slow-disk") if slow_disk else SERVE
            try:
                bots.start(plane.config, random.Random(f"bots {seed}"))
                await _live(story, count, choose, plane, bots, sim, serve)
                story.faults += [fault async for fault in _faults_of_journal(folder / "journal", sim)]
            except TimeoutError:
                story.faults.append("a process did not do in time what it had to")
            finally:
                await plane.clean_up()
                await bots.stop()
                story.facade_kills = bots.kills
            if story.faults:
                story.log = plane.said()
    return story


async def _live(
    story: Story, count: int, choose: Choose, plane: PlaneProcess, bots: Bots, sim: Simulator, serve: Sequence[str]
) -> None:
    ends: list[int] = []
    for _ in range(count):
        identifies = sim.identifies
        kill = Kill(choose(not _is_session_stored(plane.store)))
        await _die(story, kill.moment, plane, sim, serve)
        before = story.kills[-1] if story.kills else None
        if before is not None:
            before.identifies = sim.identifies - identifies
        # A life that ends before its turn to identify leaves that to the next one.
        kill.excused = _may_lose_session(plane, sim) or (
            before is not None and before.excused and not before.identifies
        )
        story.kills.append(kill)
        ends.append(count_lines(plane.audit))
    identifies = sim.identifies
    await plane.start(serve)
    account = await _catch_up(story, plane, sim, ends)
    story.kills[-1].identifies = sim.identifies - identifies
    await bots.spare_facade()
    with contextlib.suppress(TimeoutError):  # said below
        await until(lambda: bots.up_to_date(sim), CAUGHT_UP_WITHIN)
    story.faults += bots.faults(sim, plane.said(ALL_LINES))
    if (code := await plane.stop()) != 0:
        story.faults.append(f"the graceful end had exit code {code}")
    _judge(story, account, sim)


async def _die(story: Story, moment: Moment, plane: PlaneProcess, sim: Simulator, serve: Sequence[str]) -> None:
    if moment.point == OUTSIDE:
        await plane.start(serve)
        await asyncio.sleep(moment.delay)
        code = await plane.kill()
    else:
        await plane.start((*serve, "--at", moment.point, str(moment.passes), f"{moment.delay * 1000:.1f}"))
        if POINTS[moment.point].life is Life.STOPPING:
            await _work_a_little(plane, sim)
            plane.ask_to_stop()
        try:
            code = await plane.ended(within=REACHED_WITHIN)
        except TimeoutError:
            story.faults.append(f"{moment} was not reached")
            code = await plane.kill()
    if code != -signal.SIGKILL:
        story.faults.append(f"{moment}: the process ended by itself, with exit code {code}")


async def _work_a_little(plane: PlaneProcess, sim: Simulator) -> None:
    """Return some time after this life has its session."""
    await until(lambda: sim.connected_shards or plane.process.returncode is not None, REACHED_WITHIN)
    await asyncio.sleep(WORKS_BEFORE_STOP)


async def _catch_up(story: Story, plane: PlaneProcess, sim: Simulator, ends: Sequence[int]) -> Account:
    """Stop the events and wait until the last life has everything, or time is up."""
    await _work_a_little(plane, sim)
    await sim.set_rate(0.0)
    story.events = len(sim.sent_documents)
    disowned = list(dict.fromkeys(document.session_id for document in sim.sent_documents))[:-1]
    return await caught_up(plane, sim, CAUGHT_UP_WITHIN, ends=ends, disowned=disowned)


def _judge(story: Story, account: Account, sim: Simulator) -> None:
    story.faults += account.faults
    for number, kill in enumerate(story.kills):
        kill.missing, kill.duplicates = account.missing[number + 1], account.duplicates[number + 1]
        if kill.missing:
            story.faults.append(f"after {kill.moment}: {kill.missing} events are missing")
        if kill.identifies > kill.excused and sim.identifies > 1:
            story.faults.append(f"after {kill.moment}: {kill.identifies} further identifies")
    if account.missing[0] or account.duplicates[0]:
        story.faults.append("the first life lacks events or has some twice")
    story.faults += [f"the simulator saw {violation}" for violation in sim.violations]


async def _faults_of_journal(directory: Path, sim: Simulator) -> AsyncIterator[str]:
    """Compare the journal with what was sent in the last session: every event that it holds, up to the last, and the guild."""
    last = sim.sent_documents[-1]
    sent = {one.seq: (one.type, one.data) for one in sim.sent_documents if one.session_id == last.session_id}
    journal = Journal(directory)
    await journal.open()
    try:
        end, snapshot = journal.end(0), journal.snapshot(0)
        if end is None or snapshot is None or end.seq != last.seq or len(snapshot.guilds.states) != 1:
            yield f"the journal ends at {end} with {snapshot}, not at {last.seq} with one guild"
            return
        held: Sequence[Entry] = ()
        after = 0
        for after in range(end.seq):
            with contextlib.suppress(NotHeld):
                held = journal.entries(0, end._replace(seq=after), 1 << 30)
                break
        kept = {entry.seq: (entry.type, entry.data) for entry in held}
        if len(kept) < len(held) or not held or kept != {seq: event for seq, event in sent.items() if seq > after}:
            yield f"the journal holds {len(held)} events after {after}, and these are not those that were sent"
    finally:
        await journal.close()


def _may_lose_session(plane: PlaneProcess, sim: Simulator) -> bool:
    """Return whether the session may be lost: it is not stored, and READY was sent only just before."""
    if _is_session_stored(plane.store):
        return False
    newest = sim.sent_documents[-1].session_id if sim.sent_documents else ""
    return sum(document.session_id == newest for document in sim.sent_documents) <= JUST_BEFORE


def _is_session_stored(path: Path) -> bool:
    if not path.exists():
        return False
    with closing(sqlite3.connect(path)) as connection:
        try:
            (count,) = connection.execute("SELECT count(*) FROM session").fetchone()
        except sqlite3.OperationalError:  # killed before it had made the tables
            return False
        return bool(count)


# ------------------------------------------------------------------------------------------------ drawing moments


def in_turn(moments: Sequence[Moment]) -> Choose:
    """Choose these, one after the other."""
    left = iter(moments)
    return lambda _: next(left)


def drawn(rng: random.Random, names: Sequence[str]) -> Choose:
    """Choose at random: first of ``names`` those that fit the life, once each, then of all points."""
    left = list(names)

    def choose(fresh: bool) -> Moment:
        if rng.random() < OUTSIDE_SHARE:
            return Moment(OUTSIDE, delay=rng.uniform(0.0, 3.0))
        fitting = [name for name in left if _fits(POINTS[name], fresh)]
        name = fitting[0] if fitting else rng.choice([name for name in POINTS if _fits(POINTS[name], fresh)])
        if fitting:
            left.remove(name)
        point = POINTS[name]
        delay = 0.0 if point.life is Life.STOPPING else rng.choice((0.0, 0.0, rng.uniform(0.0, 0.05)))
        return Moment(name, rng.randint(1, point.passes), delay)

    return choose


def _fits(point: Point, fresh: bool) -> bool:
    return point.life is not (Life.LATER if fresh else Life.FIRST)
