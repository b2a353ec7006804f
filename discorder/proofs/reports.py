"""Run the proofs and yield their results line by line, for `discorder verify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from discorder.proofs.compiled import Compiled
from discorder.proofs.completeness import check_meanings, check_origins, dead_rows
from discorder.proofs.liveness import LIVENESS, Liveness
from discorder.proofs.model import THE_TABLE, Table, TableModel, table_model
from discorder.proofs.search import Found, search
from discorder.proofs.spin import Verified, missing_tools, verify
from discorder.proofs.traces import read_traces
from discorder.proofs.transcript import setting, transcript
from discorder.proofs.validation import trace_checker
from discorder.statemachine.check import check_table
from discorder.statemachine.table import Name, State

_ROOM = "discorder/proofs/"
SPINS_AT_ONCE = 2  # each uses one core and a few hundred MiB


@dataclass(frozen=True, slots=True)
class Line:
    """Hold one line of a report. ``sound`` False: the line reports a violation."""

    text: str
    sound: bool = True


def liveness_checks(names: Sequence[str] | None = None) -> tuple[Liveness, ...]:
    """Return the liveness properties with these names; without names, all. Raises ValueError for a name of none."""
    known = {check.name: check for check in LIVENESS}
    if unknown := [name for name in names or () if name not in known]:
        msg = f"no liveness property is named {', '.join(unknown)}; there are: {', '.join(known)}"
        raise ValueError(msg)
    return tuple(known[name] for name in names) if names else LIVENESS


def proofs(checks: Sequence[Liveness], table: Table = THE_TABLE) -> Iterator[Line]:
    """Run the static check, the search, and spin for each liveness property. Skip the later checks after a failure."""
    findings = [
        *check_table(table.rows, table.cells, table.deadlines, table.stable_after, (table.entry, table.exit)),
        *check_meanings(),
        *check_origins(table),
    ]
    yield from _findings("static", findings)
    if findings:
        return
    pairs = sum(len(row.sources) for row in table.rows)
    yield Line(
        f"static    holds: {len(State)} states × {len(Name)} triggers; {pairs} rows, {len(table.cells)} other cells"
    )
    model = table_model(table)
    found = search(model)
    yield from _searched(model, found)
    if found.counterexample is None and checks:
        yield from _lively(model, checks)


def traces(paths: Sequence[Path]) -> Iterator[Line]:
    """Check each run in ``paths`` and yield the result: possible, or the first impossible step. Raises `UnusableFile`."""
    for path in paths:
        for trace in read_traces(path):
            broken = trace_checker().check(trace)
            text = (
                f"{path}: {trace.name}: {len(trace.steps)} transitions, all possible" if broken is None else str(broken)
            )
            yield Line(text, sound=broken is None)


def _findings(layer: str, findings: Sequence[str]) -> Iterator[Line]:
    for finding in findings:
        yield Line(f"{layer:<9} {finding}", sound=False)


def _searched(model: TableModel, found: Found) -> Iterator[Line]:
    seen = f"{found.states:,} states, {found.steps:,} steps, at most {found.depth} deep, {found.seconds:.1f} s"
    wrong = found.counterexample
    if wrong is not None:
        compiled = Compiled(model)
        yield Line(
            f"search    violated: {wrong.broken.value} ({wrong.broken.name} in {_ROOM}properties.py); {seen}",
            sound=False,
        )
        yield Line(f"  with {setting(compiled, wrong.beginning)}", sound=False)
        for text in transcript(compiled, wrong.beginning, wrong.steps):
            yield Line(text, sound=False)
        return
    dead = dead_rows(model, found)
    yield from _findings("search", dead)
    if not dead:
        yield Line(f"search    holds: {seen}")


def _lively(model: TableModel, checks: Sequence[Liveness]) -> Iterator[Line]:
    missing = missing_tools()
    if missing:
        yield Line(f"liveness  needs {' and '.join(missing)}: apt-get install spin gcc", sound=False)
        return
    with ThreadPoolExecutor(SPINS_AT_ONCE) as pool:
        for verified in pool.map(lambda check: verify(model, check), checks):
            yield from _verified(verified)


def _verified(verified: Verified) -> Iterator[Line]:
    check, run = verified.check, verified.run
    seen = f"{verified.states:,} states, {verified.memory_mib:.0f} MiB, {verified.seconds:.1f} s"
    if run is None:
        yield Line(f"liveness  holds: {check.says} ({check.name}); {seen}")
        return
    compiled = Compiled(verified.model)
    yield Line(f"liveness  violated: {check.says} ({check.name} in {_ROOM}liveness.py); {seen}", sound=False)
    yield Line(f"  with {setting(compiled, run.beginning)}", sound=False)
    turn = len(run.steps) if run.cycle is None else run.cycle
    for text in transcript(compiled, run.beginning, run.steps[:turn]):
        yield Line(text, sound=False)
    if run.cycle is None:
        return
    there = run.steps[turn - 1][1] if turn else run.beginning
    yield Line(
        "      and then, again and again:" if run.steps[turn:] else "      and then nothing more happens", sound=False
    )
    for text in transcript(compiled, there, run.steps[turn:], first=turn + 1):
        yield Line(text, sound=False)
