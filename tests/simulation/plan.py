"""The plan of a run: the world's measures and every fault with its moment. Made from a seed, written and read as JSON.

Running a plan is a function of the plan alone, so a failing one can be shrunk by leaving faults out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import msgspec

from discorder.statemachine import State
from tests.simulation.cells import round_of
from tests.simulation.faults import NATURES, Fault, Kind

DAY = 86_400.0
HOUR = 3_600.0
AIMS = tuple(state for state in State if state is not State.READY)
"""A fault that aims at Disconnected strikes while no process runs."""
BY_THE_ROUND = 0.5  # of the faults strike the next cell of the round; of the others, drawn by weight,
AIMED = 0.4  # so many aim at a state


@dataclass(frozen=True, slots=True)
class Measures:
    """Of the world. ``interval``, ``ttl`` (of a session without a connection) and ``event_gap`` in seconds.

    ``start_total`` IDENTIFYs a day, of which ``spent`` are gone when the run begins; there are new ones after ``reset_after``
    seconds. ``batch``: the most messages that one read of a socket brings; the transport of the product brings one.
    """

    shards: int = 1
    auto: bool = False
    max_concurrency: int = 1
    interval: float = 41.25
    ttl: float = 240.0
    replay_buffer: int = 400
    event_gap: float = 20.0
    start_total: int = 1000
    spent: int = 0
    reset_after: float = DAY
    queue: int = 60
    latency: float = 0.04
    batch: int = 1

    @property
    def reserve(self) -> int:
        """Return the IDENTIFYs that are never spent: a tenth, and one for each shard."""
        return max(-(-self.start_total // 10), self.shards)


@dataclass(frozen=True, slots=True)
class Plan:
    """``seconds``: faults begin in this time, from the start on."""

    seed: int
    seconds: float
    measures: Measures
    faults: tuple[Fault, ...]

    def without(self, faults: set[int]) -> Plan:
        """Return the plan without the faults at these places."""
        return replace(self, faults=tuple(fault for n, fault in enumerate(self.faults) if n not in faults))

    def encode(self) -> str:
        """Return it as JSON, on one line."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def decode(text: str) -> Plan:
        """Raises `msgspec.ValidationError` for what `encode` did not write."""
        return msgspec.json.decode(text, type=Plan)


def make_plan(seed: int, days: float, *, gap: float | None = None) -> Plan:
    """The plan of ``seed``: ``days`` long, a fault every ``gap`` seconds on average (None: that is drawn too)."""
    rng = random.Random(f"plan {seed}")
    cells = round_of(seed)
    measures = _measures(rng, days)
    chosen = gap if gap is not None else rng.choice((20.0, 50.0, 150.0)) if days < 1 else rng.choice((900.0, HOUR))
    seconds = days * DAY
    faults: list[Fault] = []
    at = rng.expovariate(1 / chosen)
    while at < seconds:
        kind, aim = next(cells) if rng.random() < BY_THE_ROUND else _any(rng)
        faults.append(_fault(rng, at, measures, kind, aim))
        at += rng.expovariate(1 / chosen)
    return Plan(seed, seconds, measures, tuple(faults))


def _measures(rng: random.Random, days: float) -> Measures:
    shards = rng.choice((1, 1, 1, 2, 3)) if days < 1 else 1
    total = rng.choice((1000, 1000, 1000, 1000, 1000, 1000, 30, 10))
    scarce = days < 1 and rng.random() < 0.3
    left = max(-(-total // 10), shards) + rng.randrange(1, 12)
    return Measures(
        shards=shards,
        auto=rng.random() < 0.3,
        max_concurrency=rng.choice((1, 1, 2)),
        interval=rng.choice((10.0, 41.25)) if days < 1 else 41.25,
        ttl=rng.choice((90.0, 240.0)),
        replay_buffer=rng.choice((40, 400, 5000, 5000)),
        event_gap=rng.choice((1.0, 4.0, 20.0)) if days < 1 else 30.0,
        start_total=total,
        spent=max(0, total - left) if scarce else 0,
        reset_after=round(rng.uniform(300.0, 6000.0), 3) if scarce else DAY,
        queue=rng.choice((4, 60)),
        latency=rng.choice((0.001, 0.04, 0.3)),
        batch=rng.choice((1, 16, 10_000)),
    )


_KINDS = [kind for kind in Kind for _ in range(NATURES[kind].weight)]


def _any(rng: random.Random) -> tuple[Kind, State | None]:
    return rng.choice(_KINDS), rng.choice(AIMS) if rng.random() < AIMED else None


def _fault(rng: random.Random, at: float, measures: Measures, kind: Kind, aim: State | None) -> Fault:
    nature = NATURES[kind]
    low, high = nature.lasts
    return Fault(
        at=round(at, 3),
        kind=kind,
        shard=rng.randrange(measures.shards),
        aim=aim,
        lag=round(rng.choice((0.0, 0.0, rng.uniform(0.0, 0.1), rng.uniform(0.0, 3.0))), 3) if aim else 0.0,
        seconds=round(low * (high / low) ** rng.random(), 2) if high else 0.0,
        variant=rng.randrange(nature.variants),
    )
