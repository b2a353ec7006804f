"""A run of the small world in the project's own words: who did what, and what was different afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from discorder.proofs.compiled import Compiled
from discorder.proofs.facts import EMPTY, FAIL_ON_ERROR, MAX_ATTEMPTS, PLACES, SESSION, STATE
from discorder.proofs.language import Variable

_TOLD_APART = {STATE, *PLACES}  # told in words of their own
_AT_THE_BEGINNING = (FAIL_ON_ERROR, MAX_ATTEMPTS, SESSION)


def transcript(
    compiled: Compiled, beginning: bytes, steps: Iterable[tuple[int, bytes]], *, first: int = 1
) -> Iterator[str]:
    """One line for each of ``steps`` (number of the step, state after it), with what it changed."""
    before = beginning
    for count, (number, after) in enumerate(steps, first):
        step = compiled.world.steps[number]
        changes = "; ".join(_changes(compiled, before, after))
        yield f"{count:4}  {step.actor:<10}  {step.says}" + (f"\n{'':18}{changes}" if changes else "")
        before = after


def setting(compiled: Compiled, beginning: bytes) -> str:
    """What is given at the beginning."""
    return ", ".join(f"{v.name} = {compiled.value(beginning, v)}" for v in _AT_THE_BEGINNING)


def described(compiled: Compiled, state: bytes) -> str:
    """The facts of a state that are not as they are at rest."""
    facts = (f"{v.name} = {compiled.value(state, v)}" for v in compiled.world.variables if _is_told(compiled, state, v))
    return ", ".join((compiled.value(state, STATE), *facts, f"inbox = [{', '.join(_inbox(compiled, state))}]"))


def _is_told(compiled: Compiled, state: bytes, variable: Variable) -> bool:
    return variable.shown and variable not in _TOLD_APART and compiled.value(state, variable) != variable.values[0]


def _changes(compiled: Compiled, before: bytes, after: bytes) -> Iterator[str]:
    was, is_ = compiled.value(before, STATE), compiled.value(after, STATE)
    if was != is_:
        yield f"{was} → {is_}"
    for variable in compiled.world.variables:
        if (
            variable.shown
            and variable not in _TOLD_APART
            and compiled.value(before, variable) != compiled.value(after, variable)
        ):
            yield f"{variable.name.replace('_', ' ')}: {compiled.value(after, variable)}"
    if (waiting := _inbox(compiled, after)) != _inbox(compiled, before):
        yield f"inbox: {', '.join(waiting) or 'empty'}"


def _inbox(compiled: Compiled, state: bytes) -> list[str]:
    return [value for value in (compiled.value(state, place) for place in PLACES) if value != EMPTY]
