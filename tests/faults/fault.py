"""Measure a fault: the time from its beginning to the recovery, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from discorder.simulator import Simulator
from discorder.statemachine import State
from discorder.wire import session_label
from tests.faults.table import Case
from tests.harness import Stage

GRACE = 5.0  # seconds of the stage's clock for events that are under way

Seen = tuple[str | None, int | None, str]  # session label, seq, type


class Witness(Protocol):
    """A publisher that remembers what it got."""

    @property
    def seen(self) -> list[Seen]: ...


class Cost(NamedTuple):
    """IDENTIFYs spent, events lost and events seen twice since the fault began."""

    identifies: int
    lost: int
    duplicates: int


FREE = Cost(0, 0, 0)


class Fault:
    """One fault, which begins when this is created. Times are those of the stage's clock."""

    def __init__(self, case: Case, sim: Simulator, stage: Stage, witnesses: Sequence[Witness] = ()) -> None:
        """``witnesses``: those that got events, in order of their lives; none given: the stage's recorder."""
        self._case = case
        self._sim = sim
        self._stage = stage
        self._witnesses = witnesses or (stage.recorder,)
        self.began = stage.clock.monotonic()
        self._began_at = stage.clock.now()
        self._identifies = sim.identifies

    def over(self) -> float:
        """Note and return the seconds since the beginning: the fault is over."""
        seconds = self._stage.clock.monotonic() - self.began
        self._case.note(recovery=seconds)
        return seconds

    async def recovered(self, generation: int | None = None, *, within: float = 30.0) -> float:
        """Wait until the shard is Ready (in ``generation``), at most ``within`` seconds; note and return how long it took."""
        await self._stage.ready(generation, within=within)
        seconds = self.until(State.READY)
        self._case.note(recovery=seconds)
        return seconds

    def until(self, state: State) -> float:
        """Return the seconds from the beginning to the last time that the shard entered ``state``."""
        at = [step.at for step in self._stage.tracker.transitions if step.target is state][-1]
        return (at - self._began_at).total_seconds()

    async def cost(self) -> Cost:
        """Return the cost, after waiting for events under way. Fails for an event that was not sent, or out of order."""
        end = self._stage.clock.monotonic() + GRACE
        while self._missing() and self._stage.clock.monotonic() < end:
            await self._stage.pass_time()
        cost = loss(told(self._sim), [event for witness in self._witnesses for event in witness.seen])
        return self.paid(cost)

    def paid(self, delivery: Cost) -> Cost:
        """Note the cost of a delivery that was compared elsewhere, with the IDENTIFYs since the beginning."""
        cost = delivery._replace(identifies=self._sim.identifies - self._identifies)
        self._case.note(**cost._asdict())
        return cost

    def _missing(self) -> bool:
        return len({event for witness in self._witnesses for event in witness.seen}) < len(self._sim.sent)


def told(sim: Simulator) -> list[Seen]:
    """Return the events that the simulator sent, with the labels of the bus."""
    return [(session_label(session), seq, kind) for session, seq, kind in sim.sent]


def loss(sent: Sequence[Seen], seen: Sequence[Seen]) -> Cost:
    """Compare by (session, seq). Fails for an event that was not sent, and where first occurrences are out of order."""
    counts = Counter(seen)
    first_sights = list(counts)
    place = {event: number for number, event in enumerate(sent)}
    assert set(counts) <= set(place), "an event that nobody sent"
    places = [place[event] for event in first_sights]
    assert places == sorted(places), "events came out of order"
    return Cost(0, len(place) - len(counts), sum(counts.values()) - len(counts))


async def say(sim: Simulator, count: int = 3) -> None:
    """Dispatch some messages to every session, connected or not."""
    for number in range(count):
        await sim.dispatch("MESSAGE_CREATE", {"id": str(number)})
