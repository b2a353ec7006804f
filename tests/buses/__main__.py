"""``make buses``: brokers and control planes are killed and stopped; exits 1 when an event is missing, twice or out of order.

The moments are drawn from the seed, the bus, the story and its number alone: ``make buses SEED=7 ARGS="--only nats"`` repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator

from tests.buses.scene import Outcome, play
from tests.buses.stories import BUSES, STORIES

Name = tuple[str, str, int]  # of the bus, of the story, its number


def main() -> int:
    parser = argparse.ArgumentParser(prog="make buses", description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="how often each story is told (default: 3)")
    parser.add_argument("--seed", type=int, default=None, help="default: one that is drawn and printed")
    parser.add_argument("--only", action="append", default=[], help="a bus or a story; may be repeated")
    parser.add_argument("--workers", type=int, default=3, help="stories at a time (default: 3)")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    names = [
        (bus, story, number)
        for number in range(options.n)
        for bus in BUSES
        for story in BUSES[bus].stories
        if not options.only or {bus, story} & set(options.only)
    ]
    if not names:
        parser.error(f"--only takes {', '.join((*BUSES, *STORIES))}")
    print(f"seed {seed}: {len(names)} stories", flush=True)
    began = time.monotonic()
    outcomes = asyncio.run(_tell_all(seed, names, options.workers))
    print(f"{sum(one.verdict.sent for one in outcomes)} events in {time.monotonic() - began:.0f} s, seed {seed}")
    return 1 if any(one.faults for one in outcomes) else 0


async def _tell_all(seed: int, names: list[Name], workers: int) -> list[Outcome]:
    left: Iterator[Name] = iter(names)
    outcomes: list[Outcome] = []

    async def work() -> None:
        for bus, story, number in left:
            outcome = await play(BUSES[bus].make, STORIES[story], f"{seed} {bus} {story} {number}")
            outcomes.append(outcome)
            print(_line(bus, story, outcome), flush=True)

    await asyncio.gather(*(work() for _ in range(workers)))
    return outcomes


def _line(bus: str, story: str, outcome: Outcome) -> str:
    verdict = outcome.verdict
    line = (
        f"{bus:<20} {story:<27} {verdict.sent:>6} sent {verdict.missing:>5} missing {verdict.untold:>5} untold "
        f"{verdict.twice:>4} twice {verdict.out_of_order:>4} out of order {outcome.seconds:>6.1f} s"
    )
    faults = [*outcome.faults, *verdict.gaps[:8], outcome.log] if outcome.faults else []
    return "\n  ".join([line, *faults])


if __name__ == "__main__":
    sys.exit(main())
