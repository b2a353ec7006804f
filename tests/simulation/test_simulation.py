"""The simulation itself: a seed is a run, failures shrink, and what once failed is run again for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from discorder.statemachine import State
from tests.simulation.cells import COLUMNS, impossible
from tests.simulation.faults import Fault, Kind
from tests.simulation.plan import Measures, Plan, make_plan
from tests.simulation.report import HOLE, coverage_table, transcript
from tests.simulation.shrink import shrink
from tests.simulation.world import run

HERE = Path(__file__).parent
FAILED = [line for line in (HERE / "failed.jsonl").read_text().splitlines() if line]
DAYS = 0.005

DIGEST = """
from tests.simulation.plan import make_plan
from tests.simulation.world import run
print(run(make_plan({}, {})).digest)
"""


def test_one_seed_is_one_run_bit_for_bit() -> None:
    """Twice in this process, and in others where strings hash in another way."""
    plan = make_plan(8, DAYS)
    digest = run(plan).digest
    assert run(plan).digest == digest
    assert run(make_plan(9, DAYS)).digest != digest
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", DIGEST.format(8, DAYS)],
            cwd=HERE.parent.parent,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == digest


def test_what_once_failed_passes() -> None:
    """Shrunk plans, each of which showed a defect: failed.jsonl."""
    for line in FAILED:
        plan = Plan.decode(line)
        outcome = run(plan)
        assert outcome.violation == "", transcript(plan, outcome, 60)


def test_every_kind_of_fault_strikes_and_nothing_is_violated() -> None:
    """One of each kind, in a session that is up, then a calm: everything is well again and nothing was lost."""
    faults = [Fault(at=60.0 + 100.0 * n, kind=kind, seconds=8.0) for n, kind in enumerate(Kind)]
    plan = Plan(1, faults[-1].at, Measures(event_gap=10.0), tuple(faults))
    outcome = run(plan)
    assert outcome.violation == "", transcript(plan, outcome, 60)
    assert {kind for kind, _ in outcome.struck} == set(Kind)


def test_a_failing_plan_is_shrunk_to_the_faults_that_it_needs() -> None:
    """Two faults together make it fail; all the others go."""
    plan = make_plan(4, 1.0, gap=600.0)
    first, second = plan.faults[20], plan.faults[70]

    def fails(candidate: Plan) -> bool:
        return first in candidate.faults and second in candidate.faults

    small = shrink(plan, fails)
    assert small.faults == (first, second)
    assert small.seconds == pytest.approx(second.at + 1.0)


def test_a_plan_survives_being_written_down() -> None:
    plan = make_plan(3, 0.5)
    assert Plan.decode(plan.encode()) == plan


def test_the_coverage_table_shows_counts_and_holes() -> None:
    plan = Plan(1, 10.0, Measures(), (Fault(at=5.0, kind=Kind.RECONNECT, aim=State.RESUMING),))
    struck = run(plan).struck
    assert struck == {(Kind.RECONNECT, "Resuming"): 1}
    table = coverage_table(struck)
    row = next(line for line in table.splitlines() if line.startswith("op7 "))
    assert row.split()[1:] == [
        "1" if column == "Resuming" else "a" if impossible(Kind.RECONNECT, column) else HOLE for column in COLUMNS
    ]
    assert "a: impossible, there is no connection" in table
