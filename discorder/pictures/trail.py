"""The way that a shard really took through the life cycle, for drawing it over the state diagram. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from discorder.pictures.scene import Arrow
from discorder.statemachine.table import Name, State

NUMBERS_SHOWN = 4  # of the steps on one line; of more than these the count is told


@dataclass(frozen=True, slots=True)
class Visit:
    """One step: ``target`` equals ``source`` for a row that stays in its state."""

    source: State
    trigger: Name
    target: State


@dataclass(frozen=True, slots=True)
class Trail:
    """The steps of a shard, in order, and where they come from: ``title`` says whose they are."""

    title: str
    visits: Sequence[Visit]

    @property
    def end(self) -> State | None:
        """Where it ended, None without a step."""
        return self.visits[-1].target if self.visits else None

    def touches(self, state: State) -> bool:
        """Whether the state was left or entered."""
        return any(state in (visit.source, visit.target) for visit in self.visits)

    def triggers_along(self, arrow: Arrow) -> frozenset[Name]:
        """The triggers that led along ``arrow``."""
        return frozenset(visit.trigger for visit in self.visits if _is_along(visit, arrow))

    def along(self, arrow: Arrow) -> str:
        """The numbers of the steps along ``arrow``; "" for none."""
        return self._numbers(number for number, visit in self._numbered() if _is_along(visit, arrow))

    def within(self, state: State, triggers: Iterable[Name]) -> str:
        """The numbers of the steps that stayed in ``state``; "" for none."""
        wanted = frozenset(triggers)
        return self._numbers(
            number
            for number, visit in self._numbered()
            if visit.source is visit.target is state and visit.trigger in wanted
        )

    def _numbered(self) -> Iterator[tuple[int, Visit]]:
        return enumerate(self.visits, start=1)

    @staticmethod
    def _numbers(numbers: Iterable[int]) -> str:
        found = list(numbers)
        if len(found) > NUMBERS_SHOWN:
            return f"{len(found)} times, last {found[-1]}"
        return ", ".join(map(str, found))


def _is_along(visit: Visit, arrow: Arrow) -> bool:
    return visit.target is arrow.target and (visit.source, visit.trigger) in arrow.covers
