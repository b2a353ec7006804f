"""Which layer notices each broken copy of the table? ``make mutants``; ``ARGS="--only TEXT"`` for some.

The cheap layers come first: the static check, the search, the tests of the machine, then spin. A mutant that none of them
notices survives, and has to be explained in `EXPLAINED`; one without an explanation is an error, and so is an explanation
that explains nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import pytest

from discorder.proofs.liveness import LIVENESS
from discorder.proofs.model import table_model
from discorder.proofs.search import Found, search
from discorder.proofs.spin import missing_tools, verify
from discorder.statemachine.check import check_table
from tests.table_mutants.mutants import MUTANT_VARIABLE, Mutant, mutants

TESTS = "tests/statemachine"

_NO_SESSION = "explained: no session is held in Identifying; the row says what op 9 means wherever it comes"

EXPLAINED: dict[str, str] = {
    "action dropped: Identifying × invalid_session → Unhealthy: drop_session": _NO_SESSION,
    "action dropped: Identifying × invalid_resumable → Unhealthy: drop_session": _NO_SESSION,
}


class Layer(StrEnum):
    """Who noticed."""

    STATIC = "static"
    SEARCH = "search"
    TESTS = "tests"
    SPIN = "spin"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant. ``how``: the finding, the property, the test."""

    layer: Layer
    how: str


def judge(mutant: Mutant, number: int, *, spin: bool) -> Verdict:
    """The first layer that notices."""
    table = mutant.table
    findings = check_table(table.rows, table.cells, table.deadlines, table.stable_after, (table.entry, table.exit))
    if findings:
        return Verdict(Layer.STATIC, findings[0])
    model = table_model(mutant.table)
    found = search(model)
    wrong = found.counterexample
    if wrong is not None:
        return Verdict(Layer.SEARCH, f"{wrong.broken.name} after {len(wrong.steps)} steps")
    if (failed := _failing_test(number)) is not None:
        return Verdict(Layer.TESTS, failed)
    if _size(found) == _size(_search_of_the_table()):
        return Verdict(Layer.NOBODY, "")  # spin would see what it saw before
    for check in LIVENESS if spin else ():
        if verify(model, check).run is not None:
            return Verdict(Layer.SPIN, check.name)
    return Verdict(Layer.NOBODY, "")


def _size(found: Found) -> tuple[int, int, int]:
    return found.states, found.steps, found.depth


@cache
def _search_of_the_table() -> Found:
    return search(table_model())


def _failing_test(number: int) -> str | None:
    """The first test of the machine that fails with the mutant in place of the table (`plugin.py`)."""
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "tests.table_mutants.plugin",
        "-p",
        "no:cacheprovider",
        TESTS,
    )
    environment = {**os.environ, MUTANT_VARIABLE: str(number)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == pytest.ExitCode.OK:
        return None
    if done.returncode != pytest.ExitCode.TESTS_FAILED:
        msg = f"the tests could not run with mutant {number}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise RuntimeError(msg)
    return next(line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR ")))


def _judged(numbers: Iterable[int], *, spin: bool, jobs: int) -> Iterator[tuple[int, Verdict]]:
    with ProcessPoolExecutor(jobs) as pool:
        chosen = list(numbers)
        yield from zip(chosen, pool.map(_judge, chosen, [spin] * len(chosen)), strict=True)


def _judge(number: int, spin: bool) -> Verdict:
    return judge(_ALL[number], number, spin=spin)


_ALL = list(mutants())


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Print what became of each mutant, and a table of kinds × layers. 1 when a survivor is not explained."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", default="", help="only the mutants whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    began = time.perf_counter()
    counts: Counter[tuple[str, Layer]] = Counter()
    unexplained, used = [], set()
    numbers = [n for n, mutant in enumerate(_ALL) if chosen.only in str(mutant)]
    for number, verdict in _judged(numbers, spin=not missing_tools(), jobs=chosen.jobs):
        mutant = _ALL[number]
        counts[mutant.kind, verdict.layer] += 1
        explanation = EXPLAINED.get(str(mutant)) if verdict.layer is Layer.NOBODY else None
        if verdict.layer is Layer.NOBODY:
            used.add(str(mutant))
            if explanation is None:
                unexplained.append(mutant)
        _tell(f"{verdict.layer:<7} {mutant}: {explanation or verdict.how or 'NOT NOTICED, NOT EXPLAINED'}")
    stale = [] if chosen.only else sorted(set(EXPLAINED) - used)
    _tell(_table(counts))
    _tell(
        f"{len(numbers)} mutants in {time.perf_counter() - began:.0f} s; {len(unexplained)} survive without an explanation"
    )
    for name in stale:
        _tell(f"explained, but noticed or gone: {name}")
    return 1 if unexplained or stale else 0


def _table(counts: Counter[tuple[str, Layer]]) -> str:
    kinds = sorted({kind for kind, _ in counts})
    lines = [f"{'':24}" + "".join(f"{layer:>8}" for layer in Layer)]
    lines += [f"{kind:24}" + "".join(f"{counts[kind, layer]:>8}" for layer in Layer) for kind in kinds]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
