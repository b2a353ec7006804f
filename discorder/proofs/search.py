"""Breadth-first search: every state that the small world can come into, and the shortest way to one that must not be.

One search for each configuration of the shard (`fail_on_error`, `max_attempts`), since it never changes.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from discorder.proofs.compiled import Compiled
from discorder.proofs.facts import FAIL_ON_ERROR, MAX_ATTEMPTS, in_state
from discorder.proofs.language import Duty
from discorder.proofs.properties import WRONG, Property
from discorder.proofs.small_world import SmallWorld
from discorder.statemachine.table import State

_NOTHING = 2**32 - 1  # in place of the number of the state before


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A shortest run that ends in a violation of ``broken``: the state it begins in, then (number of the step, state after)."""

    broken: Property
    beginning: bytes
    steps: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search saw; ``depth`` is the length of the longest shortest way, ``taken`` the numbers of the steps that were ever
    possible. ``counterexample`` None: every property holds in every state."""

    states: int
    steps: int
    depth: int
    seconds: float
    taken: frozenset[int] = frozenset()
    counterexample: Counterexample | None = None


def search(world: SmallWorld) -> Found:
    """Search the whole world, or until the first violation."""
    began = time.perf_counter()
    compiled = Compiled(world)
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
    """States are numbered in the order in which they are found; ``before`` and ``by`` are the tree of shortest ways."""

    def __init__(self, compiled: Compiled, beginnings: list[bytes]) -> None:
        self.order = list(beginnings)
        self.steps = 0
        self.taken: set[int] = set()
        self._world, self._look = compiled.world, compiled.look
        self._number = {state: n for n, state in enumerate(beginnings)}
        self._before = array("L", [_NOTHING] * len(beginnings))
        self._by = array("H", [0] * len(beginnings))
        self._targets = array(
            "L"
        )  # the states that follow on each state, one after the other, without the desperate ones
        self._ends = array("L")  # where those of each state end
        self._desperate = {n for n, step in enumerate(compiled.world.steps) if step.duty is Duty.MAY_END}
        self._wrong = compiled.world.variables.index(WRONG)
        self._is_good = compiled.test(in_state(State.READY, State.EXITED))

    def run(self) -> tuple[Property, int] | None:
        """The first violation and the number of the state; None once everything has been seen and nothing is wrong."""
        wrong = self._wrong
        while (n := len(self._ends)) < len(self.order):
            state = self.order[n]
            if state[wrong]:
                return Property[WRONG.values[state[wrong]]], n
            broken = self.grow()
            if broken >= 0:
                return self._world.invariants[broken][0], n
        dead_end = self._dead_end()
        return None if dead_end is None else (Property.NO_DEAD_END, dead_end)

    def grow(self) -> int:
        """Look at the next state: the number of an invariant that it breaks, or -1."""
        n = len(self._ends)
        followers, broken = self._look(self.order[n])
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
        """The shortest way to state ``n``: where it begins, then each step and the state after it."""
        steps = []
        while self._before[n] != _NOTHING:
            steps.append((self._by[n], self.order[n]))
            n = self._before[n]
        return self.order[n], tuple(reversed(steps))

    def _dead_end(self) -> int | None:
        """The first state from which neither Ready nor Exited can be reached by anything but a step that ends the shard.

        What can reach them is marked backwards: states follow mostly on earlier ones, so that a few sweeps are enough.
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
