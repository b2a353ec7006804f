"""Check the transitions of every control plane of every test against the table; in the suites against the model, too.

The model knows what can happen in which order, and takes minutes for the transitions of all tests: `make suites` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from discorder.proofs.traces import Trace, TraceStep
from discorder.proofs.validation import trace_checker
from discorder.statemachine.table import INITIAL, rows_for
from discorder.statemachine.terms import Action
from discorder.tracking.shard_tracker import ShardTracker

OPTION = "--check-model"
MANY = 32  # shards that are checked per test; of a test with hundreds of runs, some from the whole test


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(OPTION, action="store_true", help="check the transitions of each test against the model, too")


def _trace(shard: ShardTracker) -> Trace:
    steps = (
        TraceStep(one.source, one.trigger, one.target, one.generation, f"transition {count}")
        for count, one in enumerate(shard.transitions, 1)
    )
    return Trace(f"shard {shard.shard_id}", tuple(steps))


def _breach_of_table(trace: Trace) -> str | None:
    """Return the first step that no row allows, or that does not follow from the one before; None if there is none."""
    first = trace.steps[0]
    before = TraceStep(first.source, first.trigger, first.source, first.generation - _opens(first), "the beginning")
    if first.source is INITIAL and before.generation:
        return f"{trace.name}: {first} does not begin with generation 0"
    for previous, step in pairwise((before, *trace.steps)):
        if not any((row.target or step.source) is step.target for row in rows_for(step.source, step.trigger)):
            return f"{trace.name}: the table has no row for {step} ({step.where})"
        if step.source is not previous.target or step.generation != previous.generation + _opens(step):
            return f"{trace.name}: {step} does not follow {previous} ({step.where})"
    return None


def _opens(step: TraceStep) -> bool:
    """Return whether the step dials, which begins a generation."""
    return any(
        Action.OPEN_SOCKET in row.actions
        for row in rows_for(step.source, step.trigger)
        if (row.target or step.source) is step.target
    )


@pytest.fixture(autouse=True)
def possible_transitions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check at the end of a test that each shard of this process made only possible transitions."""
    born: list[ShardTracker] = []
    original = ShardTracker.__init__

    def noted(self: ShardTracker, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        born.append(self)

    monkeypatch.setattr(ShardTracker, "__init__", noted)
    yield
    in_model = request.config.getoption(OPTION)
    for shard in born[:: len(born) // MANY + 1]:
        if shard.transitions:
            trace = _trace(shard)
            assert _breach_of_table(trace) is None
            if in_model:
                broken = trace_checker().check(trace)
                assert broken is None, str(broken)
