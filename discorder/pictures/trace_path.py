"""The path of a shard through the life cycle, to be drawn over the state diagram."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from discorder.pictures.graph_model import Arrow
from discorder.statemachine.table import Name, State

NUMBERS_SHOWN = 4  # steps on one arrow whose numbers are shown; for more, only their count


@dataclass(frozen=True, slots=True)
class PathStep:
    """One transition; ``target`` equals ``source`` if the state does not change."""

    source: State
    trigger: Name
    target: State


@dataclass(frozen=True, slots=True)
class TracePath:
    """The transitions of a shard, in order. ``title`` names their source."""

    title: str
    steps: Sequence[PathStep]

    @property
    def end(self) -> State | None:
        """The last state, None without a step."""
        return self.steps[-1].target if self.steps else None

    def touches(self, state: State) -> bool:
        """Return whether the state was left or entered."""
        return any(state in (step.source, step.target) for step in self.steps)

    def triggers_along(self, arrow: Arrow) -> frozenset[Name]:
        """Return the triggers of the steps along ``arrow``."""
        return frozenset(step.trigger for step in self.steps if _is_along(step, arrow))

    def along(self, arrow: Arrow) -> str:
        """Return the numbers of the steps along ``arrow``; "" for none."""
        return self._numbers(number for number, step in self._numbered() if _is_along(step, arrow))

    def within(self, state: State, triggers: Iterable[Name]) -> str:
        """Return the numbers of the steps that stayed in ``state``; "" for none."""
        wanted = frozenset(triggers)
        return self._numbers(
            number
            for number, step in self._numbered()
            if step.source is step.target is state and step.trigger in wanted
        )

    def _numbered(self) -> Iterator[tuple[int, PathStep]]:
        return enumerate(self.steps, start=1)

    @staticmethod
    def _numbers(numbers: Iterable[int]) -> str:
        found = list(numbers)
        if len(found) > NUMBERS_SHOWN:
            return f"{len(found)} times, last {found[-1]}"
        return ", ".join(map(str, found))


def _is_along(step: PathStep, arrow: Arrow) -> bool:
    return step.target is arrow.target and (step.source, step.trigger) in arrow.covers
