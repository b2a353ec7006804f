"""Is there a run of the small world whose visible steps are this trace? (The method of CCF's "smart casual verification".)

After each step of the trace we keep every state in which the world can be; the next step must be possible in at least one of
them, with anything that leaves no trace in between. What was found once is kept: many traces begin alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from discorder.proofs.compiled import Compiled
from discorder.proofs.facts import STATE
from discorder.proofs.small_world import THE_TABLE, Move, Table, small_world, with_steps, without_properties
from discorder.proofs.surroundings import ONLY_IN_TRACES
from discorder.proofs.traces import Trace, TraceStep
from discorder.proofs.transcript import described
from discorder.statemachine.table import INITIAL, Row

_SHOWN_BEFORE = 5  # steps of the trace before the broken one

Belief = frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Broken:
    """The first step of a trace that cannot have happened. ``possible``: what could have, instead; ``why`` in a sentence."""

    trace: Trace
    number: int
    why: str
    possible: tuple[Move, ...]
    example: str

    def __str__(self) -> str:
        steps = self.trace.steps
        before = [f"    {step}" for step in steps[max(0, self.number - _SHOWN_BEFORE) : self.number]]
        return "\n".join(
            (
                f"{self.trace.name}: step {self.number + 1} of {len(steps)} is impossible ({steps[self.number].where})",
                *before,
                f"  > {steps[self.number]}",
                f"  {self.why}",
                f"  the world can be here: {self.example}",
                "  possible would have been:",
                *(f"    {move}" for move in self.possible),
            )
        )


class TraceChecker:
    """Checks traces against one table in its small world."""

    def __init__(self, table: Table = THE_TABLE) -> None:
        self._table = table
        self._world = without_properties(with_steps(small_world(table), *ONLY_IN_TRACES), frozenset())
        self._compiled = Compiled(self._world)
        self._beginning = frozenset(self._compiled.beginnings())
        self._known: dict[Belief, dict[Move, Belief]] = {}
        self._everything: list[bytes] = []

    def check(self, trace: Trace) -> Broken | None:
        """The first impossible step, or None. A trace that does not begin in Disconnected may begin anywhere."""
        generation = 0
        belief = self._beginning
        for number, step in enumerate(trace.steps):
            if number == 0 and step.source is not INITIAL:
                belief = self._anywhere(step)
                generation = step.generation  # whatever it was before
            moves = self._moves(belief)
            fitting = [move for move in moves if _is(move, step)]
            if number == 0 and step.source is not INITIAL:
                generation -= any(move.opens for move in fitting)
            fitting = [move for move in fitting if generation + move.opens == step.generation]
            if not fitting:
                return self._broken(trace, number, belief, generation)
            belief = frozenset[bytes]().union(*(moves[move] for move in fitting))
            generation = step.generation
        return None

    def learn(self) -> None:
        """Search the whole world now (seconds), which the first trace that begins anywhere would do."""
        if not self._everything:
            self._everything = self._compiled.reachable()

    def _anywhere(self, step: TraceStep) -> Belief:
        self.learn()
        return frozenset(state for state in self._everything if self._compiled.value(state, STATE) == step.source)

    def _moves(self, belief: Belief) -> dict[Move, Belief]:
        """Every visible step that is possible from ``belief``, after any number of invisible ones, and where it leads."""
        known = self._known.get(belief)
        if known is not None:
            return known
        moves: dict[Move, set[bytes]] = {}
        seen, todo = set(belief), list(belief)
        for state in todo:  # grows meanwhile
            for number, after in self._compiled.look(state)[0]:
                move = self._world.moves[number]
                if move is not None:
                    moves.setdefault(move, set()).add(after)
                elif after not in seen:
                    seen.add(after)
                    todo.append(after)
        self._known[belief] = {move: frozenset(states) for move, states in moves.items()}
        return self._known[belief]

    def _broken(self, trace: Trace, number: int, belief: Belief, generation: int) -> Broken:
        step = trace.steps[number]
        moves = self._moves(belief)
        possible = tuple(sorted(moves, key=str))
        example = described(self._compiled, min(belief)) if belief else "nowhere: no run leads to this state"
        return Broken(trace, number, self._why(step, possible, generation), possible, example)

    def _why(self, step: TraceStep, possible: tuple[Move, ...], generation: int) -> str:
        if any(_is(move, step) for move in possible):
            return f"the generation before was {generation}: it grows by one with open_socket, and with nothing else"
        sources = {move.source for move in possible}
        if sources and step.source not in sources:
            return (
                "it does not go on where the step before has led to; a step is missing, or the steps are out of order"
            )
        rows = [row for row in self._table.rows if row.trigger is step.trigger and step.source in row.sources]
        if not rows:
            return f"the table has no row for {step.trigger} in {step.source}"
        if not any(_leads(row, step) for row in rows):
            return f"the table leads from {step.source} by {step.trigger} elsewhere"
        return "the table has such a row, but after these steps nothing in the small world can bring it about"


def _is(move: Move, step: TraceStep) -> bool:
    return (move.source, move.trigger, move.target) == (step.source, step.trigger, step.target)


def _leads(row: Row, step: TraceStep) -> bool:
    return (step.source if row.target is None else row.target) is step.target


@cache
def trace_checker() -> TraceChecker:
    """The checker for the table as it is; one for the whole process, since it learns."""
    return TraceChecker()


def check_traces(traces: list[Trace]) -> Iterator[Broken]:
    """The broken ones."""
    for trace in traces:
        if (broken := trace_checker().check(trace)) is not None:
            yield broken
