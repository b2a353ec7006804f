"""Check whether a run of the model has the same visible steps as a trace (the method of CCF's "smart casual verification").

After each step of the trace, compute every state in which the model can be. The next step must be possible in at least one of
them, with any number of invisible steps between. The results are cached, because many traces begin alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from discorder.proofs.compiled import Compiled
from discorder.proofs.environment import ONLY_IN_TRACES
from discorder.proofs.model import THE_TABLE, Move, table_model, with_steps, without_properties
from discorder.proofs.traces import Trace, TraceStep
from discorder.proofs.transcript import described
from discorder.proofs.variables import STATE
from discorder.statemachine.table import INITIAL, Row

_SHOWN_BEFORE = 5  # steps shown before the impossible one

Belief = frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Broken:
    """Describe the first impossible step of a trace. ``why``: a sentence. ``possible``: the transitions that were possible."""

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
                f"  the model can be here: {self.example}",
                "  possible would have been:",
                *(f"    {move}" for move in self.possible),
            )
        )


class TraceChecker:
    """Check traces against the model of the table."""

    def __init__(self) -> None:
        self._model = without_properties(with_steps(table_model(THE_TABLE), *ONLY_IN_TRACES), frozenset())
        self._compiled = Compiled(self._model)
        self._beginning = frozenset(self._compiled.beginnings())
        self._known: dict[Belief, dict[Move, Belief]] = {}
        self._everything: list[bytes] = []

    def check(self, trace: Trace) -> Broken | None:
        """Return the first impossible step, or None. A trace may begin outside Disconnected, in any reachable state."""
        generation = 0
        belief = self._beginning
        for number, step in enumerate(trace.steps):
            if number == 0 and step.source is not INITIAL:
                belief = self._anywhere(step)
                generation = step.generation  # the number before the trace is unknown
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
        """Search the whole model now (takes seconds). Otherwise the first trace that begins outside Disconnected does it."""
        if not self._everything:
            self._everything = self._compiled.reachable()

    def _anywhere(self, step: TraceStep) -> Belief:
        self.learn()
        return frozenset(state for state in self._everything if self._compiled.value(state, STATE) == step.source)

    def _moves(self, belief: Belief) -> dict[Move, Belief]:
        """Return every visible step possible from ``belief`` after any number of invisible steps, with the next states."""
        known = self._known.get(belief)
        if known is not None:
            return known
        moves: dict[Move, set[bytes]] = {}
        seen, todo = set(belief), list(belief)
        for state in todo:  # the loop appends to the list
            for number, after in self._compiled.expand(state)[0]:
                move = self._model.moves[number]
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
        rows = [row for row in THE_TABLE.rows if row.trigger is step.trigger and step.source in row.sources]
        if not rows:
            return f"the table has no row for {step.trigger} in {step.source}"
        if not any(_leads(row, step) for row in rows):
            return f"the table leads from {step.source} by {step.trigger} elsewhere"
        return "the table has such a row, but after these steps nothing in the model can bring it about"


def _is(move: Move, step: TraceStep) -> bool:
    return (move.source, move.trigger, move.target) == (step.source, step.trigger, step.target)


def _leads(row: Row, step: TraceStep) -> bool:
    return (step.source if row.target is None else row.target) is step.target


@cache
def trace_checker() -> TraceChecker:
    """Return the checker for the current table. The process shares one checker, because it caches results."""
    return TraceChecker()
