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
from tests.endurance.evidence import count_lines
from tests.endurance.outcome import START_WITHIN, Outcome, simulator
from tests.endurance.process import BotProcess, ChildProcess, PlaneProcess
from tests.endurance.waiting import readies, until

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
class SoakOutcome(Outcome):
    """``ends``: how often whose life ended how. ``unaccounted``: events that the bot neither has nor has a gap for."""

    ends: Counter[str] = field(default_factory=Counter)
    bot_has: int = 0
    bot_gaps: int = 0
    unaccounted: int = 0

    def all_faults(self) -> list[str]:
        """Return the faults of the control plane, and events that the bot lacks without a gap."""
        lost = [f"{self.unaccounted} events are neither with the bot nor in a gap"] if self.unaccounted else []
        return [*lost, *self.faults(1, killed=True)]


async def run(soak: Soak) -> SoakOutcome:
    """One control plane with a required file and a bus, one bot."""
    outcome, rng = SoakOutcome(), random.Random(soak.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:  # short: the path of a socket has 107 bytes at most
        folder = Path(name)
        async with simulator(1, soak.rate, soak.seed) as sim:
            address = f"ipc://{folder}/bus"
            plane = PlaneProcess(folder, sim, rotate_bytes=ROTATE_BYTES, bus=address)
            bot = BotProcess(folder, address)
            try:
                await plane.start()
                await bot.start()
                await until(lambda: readies(plane.audit), START_WITHIN)
                ends = await _end_lives(soak, rng, plane, bot, outcome)
                await outcome.take_stock(sim, plane, 1, ends=ends)
                await _note_bot(sim, bot, outcome)
                await outcome.stop(plane)
            finally:
                await bot.clean_up()
                await plane.clean_up()
            outcome.log += f"\n{bot.said()}"
    return outcome


async def _end_lives(
    soak: Soak, rng: random.Random, plane: PlaneProcess, bot: BotProcess, outcome: SoakOutcome
) -> list[int]:
    """Kill and stop one of both at random; both run afterwards. Return the lines in the file at each end of the plane."""
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


async def _note_bot(sim: Simulator, bot: BotProcess, outcome: SoakOutcome) -> None:
    """Wait until the bot has every event or a gap that covers it, and stop it."""
    with contextlib.suppress(TimeoutError):  # what is still not accounted for is counted below
        await until(
            lambda: not Notes.read(bot.notes).unaccounted(sim.sent_documents), BOT_CAUGHT_UP_WITHIN, look_every=0.5
        )
    notes = Notes.read(bot.notes)
    outcome.bot_has, outcome.bot_gaps = len(notes.events), len(notes.gaps)
    outcome.unaccounted = len(notes.unaccounted(sim.sent_documents))
    if (code := await bot.stop()) != 0:
        outcome.bad_exits.append(f"bot: exit code {code} at the end")


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
        """Return what was sent and is neither an event here nor within a gap."""
        keys = ((session_label(document.session_id), document.seq) for document in sent)
        return [key for key in keys if key not in self.events and not self._is_in_gap(*key)]

    def _is_in_gap(self, session: str, seq: int) -> bool:
        return any(
            session == label and first <= seq and (last is None or seq <= last) for label, first, last in self.gaps
        )
