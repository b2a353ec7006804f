"""Control plane and bot are killed and restarted in random order: the file has every event; the bot has it, or a gap says so."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from discorder.simulator import SentDocument, Simulator
from discorder.wire import session_label
from tests.endurance.evidence import Account, count_lines
from tests.endurance.process import BotProcess, ChildProcess, PlaneProcess
from tests.endurance.waiting import caught_up, readies, until

START_WITHIN = 90.0
CAUGHT_UP_WITHIN = 120.0
BOT_CAUGHT_UP_WITHIN = 60.0
ROTATE_BYTES = 8_000_000
EXITS = {  # a process that is still importing has no handler for SIGTERM yet
    "kill": (-signal.SIGKILL,),
    "stop": (0, -signal.SIGTERM),
}


@dataclass(frozen=True, slots=True)
class Soak:
    """For ``seconds``, about every ``every`` seconds somebody is killed or stopped, and is away for up to ``away`` seconds."""

    seconds: float = 300.0
    every: float = 3.0
    away: float = 2.0
    rate: float = 500.0
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """``ends``: how often whose life ended how. ``unaccounted``: events that the bot neither has nor was told of."""

    ends: Counter[str] = field(default_factory=Counter)
    account: Account = field(default_factory=Account)
    events: int = 0
    identifies: int = 0
    resumed: int = 0
    bot_has: int = 0
    bot_gaps: int = 0
    unaccounted: int = 0
    bad_exits: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    log: str = ""


async def run(soak: Soak) -> Outcome:
    """One control plane with a required file and a bus, one bot."""
    outcome, rng = Outcome(), random.Random(soak.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:  # short: the path of a socket has 107 bytes at most
        folder = Path(name)
        async with Simulator(guilds=2, rate=soak.rate, seed=soak.seed, keep_documents=True, history=2_000_000) as sim:
            address = f"ipc://{folder}/bus"
            plane = PlaneProcess(folder, sim, rotate_bytes=ROTATE_BYTES, bus=address)
            bot = BotProcess(folder, address)
            try:
                await plane.start()
                await bot.start()
                await until(lambda: readies(plane.audit), START_WITHIN)
                ends = await _end_lives(soak, rng, plane, bot, outcome)
                await sim.set_rate(0.0)
                await _take_stock(sim, plane, bot, ends, outcome)
            finally:
                await bot.clean_up()
                await plane.clean_up()
            outcome.log = f"{plane.said()}\n{bot.said()}"
    return outcome


async def _end_lives(
    soak: Soak, rng: random.Random, plane: PlaneProcess, bot: BotProcess, outcome: Outcome
) -> list[int]:
    """Kill and stop, now the one, now the other; both run afterwards. Returns the lines in the file at each end of the plane."""
    lines: list[int] = []
    end = time.monotonic() + soak.seconds
    while time.monotonic() < end:
        await asyncio.sleep(rng.uniform(0.2, 2 * soak.every))
        victim: ChildProcess = rng.choice((plane, bot))
        how = rng.choice(("kill", "kill", "stop"))
        code = await victim.kill() if how == "kill" else await victim.stop()
        who = "plane" if victim is plane else "bot"
        outcome.ends[f"{who}: {how}"] += 1
        if code not in EXITS[how]:
            outcome.bad_exits.append(f"{who}, life {victim.lives}, {how}: exit code {code}")
        if victim is plane:
            lines.append(count_lines(plane.audit))
        await asyncio.sleep(rng.uniform(0.0, soak.away))
        await (plane.start() if victim is plane else bot.start())
    return lines


async def _take_stock(sim: Simulator, plane: PlaneProcess, bot: BotProcess, ends: list[int], outcome: Outcome) -> None:
    await until(lambda: sim.connected_shards, CAUGHT_UP_WITHIN)
    outcome.account = await caught_up(plane, sim, CAUGHT_UP_WITHIN, ends=ends)
    with contextlib.suppress(TimeoutError):  # what is still not accounted for is counted below
        await until(
            lambda: not Notes.read(bot.notes).unaccounted(sim.sent_documents), BOT_CAUGHT_UP_WITHIN, look_every=0.5
        )
    notes = Notes.read(bot.notes)
    outcome.bot_has, outcome.bot_gaps = len(notes.events), len(notes.gaps)
    outcome.unaccounted = len(notes.unaccounted(sim.sent_documents))
    outcome.events, outcome.identifies, outcome.resumed = len(sim.sent_documents), sim.identifies, sim.resumed
    outcome.violations = [str(violation) for violation in sim.violations]
    for who, process in (("bot", bot), ("plane", plane)):
        if (code := await process.stop()) != 0:
            outcome.bad_exits.append(f"{who}: exit code {code} at the end")


@dataclass(slots=True)
class Notes:
    """What the bot wrote down: (session label, seq) of events; (session label, from, to) of gaps, to = None without an end."""

    events: set[tuple[str, int]] = field(default_factory=set)
    gaps: list[tuple[str, int, int | None]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Notes:
        notes = cls()
        for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
            match line.removesuffix("\n").split("\t"):
                case ["event", session, seq] if line.endswith("\n"):
                    notes.events.add((session, int(seq)))
                case ["gap", session, first, last] if line.endswith("\n"):
                    notes.gaps.append((session, int(first), None if last == "-" else int(last)))
        return notes

    def unaccounted(self, sent: Iterable[SentDocument]) -> list[tuple[str, int]]:
        """What was sent and is neither an event here nor within a gap."""
        keys = ((session_label(document.session_id), document.seq) for document in sent)
        return [key for key in keys if key not in self.events and not self._is_in_gap(*key)]

    def _is_in_gap(self, session: str, seq: int) -> bool:
        return any(
            session == label and first <= seq and (last is None or seq <= last) for label, first, last in self.gaps
        )


def faults(outcome: Outcome) -> list[str]:
    """What a run must not show, in sentences."""
    found = [*outcome.account.faults, *outcome.bad_exits, *outcome.violations]
    if outcome.account.missing:
        found.append(f"{outcome.account.missing.total()} events are missing in the file")
    if outcome.unaccounted:
        found.append(f"{outcome.unaccounted} events are neither with the bot nor in a gap")
    if outcome.identifies != 1:
        found.append(f"{outcome.identifies} identifies")
    return [*found, outcome.log] if found else []
