"""Translate the model to Promela for spin. `compiled.py` translates the same data to Python.

Each actor with fair steps is a process, so that weak fairness applies to each. One more process takes the optional steps and
may also do nothing. Every step prints its number, so that `spin.py` can translate a trail back into steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from discorder.proofs.liveness import Liveness
from discorder.proofs.model import TableModel
from discorder.proofs.model_dsl import (
    All,
    Assign,
    Condition,
    Copy,
    Duty,
    Effects,
    Either,
    Is,
    Not,
    Step,
    Translate,
    Variable,
    When,
)

STEP_MARK = "@"


def promela(model: TableModel, check: Liveness) -> str:
    """Return the Promela source of ``model`` with the LTL formula of ``check``."""
    return "\n".join([*_declarations(model), *_processes(model), *_formula(check)]) + "\n"


def _declarations(model: TableModel) -> Iterator[str]:
    yield "/* generated from the table and the model; do not edit */"
    for variable in model.variables:
        for number in range(len(variable.values)):
            yield f"#define {_value(variable, number)} {number}"
    for variable in model.variables:
        size = "bit" if len(variable.values) <= 2 else "byte"
        yield f"{size} {variable.name};"


def _processes(model: TableModel) -> Iterator[str]:
    """Yield the processes. `init` chooses the initial state and starts the others in one atomic step."""
    numbered = list(enumerate(model.steps))
    owed = [(number, step) for number, step in numbered if step.duty is Duty.MUST]
    actors = sorted({step.actor for _, step in owed})
    for actor in actors:
        yield from _process(actor, [(n, step) for n, step in owed if step.actor == actor], idle=False)
    yield from _process("chance", [(n, step) for n, step in numbered if step.duty is not Duty.MUST], idle=True)
    yield "init { atomic {"
    for variable in model.variables:
        options = " ".join(f":: {variable.name} = {_value(variable, variable.index(v))}" for v in variable.beginnings)
        yield f"  if {options} fi;"
    yield f'  printf("{STEP_MARK}begin{" %d" * len(model.variables)}\\n", {", ".join(v.name for v in model.variables)});'
    yield "  " + " ".join(f"run the_{name}();" for name in (*actors, "chance")) + " } }"


def _process(name: str, steps: list[tuple[int, Step]], *, idle: bool) -> Iterator[str]:
    yield f"proctype the_{name}() {{"
    yield "end: do"
    for number, step in steps:
        yield f"  :: atomic {{ {_condition(step.when)} -> /* {_comment(step.says)} */"
        yield f'     printf("{STEP_MARK}{number}\\n");'
        yield from _statements(step.effects, 5)
        yield "     }"
    if idle:
        yield '  :: printf("idle\\n")'
    yield "od }"


def _formula(check: Liveness) -> Iterator[str]:
    for name, condition in check.atoms:
        yield f"#define {name} ({_condition(condition)})"
    yield f"ltl {check.name} {{ {check.formula} }}"


def _value(variable: Variable, number: int) -> str:
    return f"{variable.name}_{re.sub(r'[^A-Za-z0-9]', '_', variable.values[number])}"


def _comment(text: str) -> str:
    return text.replace("*/", "* /")


def _condition(condition: Condition) -> str:
    match condition:
        case Is(variable, values):
            rest = frozenset(range(len(variable.values))) - values
            if len(rest) < len(values):
                return (
                    "("
                    + (" && ".join(f"{variable.name} != {_value(variable, n)}" for n in sorted(rest)) or "true")
                    + ")"
                )
            return (
                "("
                + (" || ".join(f"{variable.name} == {_value(variable, n)}" for n in sorted(values)) or "false")
                + ")"
            )
        case Not(part):
            return f"!({_condition(part)})"
        case All(parts):
            return "(" + (" && ".join(_condition(part) for part in parts) or "true") + ")"
        case Either(parts):
            return "(" + (" || ".join(_condition(part) for part in parts) or "false") + ")"


def _by_new_value(pairs: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, frozenset[int]]]:
    for new in sorted({new for _, new in pairs}):
        yield new, frozenset(old for old, to in pairs if to == new)


def _statements(effects: Effects, depth: int) -> Iterator[str]:
    indent = " " * depth
    for effect in effects:
        match effect:
            case Assign(variable, value):
                yield f"{indent}{variable.name} = {_value(variable, value)};"
            case Copy(variable, source):
                yield f"{indent}{variable.name} = {source.name};"
            case Translate(variable, pairs):
                options = " ".join(
                    f":: {_condition(Is(variable, old))} -> {variable.name} = {_value(variable, new)}"
                    for new, old in _by_new_value(pairs)
                )
                yield f"{indent}if {options} :: else fi;"
            case When(condition, then, otherwise):
                yield f"{indent}if :: {_condition(condition)} ->"
                yield from _statements(then, depth + 2)
                yield f"{indent}:: else"
                if otherwise:
                    yield f"{indent}->"
                    yield from _statements(otherwise, depth + 2)
                yield f"{indent}fi;"
