"""Search every reachable state of the model breadth-first, and return the shortest run to a violation.

Each configuration of the shard (`fail_on_error`, `max_attempts`) is searched separately, since it never changes in a run.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from discorder.proofs.compiled import Compiled
from discorder.proofs.model import TableModel
from discorder.proofs.model_dsl import Duty
from discorder.proofs.properties import WRONG, Property
from discorder.proofs.variables import FAIL_ON_ERROR, MAX_ATTEMPTS, in_state
from discorder.statemachine.table import State

_NOTHING = 2**32 - 1  # marks a state without a predecessor


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Hold a shortest run to a violation of ``broken``: the initial state, then (number of the step, next state) per step."""

    broken: Property
    beginning: bytes
    steps: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Hold the result of a search. ``depth``: the length of the longest of the shortest paths. ``taken``: the numbers of the
    steps that were ever possible. ``counterexample`` None: every property holds in every state."""

    states: int
    steps: int
    depth: int
    seconds: float
    taken: frozenset[int] = frozenset()
    counterexample: Counterexample | None = None


def search(model: TableModel) -> Found:
    """Search the whole model, or stop at the first violation."""
    began = time.perf_counter()
    compiled = Compiled(model)
    states = steps = depth = 0
    taken: set[int] = set()
    for beginnings in _configurations(compiled):
        one = _Search(compiled, beginnings)
        violation = one.run()
        states, steps = states + len(one.order), steps + one.steps
        taken |= one.taken
        depth = max(depth, len(one.way_to(len(one.order) - 1)[1]))
        if violation is not None:
            counterexample = Counterexample(violation[0], *one.way_to(violation[1]))
            return Found(states, steps, depth, time.perf_counter() - began, frozenset(taken), counterexample)
    return Found(states, steps, depth, time.perf_counter() - began, frozenset(taken))


def _configurations(compiled: Compiled) -> Iterator[list[bytes]]:
    def configuration(state: bytes) -> tuple[str, str]:
        return compiled.value(state, FAIL_ON_ERROR), compiled.value(state, MAX_ATTEMPTS)

    for _, states in groupby(sorted(compiled.beginnings(), key=configuration), configuration):
        yield list(states)


class _Search:
    """Search one configuration. States are numbered as they are found; ``_before`` and ``_by`` hold the shortest paths."""

    def __init__(self, compiled: Compiled, beginnings: list[bytes]) -> None:
        self.order = list(beginnings)
        self.steps = 0
        self.taken: set[int] = set()
        self._model, self._expand = compiled.model, compiled.expand
        self._number = {state: n for n, state in enumerate(beginnings)}
        self._before = array("L", [_NOTHING] * len(beginnings))
        self._by = array("H", [0] * len(beginnings))
        self._targets = array("L")  # the successors of each state in turn, without steps that end the shard
        self._ends = array("L")  # for each state, the end of its successors in _targets
        self._desperate = {n for n, step in enumerate(compiled.model.steps) if step.duty is Duty.MAY_END}
        self._wrong = compiled.model.variables.index(WRONG)
        self._is_good = compiled.test(in_state(State.READY, State.EXITED))

    def run(self) -> tuple[Property, int] | None:
        """Return the first violation and the number of its state, or None if all states satisfy all properties."""
        wrong = self._wrong
        while (n := len(self._ends)) < len(self.order):
            state = self.order[n]
            if state[wrong]:
                return Property[WRONG.values[state[wrong]]], n
            broken = self.grow()
            if broken >= 0:
                return self._model.invariants[broken][0], n
        dead_end = self._dead_end()
        return None if dead_end is None else (Property.NO_DEAD_END, dead_end)

    def grow(self) -> int:
        """Expand the next state. Return the number of an invariant that it violates, or -1."""
        n = len(self._ends)
        followers, broken = self._expand(self.order[n])
        order, number, targets, taken = self.order, self._number, self._targets, self.taken
        for by, state in followers:
            known = number.get(state)
            if known is None:
                known = number[state] = len(order)
                order.append(state)
                self._before.append(n)
                self._by.append(by)
            taken.add(by)
            if by not in self._desperate:
                targets.append(known)
        self.steps += len(followers)
        self._ends.append(len(targets))
        return broken

    def way_to(self, n: int) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
        """Return the shortest path to state ``n``: the initial state, then each step and the state after it."""
        steps = []
        while self._before[n] != _NOTHING:
            steps.append((self._by[n], self.order[n]))
            n = self._before[n]
        return self.order[n], tuple(reversed(steps))

    def _dead_end(self) -> int | None:
        """Return the first state that cannot reach Ready or Exited without a step that ends the shard, or None.

        The states that can reach them are marked in sweeps from the last state to the first. Most successors have higher
        numbers, so a few sweeps are enough.
        """
        good = bytearray(map(self._is_good, self.order))
        open_ = [n for n in range(len(self.order)) if not good[n]]
        while open_:
            left = []
            for n in reversed(open_):
                begin = self._ends[n - 1] if n else 0
                if any(good[target] for target in self._targets[begin : self._ends[n]]):
                    good[n] = 1
                else:
                    left.append(n)
            if len(left) == len(open_):
                return min(left)
            open_ = left[::-1]
        return None
