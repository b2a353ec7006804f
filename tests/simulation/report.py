"""What a run has to say, as text: the table fault × state, and the transcript of a failure."""

from __future__ import annotations

from collections import Counter

from discorder.statemachine import State
from tests.simulation.faults import NATURES, Kind
from tests.simulation.plan import Plan
from tests.simulation.world import DOWN, Outcome

COLUMNS = (*(state.value for state in State if state is not State.DISCONNECTED), DOWN)
HOLE = "·"


def coverage_table(struck: Counter[tuple[Kind, str]]) -> str:
    """How often each kind of fault struck in each state of the shard that it was meant for; a dot is a hole."""
    head = f"{'fault':<18}" + "".join(f"{name:>13}" for name in COLUMNS)
    rows = [f"{kind:<18}" + "".join(f"{struck[kind, name] or HOLE:>13}" for name in COLUMNS) for kind in NATURES]
    holes = sum(not struck[kind, name] for kind in NATURES for name in COLUMNS)
    return "\n".join([head, *rows, f"{holes} of {len(NATURES) * len(COLUMNS)} cells were never struck"])


def transcript(plan: Plan, outcome: Outcome, lines: int) -> str:
    """The plan of a failure, what happened last, and what was violated."""
    told = outcome.transcript
    until = next((n for n, line in enumerate(told) if "VIOLATED" in line), len(told))
    shown = told[max(0, until - lines) : until + 1]
    faults = [f"  {fault}" for fault in plan.faults] or ["  none"]
    return "\n".join([f"{plan.measures}", "faults:", *faults, "what happened:", *shown])
