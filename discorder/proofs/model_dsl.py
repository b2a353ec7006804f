"""Define the language of the model as data: variables with few values, conditions, effects, steps.

The language is small, so that its two translators (`compiled.py` for the search and the traces, `promela.py` for spin) need
about thirty lines each and cannot differ in meaning. It is independent of the life cycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from enum import Enum, StrEnum


@dataclass(frozen=True, slots=True)
class Variable:
    """Describe a variable of the model. ``name`` is an identifier. ``start``: the possible initial values; empty = the first.

    ``shown`` False: only a property uses the variable, and transcripts omit it.
    """

    name: str
    values: tuple[str, ...]
    start: tuple[str, ...] = ()
    shown: bool = True

    def index(self, value: str) -> int:
        """Return the number of ``value``. Raises ValueError for a value that this variable cannot have."""
        if value not in self.values:
            msg = f"{self.name} cannot be {value!r}; it is one of: {', '.join(self.values)}"
            raise ValueError(msg)
        return self.values.index(value)

    @property
    def beginnings(self) -> tuple[str, ...]:
        """Return the possible initial values."""
        return self.start or self.values[:1]

    def is_(self, *values: str) -> Is:
        """Return the condition that the variable has one of ``values``."""
        return Is(self, frozenset(self.index(value) for value in values))

    def is_not(self, *values: str) -> Is:
        """Return the condition that the variable has none of ``values``."""
        return Is(self, frozenset(range(len(self.values))) - self.is_(*values).values)

    def becomes(self, value: str) -> Assign:
        """Return the effect that sets the variable to ``value``."""
        return Assign(self, self.index(value))

    def mapped(self, values: Mapping[str, str]) -> Translate:
        """Return the effect that replaces each key of ``values`` by its value and keeps other values."""
        return Translate(self, tuple((self.index(old), self.index(new)) for old, new in values.items()))


NO, YES = "no", "yes"


def flag(name: str, *, start: tuple[str, ...] = (), shown: bool = True) -> Variable:
    """Return a variable with the values "no" and "yes". It starts as "no" unless ``start`` says otherwise."""
    return Variable(name, (NO, YES), start, shown)


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class Is:
    """Require that ``variable`` has one of the values with these numbers."""

    variable: Variable
    values: frozenset[int]


@dataclass(frozen=True, slots=True)
class All:
    """Require every part; true without parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Require at least one part; false without parts."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Require that ``part`` does not hold."""

    part: Condition


Condition = Is | All | Either | Not


def all_of(*parts: Condition) -> Condition:
    """Return the condition that every part holds."""
    return parts[0] if len(parts) == 1 else All(parts)


def either(*parts: Condition) -> Condition:
    """Return the condition that at least one part holds."""
    return parts[0] if len(parts) == 1 else Either(parts)


def implies(given: Condition, then: Condition) -> Condition:
    """Return the condition that ``then`` holds wherever ``given`` holds."""
    return Either((Not(given), then))


TRUE, FALSE = All(()), Either(())


def given(condition: Condition, known: Mapping[Variable, int]) -> Condition:
    """Simplify ``condition`` for the variable numbers in ``known``. Return `TRUE` or `FALSE` if these numbers decide it."""
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
    """Set ``variable`` to the value with this number."""

    variable: Variable
    value: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Set ``variable`` to the value of ``source``. Both have the same list of values."""

    variable: Variable
    source: Variable


@dataclass(frozen=True, slots=True)
class Translate:
    """Change ``variable`` from the first to the second number of a pair. Keep a value that has no pair."""

    variable: Variable
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class When:
    """Apply ``then`` if ``condition`` holds, else ``otherwise``."""

    condition: Condition
    then: tuple[Effect, ...]
    otherwise: tuple[Effect, ...] = ()


Effect = Assign | Copy | Translate | When
Effects = tuple[Effect, ...]


# ---------------------------------------------------------------- steps


class Duty(Enum):
    """Define whether a step that stays possible must happen eventually (fairness)."""

    MUST = "must"  # weak fairness
    MAY = "may"  # a fault or a free choice
    MAY_END = "may end"  # like MAY; it ends the shard, or an operator helps it on: no way to Ready may depend on it


class Actor(StrEnum):
    """List the actors that take steps. Each is a separate process in Promela, so that fairness applies to each."""

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
    """Describe an atomic step: if ``when`` holds, apply ``effects`` in order. ``says`` describes it in a sentence."""

    actor: Actor
    says: str
    when: Condition
    effects: Effects
    duty: Duty = Duty.MUST


# ---------------------------------------------------------------- a smaller model


def without(effects: Effects, dropped: Set[Variable]) -> Effects:
    """Return ``effects`` without the variables ``dropped``: remove each effect that sets them or depends on them."""
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
