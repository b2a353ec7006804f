#!/usr/bin/env python3
"""Breaks the code around the machine, one small change at a time, and shows which changes no test notices.

    tools/mutate_code.py [--target NAME]… [--file PATH]… [--sample N --seed S] [--jobs J]

Each mutant is a copy of the tree with one statement deleted, one condition turned round, or one constant, comparison or boolean
operator exchanged (Cosmic Ray does that). The target's tests run on it in a fork of a process that has imported what no mutant
touches. What survives is printed as a diff, unless ``tests/mutants.toml`` explains why it changes nothing; an explanation that
fits no mutant any more is an error too. A mutant on which the tests did not end counts as noticed, and is named: on a machine
that was busy meanwhile nothing else may be wrong with it. Exit 1 for a survivor that nobody explains. Run in the project's
environment: `make mutate-code`.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import difflib
import importlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import repeat
from pathlib import Path

import parso.python.tree
import parso.tree
import pytest
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import use_mutation
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import OPERATOR_PROVIDERS, get_operator
from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).resolve().parents[1]
EXPLAINED = ROOT / "tests" / "mutants.toml"
PATIENCE = 5.0  # times as long as without a mutant may the tests take; one that hangs is noticed
SECONDS = 600.0  # without a mutant
WARM = (
    "_pytest.assertion.rewrite",
    "aiohttp",
    "hypothesis.stateful",
    "msgspec",
    "pytest_asyncio",
    "transitions",
    "xdist",
    "zmq.asyncio",
)


@dataclass(frozen=True)
class Target:
    """Files whose mutants the closest tests are to notice, the fastest first; the ``wider`` ones judge what those let live."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    wider: tuple[str, ...] = ()


TARGETS = {
    "machine": Target(("statemachine/machine.py",), ("tests/statemachine",)),
    "session-rules": Target(
        (
            *("statemachine/session.py", "statemachine/backoff.py", "statemachine/heartbeat.py"),
            *("statemachine/close_codes.py", "discorder/sessions/identify_budget.py", "discorder/sessions/ledger.py"),
        ),
        ("tests/statemachine", "tests/sessions/test_ledger.py", "tests/sessions/test_gate.py"),
    ),
    "fan-out": Target(
        (
            *(
                "publishers/delivery/position.py",
                "publishers/delivery/shard_progress.py",
                "publishers/delivery/lossless.py",
                "publishers/delivery/best_effort.py",
            ),
            *(
                "publishers/delivery/bounded_queue.py",
                "publishers/delivery/queue.py",
                "publishers/delivery/fanout.py",
                "publishers/options.py",
            ),
            "publishers/delivery/gaps.py",
        ),
        tuple(
            f"tests/publishers/test_{name}.py"
            for name in ("bounded_queue", "selection", "fanout", "lossless", "gaps", "memory", "release")
        ),
    ),
    "driver": Target(
        tuple(
            f"discorder/shard/{name}.py"
            for name in (
                *("driver", "connection", "receiver", "handshake", "liveness", "heartbeat"),
                *("identify_request", "state_work"),
            )
        ),
        tuple(
            f"tests/shard/test_{name}.py"
            for name in (
                *("receiver", "frames", "identify_request", "timers", "heartbeat", "verdicts"),
                *("driver", "ends", "telling", "tasks", "liveness", "connection", "model"),
            )
        ),
        wider=("tests/simulation", "tests/tracking", "tests/outbound", "tests/plane"),
    ),
    "store": Target(
        (
            *(
                f"discorder/sessions/{name}.py"
                for name in ("sqlite", "database", "schema", "integrity", "store", "memory")
            ),
            "discorder/sessions/opening.py",
            "discorder/plane/session_persistence.py",
        ),
        (
            *("tests/plane/test_session_persistence.py", "tests/contracts/test_session_store_contract.py"),
            *(
                f"tests/sessions/test_{name}.py"
                for name in ("store", "inspect", "database", "store_writes", "sqlite_store")
            ),
        ),
        wider=("tests/sessions/test_store_processes.py", "tests/plane", "tests/cli/test_budget.py", "tests/simulation"),
    ),
    "gate": Target(
        tuple(f"discorder/sessions/{name}.py" for name in ("gate", "wait_queue", "start_limit")),
        (
            *(f"tests/sessions/test_{name}.py" for name in ("ticket", "start_limit")),
            *(
                "tests/plane/test_session_persistence.py",
                "tests/sessions/test_gate_and_store.py",
                "tests/sessions/test_gate.py",
            ),
        ),
        wider=("tests/plane/test_start_up.py", "tests/simulation"),
    ),
}

EXCHANGES = (
    *("ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_LtE_Lt", "ReplaceComparisonOperator_Gt_GtE"),
    *("ReplaceComparisonOperator_GtE_Gt", "ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq"),
    *("ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "AddNot"),
)


# pyright: reportIncompatibleMethodOverride=false
# Cosmic Ray has no types: pyright infers that the abstract methods of `Operator` return None.


class DeleteStatement(Operator):  # type: ignore[misc]  # Cosmic Ray has no types
    """Puts ``pass`` in the place of one simple statement; docstrings, imports, asserts, log lines and error texts stay."""

    def mutation_positions(self, node: object) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        if isinstance(node, parso.python.tree.PythonNode) and node.type == "simple_stmt" and self._acts(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: parso.python.tree.PythonNode, index: int) -> object:  # noqa: ARG002  # Cosmic Ray's signature
        first: parso.tree.Leaf = node.get_first_leaf()  # type: ignore[no-untyped-call]
        return parso.python.tree.Name(f"{first.prefix}pass\n", node.start_pos)

    @classmethod
    def examples(cls) -> Sequence[object]:
        return ()

    @staticmethod
    def _acts(node: parso.python.tree.PythonNode) -> bool:
        inside_function = node.search_ancestor("funcdef") is not None
        first = node.children[0]
        text = first.get_code(include_prefix=False)
        passive = first.type in {"string", "strings", "import_name", "import_from", "assert_stmt"} or text in {
            "pass",
            "...",
        }
        bare_declaration = first.type == "expr_stmt" and ":" in text and "=" not in text
        wording = text.startswith(("msg = ", "logger."))
        return inside_function and not passive and not bare_declaration and not wording


OPERATOR_PROVIDERS["own"] = {"DeleteStatement": DeleteStatement}  # what a plug-in would register
OPERATORS = ("own/DeleteStatement", *(f"core/{name}" for name in EXCHANGES))


class Verdict(StrEnum):
    """What the tests made of a mutant."""

    SURVIVED = "survived"
    NOTICED = "noticed"
    HUNG = "noticed by tests that did not end"
    EXPLAINED = "explained"


@dataclass(frozen=True)
class Outcome:
    """What became of one mutant."""

    spec: MutationSpec
    verdict: Verdict
    was: str  # the lines that were changed, stripped
    diff: str


def mutants(module: str) -> Iterator[MutationSpec]:
    """Every mutant of one file."""
    tree = get_ast_from_path(ROOT / module)
    for name in OPERATORS:
        operator = get_operator(name)()
        positions = [(node, place) for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        for occurrence, (node, (start, end)) in enumerate(positions):
            if not _never_runs(node):
                yield MutationSpec(module, name, occurrence, start, end)


def _never_runs(node: parso.tree.NodeOrLeaf) -> bool:
    """In a decorator (frozen=True and slots=True change nothing that a run could show), or in a seam that others fulfil."""
    inside = node.search_ancestor("classdef")
    bases = None
    if isinstance(inside, parso.python.tree.Class):
        bases = inside.get_super_arglist()  # type: ignore[no-untyped-call]
    is_seam = bases is not None and bases.get_code().startswith("Protocol")
    return is_seam or node.search_ancestor("decorator") is not None


def drawn(specs: Sequence[MutationSpec], count: int, seed: int) -> list[MutationSpec]:
    """The ``count`` mutants of which the fingerprint is lowest: a change elsewhere in the code does not draw others."""
    seen: Counter[str] = Counter()
    prints: dict[str, MutationSpec] = {}
    for spec in specs:
        line = (ROOT / spec.module_path).read_text().splitlines()[spec.start_pos[0] - 1].strip()
        name = f"{seed} {spec.module_path} {spec.operator_name} {line}"
        seen[name] += 1
        prints[sha256(f"{name} {seen[name]}".encode()).hexdigest()] = spec
    return [prints[one] for one in sorted(prints)[:count]]


def copy_tree(folder: Path) -> None:
    """The files that git knows, and changes that are not committed yet."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)


OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"),
    *("-m", "not slow and not system"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of what `WARM` names
)


def enter_copy(where: str, modules: tuple[str, ...]) -> None:
    """A worker's own tree, in the folder ``where``: mutants of ``modules`` are written into it."""
    folder = Path(tempfile.mkdtemp(dir=where))
    copy_tree(folder)
    compileall.compile_dir(folder, quiet=2)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # a second mutant of a file within a second would find the code of the first
    for name in WARM:
        importlib.import_module(name)
    if not any(module.startswith("statemachine/") for module in modules):
        importlib.import_module("discorder.proofs.validation").trace_checker().learn()
    loaded = {f"discorder.{module[:-3].removeprefix('discorder/').replace('/', '.')}" for module in modules} & {
        *sys.modules
    }
    if loaded:
        msg = f"imported before it was broken, so that its mutants would not be seen: {', '.join(sorted(loaded))}"
        raise RuntimeError(msg)


def run_tests(tests: tuple[str, ...], seconds: float) -> tuple[Verdict, str]:
    """What ``tests`` say of this worker's tree within ``seconds``, and what they printed. The first failure ends them.

    In a fork: what a test or a mutant does to the process is gone with it. Hypothesis draws the same examples every time.
    """
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = 3
            with contextlib.suppress(BaseException):  # whatever happens, this process ends here
                code = int(pytest.main([*OPTIONS, *tests]))
            os._exit(code)
        process = os.pidfd_open(child)
        ended, _, _ = select.select([process], [], [], seconds)
        os.close(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # one that hangs, and what a test left running
        _, status = os.waitpid(child, 0)
        output.seek(0)
        said = output.read().decode(errors="replace")
        if not ended:
            return Verdict.HUNG, said
        return Verdict.NOTICED if os.waitstatus_to_exitcode(status) else Verdict.SURVIVED, said


def without_a_mutant(tests: tuple[str, ...]) -> float:
    """How long ``tests`` take, in seconds. Raises RuntimeError when they fail: every mutant would seem to be noticed."""
    began = time.monotonic()
    verdict, said = run_tests(tests, SECONDS)
    if verdict is not Verdict.SURVIVED:
        msg = f"{said}\nthese tests fail without a mutant: {' '.join(tests)}"
        raise RuntimeError(msg)
    return time.monotonic() - began


def judge(spec: MutationSpec, tests: tuple[str, ...], seconds: float) -> Outcome:
    """Run ``tests`` on one mutant, for so long."""
    with use_mutation(spec.module_path, get_operator(spec.operator_name)(), spec.occurrence) as (before, after):
        verdict, _ = run_tests(tests, seconds)
    lines = difflib.unified_diff((before or "").splitlines(), (after or "").splitlines(), n=0, lineterm="")
    changed = [line for line in lines if not line.startswith(("+++", "---", "@@"))]
    was = " ".join(line[1:].strip() for line in changed if line.startswith("-"))
    return Outcome(spec, verdict, was, "\n".join(changed))


def judged(pool: Executor, specs: Sequence[MutationSpec], target: Target) -> Iterator[Outcome]:
    """What became of each mutant: the wider tests run only where the closest let one live."""
    stages = [tests for tests in (target.tests, target.wider) if tests]
    for tests in stages:
        if not specs:
            return
        seconds = PATIENCE * pool.submit(without_a_mutant, tests).result()
        outcomes = pool.map(judge, specs, repeat(tests), repeat(seconds))
        specs = []
        for outcome in outcomes:
            if outcome.verdict is Verdict.SURVIVED and tests is not stages[-1]:
                specs.append(outcome.spec)
            else:
                yield outcome


def explained() -> dict[tuple[str, str, str], str]:
    """(file, operator, the line as it was) to the reason why nothing can notice it."""
    entries = tomllib.loads(EXPLAINED.read_text()).get("mutant", [])
    return {(entry["file"], entry["operator"], entry["was"]): entry["why"] for entry in entries}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given again")
    parser.add_argument("--file", action="append", help="only mutants of this one; may be given again")
    parser.add_argument("--sample", type=int, help="so many mutants of each target, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    known = {module for name in options.target or TARGETS for module in TARGETS[name].files}
    if unknown := {*(options.file or ())} - known:
        parser.error(f"no mutants are made of {', '.join(sorted(unknown))}")
    reasons = explained()
    unexplained = 0
    used: set[tuple[str, str, str]] = set()
    with tempfile.TemporaryDirectory(prefix="mutants-") as where:
        for name in options.target or TARGETS:
            target = TARGETS[name]
            specs = [
                spec for module in target.files if module in (options.file or target.files) for spec in mutants(module)
            ]
            if options.sample is not None:
                specs = drawn(specs, options.sample, options.seed)
            counts: Counter[str] = Counter()
            with ProcessPoolExecutor(options.jobs, initializer=enter_copy, initargs=(where, target.files)) as pool:
                for outcome in judged(pool, specs, target):
                    key = (str(outcome.spec.module_path), outcome.spec.operator_name.partition("/")[2], outcome.was)
                    verdict = outcome.verdict
                    if verdict is Verdict.SURVIVED and key in reasons:
                        used.add(key)
                        verdict = Verdict.EXPLAINED
                    counts[verdict] += 1
                    unexplained += verdict is Verdict.SURVIVED
                    if verdict in {Verdict.SURVIVED, Verdict.HUNG}:
                        place = f"{key[0]}:{outcome.spec.start_pos[0]} {key[1]}"
                        print(f"\n{place} {verdict}\n{outcome.diff}", flush=True)
            verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
            print(f"{name}: {len(specs)} mutants, {verdicts}", flush=True)
    if options.sample is options.target is options.file is None and (stale := reasons.keys() - used):
        print("\nexplanations in tests/mutants.toml that fit no survivor; take them out:")
        print("\n".join(f"{file} {operator}: {was}" for file, operator, was in sorted(stale)))
        unexplained += len(stale)
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
