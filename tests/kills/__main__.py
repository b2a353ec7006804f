"""``make kills``: many kills at random moments of the named points; exits 1 when one of them cost an event.

A story is drawn from the seed and its number alone: ``make kills SEED=7 STORY=12`` repeats one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator

from tests.kills.points import POINTS
from tests.kills.story import Story, drawn, tell
from tests.kills.table import table

KILLS_PER_STORY = 6


def main() -> int:
    parser = argparse.ArgumentParser(prog="make kills", description=__doc__)
    parser.add_argument("-n", type=int, default=300, help="how many kills (default: 300)")
    parser.add_argument("--seed", type=int, default=None, help="default: one that is drawn and printed")
    parser.add_argument("--story", type=int, default=None, help="only this one")
    parser.add_argument("--workers", type=int, default=4, help="stories at a time (default: 4)")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    numbers = range(-(-options.n // KILLS_PER_STORY)) if options.story is None else [options.story]
    print(f"seed {seed}: {len(numbers)} stories of {KILLS_PER_STORY} kills", flush=True)
    started = time.monotonic()
    stories = asyncio.run(_tell_all(seed, list(numbers), options.workers))
    print(table(list(stories.values())))
    events = sum(story.events for story in stories.values())
    facades = sum(story.facade_kills for story in stories.values())
    print(f"{events} events in {time.monotonic() - started:.0f} s, {facades} kills of façades besides, seed {seed}")
    failed = [number for number, story in stories.items() if story.faults]
    for number in failed:
        print(f"\nstory {number}; again: make kills SEED={seed} STORY={number}")
        print("\n".join(f"  {fault}" for fault in stories[number].faults))
        print(stories[number].log)
    return 1 if failed else 0


async def _tell_all(seed: int, numbers: list[int], workers: int) -> dict[int, Story]:
    left: Iterator[int] = iter(numbers)
    stories: dict[int, Story] = {}

    async def work() -> None:
        for number in left:
            stories[number] = await _tell(seed, number)

    await asyncio.gather(*(work() for _ in range(workers)))
    return dict(sorted(stories.items()))


async def _tell(seed: int, number: int) -> Story:
    """Take the points in turn, so that over the stories each occurs as often as its life allows."""
    rng = random.Random(f"{seed} {number}")
    names = list(POINTS)
    turn = number * KILLS_PER_STORY % len(names)
    return await tell(
        KILLS_PER_STORY,
        drawn(rng, [*names[turn:], *names[:turn]][: KILLS_PER_STORY + 2]),
        compress=rng.choice(("zlib-stream", "zstd-stream", "payload")),
        zlib_split=rng.choice((1, 3)),
        rotate_bytes=rng.choice((50_000, 100_000, 400_000)),
        slow_disk=number % 5 == 4,
        apart=number % 2 == 1,
        seed=f"{seed} {number}",
    )


if __name__ == "__main__":
    sys.exit(main())
