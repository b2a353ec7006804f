"""Whatever the table has and the environment lacks is named, with the file in which to add it."""

from __future__ import annotations

from typing import Any

import pytest

from discorder.proofs import actions, completeness
from discorder.proofs.completeness import check_meanings, check_origins, dead_rows
from discorder.proofs.environment import environment_steps
from discorder.proofs.model import TableModel
from discorder.proofs.search import Found
from discorder.statemachine import State
from discorder.statemachine.table import Name
from discorder.statemachine.terms import Action, Guard


def test_the_world_knows_all_of_the_table() -> None:
    """The environment covers every action, guard and trigger."""
    assert check_meanings() == []
    assert check_origins() == []


def test_an_action_and_a_guard_without_a_meaning_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the file for new ones."""
    acts = {action: effects for action, effects in actions.ACTIONS.items() if action is not Action.CLIMB}
    guards = {guard: condition for guard, condition in actions.GUARDS.items() if guard is not Guard.PARKED}
    monkeypatch.setattr(completeness, "ACTIONS", acts)
    monkeypatch.setattr(completeness, "GUARDS", guards)
    assert check_meanings() == [
        "action climb means nothing in the model; say what it does in discorder/proofs/actions.py",
        "guard parked means nothing in the model; say when it holds in discorder/proofs/actions.py",
    ]


def test_a_trigger_that_nobody_posts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a step that posts it, no row of it would ever be taken, and every property would hold."""

    def deaf(*arguments: Any) -> Any:
        return (step for step in original(*arguments) if "is congested" not in step.says)

    original = environment_steps
    monkeypatch.setattr(completeness, "environment_steps", deaf)
    assert check_origins() == [
        "trigger congested is posted by nobody in the model; "
        "add the step that does it to discorder/proofs/environment.py "
        "(and the trigger to WITHOUT_A_GENERATION in discorder/proofs/variables.py, if it is no report of a connection)"
    ]


def test_a_row_that_is_never_enabled_is_named(model: TableModel) -> None:
    """The static check may pass, although no shard ever takes the row."""
    congested = {n for n, move in enumerate(model.moves) if move is not None and move.trigger is Name.CONGESTED}
    found = Found(1, 1, 1, 0.0, taken=frozenset(range(len(model.steps))) - congested)
    assert dead_rows(model, found) == [
        f"{state} x congested: a dead row, it is never enabled in the model "
        "(a publisher that must not lose is full: Discord's replay buffer is the spool)"
        for state in (State.RESUMING, State.READY)
    ]
