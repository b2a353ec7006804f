"""Compile the model to Python: generate the source of a function that returns the successors of a state.

A state is ``bytes`` with one byte per variable, in the order of the model. The search and the trace check use this module;
`promela.py` translates the same data for spin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import cast

from discorder.proofs.model import TableModel
from discorder.proofs.model_dsl import (
    FALSE,
    TRUE,
    All,
    Assign,
    Condition,
    Copy,
    Effects,
    Either,
    Is,
    Not,
    Translate,
    Variable,
    When,
    given,
)
from discorder.proofs.variables import PLACES, STATE

_KEYS = (STATE, PLACES[0])


class Compiled:
    """Compute the successors of the states of a model.

    For each combination of values of `_KEYS`, simplify the conditions once and cache the generated function.
    """

    def __init__(self, model: TableModel) -> None:
        self.model = model
        self._place = {variable: place for place, variable in enumerate(model.variables)}
        self._first, self._second = (self._place[variable] for variable in _KEYS)
        self._effects = _execute(_all_effects(model))
        self._expanders: dict[tuple[int, int], Callable[[bytes], tuple[list[tuple[int, bytes]], int]]] = {}

    def expand(self, state: bytes) -> tuple[list[tuple[int, bytes]], int]:
        """Return (number of the step, next state) for each possible step, and the number of a violated invariant or -1."""
        key = (state[self._first], state[self._second])
        expand = self._expanders.get(key)
        if expand is None:
            known = dict(zip(_KEYS, key, strict=True))
            scope = _execute(_expand(self.model, known), self._effects)
            expand = self._expanders[key] = cast(
                "Callable[[bytes], tuple[list[tuple[int, bytes]], int]]", scope["expand"]
            )
        return expand(state)

    def beginnings(self) -> Iterator[bytes]:
        """Yield the initial states."""
        for values in product(*(variable.beginnings for variable in self.model.variables)):
            yield bytes(v.index(value) for v, value in zip(self.model.variables, values, strict=True))

    def reachable(self) -> list[bytes]:
        """Return every reachable state."""
        found = list(self.beginnings())
        seen = set(found)
        for state in found:  # the loop appends to the list
            for _, after in self.expand(state)[0]:
                if after not in seen:
                    seen.add(after)
                    found.append(after)
        return found

    def value(self, state: bytes, variable: Variable) -> str:
        """Return the value of ``variable`` in ``state``."""
        return variable.values[state[self._place[variable]]]

    def test(self, condition: Condition) -> Callable[[bytes], bool]:
        """Compile ``condition`` to a test of states."""
        source = ["def holds(state):", f" ({_names(self.model)}) = state", f" return {python(condition)}"]
        return cast("Callable[[bytes], bool]", _execute(source)["holds"])


def _execute(source: Iterable[str], scope: Mapping[str, object] | None = None) -> dict[str, object]:
    result = dict(scope or {})
    exec(compile("\n".join(source), "<the model>", "exec"), result)  # noqa: S102  # the source is generated here
    return result


def python(condition: Condition) -> str:
    """Return ``condition`` as a Python expression."""
    match condition:
        case Is(variable, values):
            if len(values) == 1:
                return f"{variable.name} == {min(values)}"
            return f"{variable.name} in {tuple(sorted(values))}"
        case Not(part):
            return f"not ({python(part)})"
        case All(parts):
            return " and ".join(f"({python(part)})" for part in parts) or "True"
        case Either(parts):
            return " or ".join(f"({python(part)})" for part in parts) or "False"


def _names(model: TableModel) -> str:
    return ", ".join(variable.name for variable in model.variables)


def _all_effects(model: TableModel) -> Iterator[str]:
    names = _names(model)
    for number, step in enumerate(model.steps):
        yield f"def step{number}({names}):"
        yield from _statements(step.effects, 1)
        yield f" return bytes(({names}))"


def _expand(model: TableModel, known: Mapping[Variable, int]) -> Iterator[str]:
    names = _names(model)
    yield "def expand(state):"
    yield f" ({names}) = state"
    yield " found = []"
    for number, step in enumerate(model.steps):
        if (when := given(step.when, known)) != FALSE:
            yield f" if {python(when)}: found.append(({number}, step{number}({names})))"
    for number, (_, condition) in enumerate(model.invariants):
        if (holds := given(condition, known)) != TRUE:
            yield f" if not ({python(holds)}): return found, {number}"
    yield " return found, -1"


def _statements(effects: Effects, depth: int) -> Iterator[str]:
    indent = " " * depth
    for effect in effects:
        match effect:
            case Assign(variable, value):
                yield f"{indent}{variable.name} = {value}"
            case Copy(variable, source):
                yield f"{indent}{variable.name} = {source.name}"
            case Translate(variable, pairs):
                yield f"{indent}{variable.name} = {dict(pairs)}.get({variable.name}, {variable.name})"
            case When(condition, then, otherwise):
                yield f"{indent}if {python(condition)}:"
                yield from _statements(then, depth + 1) if then else (f"{indent} pass",)
                if otherwise:
                    yield f"{indent}else:"
                    yield from _statements(otherwise, depth + 1)
