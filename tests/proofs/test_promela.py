"""The model for spin has every step of the environment, by its number, and every property. (`make proofs` runs it.)"""

from __future__ import annotations

import re

import pytest

from discorder.proofs.liveness import LIVENESS, Liveness
from discorder.proofs.model import TableModel, without_properties
from discorder.proofs.model_dsl import Actor, Duty
from discorder.proofs.promela import promela
from discorder.proofs.properties import STOPPED, WRONG


@pytest.mark.parametrize("check", LIVENESS, ids=lambda check: check.name)
def test_each_step_is_an_option_and_each_property_a_formula(model: TableModel, check: Liveness) -> None:
    """Each step and each property appears in it exactly once."""
    text = promela(model, check)
    marks = [int(number) for number in re.findall(r'printf\("@(\d+)\\n"\)', text)]
    assert sorted(marks) == list(range(len(model.steps)))
    assert f"ltl {check.name} {{ {check.formula} }}" in text
    assert all(f"#define {name} (" in text for name, _ in check.atoms)


def test_what_is_owed_and_what_may_happen_are_different_processes(model: TableModel) -> None:
    """Weak fairness applies per process; optional steps may never be taken."""
    processes = dict(re.findall(r"proctype the_(\w+)\(\) \{\n(.*?)\nod \}", promela(model, LIVENESS[0]), re.DOTALL))
    owing = {step.actor for step in model.steps if step.duty is Duty.MUST}
    assert processes.keys() == {*owing, "chance"}
    assert Actor.FAULTS not in owing
    assert "idle" in processes.pop("chance")
    assert not any("idle" in body for body in processes.values())


def test_facts_for_other_properties_are_left_out(model: TableModel) -> None:
    """They affect no step, and would make the model larger."""
    smaller = without_properties(model, frozenset({STOPPED}))
    assert STOPPED in smaller.variables
    assert WRONG not in smaller.variables
    assert len(smaller.steps) == len(model.steps)
    assert "refusals" not in promela(smaller, LIVENESS[-1])
