"""Run the simulation from the command line: one seed, fresh seeds for some time, or a plan from a file."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter
from pathlib import Path

from tests.simulation.faults import Kind
from tests.simulation.plan import Plan, make_plan
from tests.simulation.report import coverage_table, transcript
from tests.simulation.shrink import shrink
from tests.simulation.world import Outcome, run

QUICK_DAYS = 0.03  # of a fresh seed: three quarters of an hour of faults

SHRINK_WITHIN = 120.0  # seconds of real time; then the smallest plan so far is told


def main() -> int:
    """0: nothing was violated; 1: something was, and the shrunk plan has been printed."""
    arguments = _arguments()
    if arguments.plan is not None:
        return _one(Plan.decode(arguments.plan.read_text()), arguments)
    days = QUICK_DAYS if arguments.days is None else arguments.days
    if arguments.seed is not None:
        return _one(make_plan(arguments.seed, days), arguments)
    return _fresh(days, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one run, bit for bit; without it: fresh seeds")
    parser.add_argument("--days", type=float, help=f"of simulated time in which faults strike (default {QUICK_DAYS})")
    parser.add_argument("--seconds", type=float, default=120.0, help="real time for fresh seeds (default 120)")
    parser.add_argument("--plan", type=Path, help="run a plan that was printed before")
    parser.add_argument("--no-shrink", action="store_true", help="a failing plan is told as it is")
    parser.add_argument("--lines", type=int, default=60, help="of the transcript of a failure (default 60)")
    return parser.parse_args()


def _one(plan: Plan, arguments: argparse.Namespace) -> int:
    began = time.perf_counter()
    outcome = run(plan)
    seconds = time.perf_counter() - began
    _say(f"seed {plan.seed}: {outcome.at / 86_400:.2f} simulated days in {seconds:.1f} s; {_figures(outcome)}")
    _say(f"digest {outcome.digest}")
    if outcome.violation:
        return _failed(plan, outcome, arguments)
    _say("")
    _say(coverage_table(outcome.struck))
    return 0


def _fresh(days: float, arguments: argparse.Namespace) -> int:
    until = time.monotonic() + arguments.seconds
    struck: Counter[tuple[Kind, str]] = Counter()
    runs, simulated = 0, 0.0
    while time.monotonic() < until:
        plan = make_plan(secrets.randbelow(10**9), days)
        outcome = run(plan)
        if outcome.violation:
            return _failed(plan, outcome, arguments)
        runs, simulated = runs + 1, simulated + outcome.at
        struck.update(outcome.struck)
    _say(coverage_table(struck))
    _say(f"\n{runs} seeds, {simulated / 86_400:.1f} simulated days, {struck.total()} faults: nothing was violated")
    return 0


def _failed(plan: Plan, outcome: Outcome, arguments: argparse.Namespace) -> int:
    _say(f"seed {plan.seed} FAILED: {outcome.violation}")
    small = plan
    if not arguments.no_shrink:
        _say(f"shrinking {len(plan.faults)} faults …")
        until = time.monotonic() + SHRINK_WITHIN
        small = shrink(plan, lambda candidate: time.monotonic() < until and bool(run(candidate).violation))
        outcome = run(small)
    _say(f"\n{transcript(small, outcome, arguments.lines)}")
    _say(f"\nAgain: make simulate-time SEED={plan.seed} DAYS={plan.seconds / 86_400:g}")
    _say(f"As a plan, for --plan FILE, or as a line of tests/simulation/failed.jsonl:\n{small.encode()}")
    return 1


def _figures(outcome: Outcome) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcome.figures.items())


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
