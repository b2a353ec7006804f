"""The results of a run as text: the table fault × state, and the transcript of a failure."""

from __future__ import annotations

from collections import Counter

from tests.simulation.cells import COLUMNS, impossible
from tests.simulation.faults import NATURES, Kind
from tests.simulation.plan import Plan
from tests.simulation.world import Outcome

HOLE = "·"


def coverage_table(struck: Counter[tuple[Kind, str]]) -> str:
    """How often each kind of fault struck in each state of the shard that it was meant for.

    A dot is a hole, a letter a cell that is impossible, for the reason that is told below.
    """
    reasons: dict[str, str] = {}  # reason: its letter

    def cell(kind: Kind, column: str) -> str:
        count, why = struck[kind, column], impossible(kind, column)
        if count or not why:
            return str(count or HOLE)
        return reasons.setdefault(why, chr(ord("a") + len(reasons)))

    head = f"{'fault':<18}" + "".join(f"{name:>13}" for name in COLUMNS)
    rows = [f"{kind:<18}" + "".join(f"{cell(kind, name):>13}" for name in COLUMNS) for kind in NATURES]
    legend = [f"{letter}: impossible, {why}" for why, letter in reasons.items()]
    possible = [(kind, name) for kind in NATURES for name in COLUMNS if not impossible(kind, name)]
    holes = sum(not struck[kind, name] for kind, name in possible)
    return "\n".join([head, *rows, *legend, f"{holes} of {len(possible)} possible cells were never struck"])


def transcript(plan: Plan, outcome: Outcome, lines: int) -> str:
    """Return the plan of a failure, the last events, and the violated rule."""
    told = outcome.transcript
    until = next((n for n, line in enumerate(told) if "VIOLATED" in line), len(told))
    shown = told[max(0, until - lines) : until + 1]
    faults = [f"  {fault}" for fault in plan.faults] or ["  none"]
    return "\n".join([f"{plan.measures}", "faults:", *faults, "what happened:", *shown])
