"""The end of every endurance run: events stop, the control plane catches up and stops; and the faults that a run may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from discorder.simulator import Simulator
from tests.endurance.evidence import Account
from tests.endurance.process import PlaneProcess
from tests.endurance.waiting import caught_up, until

START_WITHIN = 90.0  # seconds from the start of a process to its first session, on a machine that is busy
CAUGHT_UP_WITHIN = 120.0  # after the last fault: a shard that was struck again and again waits up to 30 s


def simulator(shards: int, rate: float, seed: int, **options: Any) -> Simulator:
    """Return a simulator with as many guilds as shards that remembers everything it sends."""
    return Simulator(
        guilds=shards, shards=shards, rate=rate, seed=seed, keep_documents=True, history=2_000_000, **options
    )


@dataclass(slots=True)
class Outcome:
    """``bad_exits``: sentences about processes that did not end as they should; ``log``: the end of what they said."""

    account: Account = field(default_factory=Account)
    events: int = 0
    identifies: int = 0
    resumed: int = 0
    violations: list[str] = field(default_factory=list)
    bad_exits: list[str] = field(default_factory=list)
    log: str = ""

    async def take_stock(self, sim: Simulator, plane: PlaneProcess, shards: int, *, ends: Sequence[int] = ()) -> None:
        """Stop the events, wait until the file of ``plane`` is complete, and note it all. ``ends`` as for `caught_up`."""
        await sim.set_rate(0.0)
        await until(lambda: len(sim.connected_shards) == shards, CAUGHT_UP_WITHIN)
        self.account = await caught_up(plane, sim, CAUGHT_UP_WITHIN, ends=ends)
        self.events, self.identifies, self.resumed = len(sim.sent_documents), sim.identifies, sim.resumed
        self.violations = [str(violation) for violation in sim.violations]

    async def stop(self, plane: PlaneProcess) -> None:
        """Stop the control plane."""
        if (code := await plane.stop()) != 0:
            self.bad_exits.append(f"plane: exit code {code} at the end")
        self.log = plane.said()

    def faults(self, shards: int, *, killed: bool = False) -> list[str]:
        """What a run must not show, in sentences. ``killed``: processes were killed, so events may have come twice."""
        found = [*self.account.faults, *self.bad_exits, *self.violations]
        if self.account.missing:
            found.append(f"{self.account.missing.total()} events are missing in the file")
        if self.account.duplicates.total() and not killed:
            found.append(f"{self.account.duplicates.total()} events came twice, though the process lived on")
        if self.identifies != shards:
            found.append(f"{self.identifies} identifies for {shards} shards")
        return [*found, self.log] if found else []
