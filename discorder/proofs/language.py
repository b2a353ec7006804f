"""The language in which the small world is written: variables of few values, conditions, effects, steps. Data only.

It is small on purpose: whoever reads it (`compiled.py` for the search and the traces, `promela.py` for spin) needs some
thirty lines, and the two cannot mean different things by it. Knows nothing of the life cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from enum import Enum, StrEnum


@dataclass(frozen=True, slots=True)
class Variable:
    """A fact of the world. ``name`` is an identifier; ``start`` are the values it may begin with, the first one if empty.

    ``shown`` False: it is there for a property alone, and a transcript leaves it out.
    """

    name: str
    values: tuple[str, ...]
    start: tuple[str, ...] = ()
    shown: bool = True

    def index(self, value: str) -> int:
        """The number that stands for ``value``. Raises ValueError for a value that this variable cannot have."""
        if value not in self.values:
            msg = f"{self.name} cannot be {value!r}; it is one of: {', '.join(self.values)}"
            raise ValueError(msg)
        return self.values.index(value)

    @property
    def beginnings(self) -> tuple[str, ...]:
        """The values at the beginning."""
        return self.start or self.values[:1]

    def is_(self, *values: str) -> Is:
        """The condition that it has one of ``values``."""
        return Is(self, frozenset(self.index(value) for value in values))

    def is_not(self, *values: str) -> Is:
        """The condition that it has none of ``values``."""
        return Is(self, frozenset(range(len(self.values))) - self.is_(*values).values)

    def becomes(self, value: str) -> Assign:
        """The effect that it has ``value`` from now on."""
        return Assign(self, self.index(value))

    def mapped(self, values: Mapping[str, str]) -> Translate:
        """The effect that each of ``values`` turns into another one; what is not in it stays."""
        return Translate(self, tuple((self.index(old), self.index(new)) for old, new in values.items()))


NO, YES = "no", "yes"


def flag(name: str, *, start: tuple[str, ...] = (), shown: bool = True) -> Variable:
    """A variable that is "no" or "yes", "no" at first."""
    return Variable(name, (NO, YES), start, shown)


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class Is:
    """``variable`` has one of the values with these numbers."""

    variable: Variable
    values: frozenset[int]


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; true without parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds; false without parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """``part`` does not hold."""

    part: Condition


Condition = Is | All | Either | Not


def all_of(*parts: Condition) -> Condition:
    """Every part holds."""
    return parts[0] if len(parts) == 1 else All(parts)


def either(*parts: Condition) -> Condition:
    """At least one part holds."""
    return parts[0] if len(parts) == 1 else Either(parts)


def implies(given: Condition, then: Condition) -> Condition:
    """Where ``given`` holds, ``then`` holds too."""
    return Either((Not(given), then))


TRUE, FALSE = All(()), Either(())


def given(condition: Condition, known: Mapping[Variable, int]) -> Condition:
    """What is left of ``condition`` where the variables of ``known`` have these numbers; `TRUE` or `FALSE` if it is decided."""
    match condition:
        case Is(variable, values):
            if variable in known:
                return TRUE if known[variable] in values else FALSE
            return condition
        case Not(part):
            left = given(part, known)
            return FALSE if left == TRUE else TRUE if left == FALSE else Not(left)
        case All(parts):
            rest = tuple(left for left in (given(part, known) for part in parts) if left != TRUE)
            return FALSE if FALSE in rest else all_of(*rest)
        case Either(parts):
            rest = tuple(left for left in (given(part, known) for part in parts) if left != FALSE)
            return TRUE if TRUE in rest else either(*rest)


# ---------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Assign:
    """``variable`` gets the value with this number."""

    variable: Variable
    value: int


@dataclass(frozen=True, slots=True)
class Copy:
    """``variable`` gets the value of ``source``, which has the same values."""

    variable: Variable
    source: Variable


@dataclass(frozen=True, slots=True)
class Translate:
    """``variable`` changes from the first to the second number of a pair; without a pair for its value it stays."""

    variable: Variable
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class When:
    """``then`` where ``condition`` holds, ``otherwise`` where it does not."""

    condition: Condition
    then: tuple[Effect, ...]
    otherwise: tuple[Effect, ...] = ()


Effect = Assign | Copy | Translate | When
Effects = tuple[Effect, ...]


# ---------------------------------------------------------------- steps


class Duty(Enum):
    """Whether a step has to come when it can go on coming: what fairness means in this world."""

    MUST = "must"  # by whoever is well: weak fairness
    MAY = "may"  # a fault, or somebody's free will
    MAY_END = "may end"  # the same, and the shard is to end by it


class Actor(StrEnum):
    """Who takes a step. One process of the model each, so that fairness is fair to each of them."""

    MACHINE = "machine"
    DOCTOR = "doctor"
    TIMER = "timer"
    GATE = "gate"
    GATEWAY = "gateway"
    PUBLISHERS = "publishers"
    FAULTS = "faults"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that can happen at once and undivided: where ``when`` holds, ``effects`` in order. ``says`` is a sentence."""

    actor: Actor
    says: str
    when: Condition
    effects: Effects
    duty: Duty = Duty.MUST


# ---------------------------------------------------------------- a smaller world


def without(effects: Effects, dropped: Set[Variable]) -> Effects:
    """``effects`` in a world in which nobody remembers ``dropped``: what sets them, or depends on them, is gone."""
    left: list[Effect] = []
    for effect in effects:
        match effect:
            case When(condition, then, otherwise):
                rest = When(condition, without(then, dropped), without(otherwise, dropped))
                if dropped.isdisjoint(variables_in(condition)) and (rest.then or rest.otherwise):
                    left.append(rest)
            case Assign(variable) | Copy(variable) | Translate(variable):
                if variable not in dropped:
                    left.append(effect)
    return tuple(left)


def variables_in(condition: Condition) -> Iterator[Variable]:
    match condition:
        case Is(variable):
            yield variable
        case Not(part):
            yield from variables_in(part)
        case All(parts) | Either(parts):
            for part in parts:
                yield from variables_in(part)
