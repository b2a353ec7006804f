"""Write a list of shards in short."""

from __future__ import annotations

from collections.abc import Iterable

MOST_RANGES = 12  # the shards of the others are counted


def shard_ranges(shards: Iterable[int]) -> str:
    """Return ascending shard ids as ranges: ``0-3, 7``; many of them as ``0, 2, 4 and 97 more``."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and runs[-1][1] == shard - 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    words = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs[:MOST_RANGES])
    more = sum(last - first + 1 for first, last in runs[MOST_RANGES:])
    return f"{words} and {more:,} more" if more else words
