"""Format a run of the model as text: which actor took which step, and what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from discorder.proofs.compiled import Compiled
from discorder.proofs.model_dsl import Variable
from discorder.proofs.variables import EMPTY, FAIL_ON_ERROR, MAX_ATTEMPTS, PLACES, SESSION, STATE

_TOLD_APART = {STATE, *PLACES}  # printed in a format of their own
_AT_THE_BEGINNING = (FAIL_ON_ERROR, MAX_ATTEMPTS, SESSION)


def transcript(
    compiled: Compiled, beginning: bytes, steps: Iterable[tuple[int, bytes]], *, first: int = 1
) -> Iterator[str]:
    """Yield one line for each of ``steps`` (number of the step, state after it), with its changes."""
    before = beginning
    for count, (number, after) in enumerate(steps, first):
        step = compiled.model.steps[number]
        changes = "; ".join(_changes(compiled, before, after))
        yield f"{count:4}  {step.actor:<10}  {step.says}" + (f"\n{'':18}{changes}" if changes else "")
        before = after


def setting(compiled: Compiled, beginning: bytes) -> str:
    """Return the configuration and the session in the initial state."""
    return ", ".join(f"{v.name} = {compiled.value(beginning, v)}" for v in _AT_THE_BEGINNING)


def described(compiled: Compiled, state: bytes) -> str:
    """Return the variables that differ from their first value, with the state and the inbox."""
    facts = (
        f"{v.name} = {compiled.value(state, v)}" for v in compiled.model.variables if _is_shown(compiled, state, v)
    )
    return ", ".join((compiled.value(state, STATE), *facts, f"inbox = [{', '.join(_inbox(compiled, state))}]"))


def _is_shown(compiled: Compiled, state: bytes, variable: Variable) -> bool:
    return variable.shown and variable not in _TOLD_APART and compiled.value(state, variable) != variable.values[0]


def _changes(compiled: Compiled, before: bytes, after: bytes) -> Iterator[str]:
    was, is_ = compiled.value(before, STATE), compiled.value(after, STATE)
    if was != is_:
        yield f"{was} → {is_}"
    for variable in compiled.model.variables:
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
