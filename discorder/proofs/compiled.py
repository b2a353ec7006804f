"""The small world as Python: one function that gives the successors of a state. Made by writing its source, for speed.

A state is ``bytes``, one for each variable in the order of the world. The search and the check of traces live on this; the
other reader of the same data is `promela.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import cast

from discorder.proofs.facts import PLACES, STATE
from discorder.proofs.language import (
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
from discorder.proofs.small_world import SmallWorld

_KEYS = (STATE, PLACES[0])


class Compiled:
    """A world that can be walked.

    What is possible depends on little most of the time: for each value of `_KEYS` the conditions are simplified once, and
    the function for them is kept.
    """

    def __init__(self, world: SmallWorld) -> None:
        self.world = world
        self._place = {variable: place for place, variable in enumerate(world.variables)}
        self._first, self._second = (self._place[variable] for variable in _KEYS)
        self._effects = _execute(_all_effects(world))
        self._looks: dict[tuple[int, int], Callable[[bytes], tuple[list[tuple[int, bytes]], int]]] = {}

    def look(self, state: bytes) -> tuple[list[tuple[int, bytes]], int]:
        """The number of each step that is possible and where it leads; the number of an invariant that is broken, or -1."""
        key = (state[self._first], state[self._second])
        look = self._looks.get(key)
        if look is None:
            known = dict(zip(_KEYS, key, strict=True))
            scope = _execute(_look(self.world, known), self._effects)
            look = self._looks[key] = cast("Callable[[bytes], tuple[list[tuple[int, bytes]], int]]", scope["look"])
        return look(state)

    def beginnings(self) -> Iterator[bytes]:
        """The states in which the world can begin."""
        for values in product(*(variable.beginnings for variable in self.world.variables)):
            yield bytes(v.index(value) for v, value in zip(self.world.variables, values, strict=True))

    def reachable(self) -> list[bytes]:
        """Every state that the world can come into."""
        found = list(self.beginnings())
        seen = set(found)
        for state in found:  # grows meanwhile
            for _, after in self.look(state)[0]:
                if after not in seen:
                    seen.add(after)
                    found.append(after)
        return found

    def value(self, state: bytes, variable: Variable) -> str:
        """The value of ``variable`` in ``state``."""
        return variable.values[state[self._place[variable]]]

    def test(self, condition: Condition) -> Callable[[bytes], bool]:
        """``condition`` as a test of states."""
        source = ["def holds(state):", f" ({_names(self.world)}) = state", f" return {python(condition)}"]
        return cast("Callable[[bytes], bool]", _execute(source)["holds"])


def _execute(source: Iterable[str], scope: Mapping[str, object] | None = None) -> dict[str, object]:
    result = dict(scope or {})
    exec(compile("\n".join(source), "<the small world>", "exec"), result)  # noqa: S102  # the text is written here
    return result


def python(condition: Condition) -> str:
    """``condition`` as an expression."""
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


def _names(world: SmallWorld) -> str:
    return ", ".join(variable.name for variable in world.variables)


def _all_effects(world: SmallWorld) -> Iterator[str]:
    names = _names(world)
    for number, step in enumerate(world.steps):
        yield f"def step{number}({names}):"
        yield from _statements(step.effects, 1)
        yield f" return bytes(({names}))"


def _look(world: SmallWorld, known: Mapping[Variable, int]) -> Iterator[str]:
    names = _names(world)
    yield "def look(state):"
    yield f" ({names}) = state"
    yield " found = []"
    for number, step in enumerate(world.steps):
        if (when := given(step.when, known)) != FALSE:
            yield f" if {python(when)}: found.append(({number}, step{number}({names})))"
    for number, (_, condition) in enumerate(world.invariants):
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
