"""Write a list of shards in short."""

from __future__ import annotations

from collections.abc import Iterable


def shard_ranges(shards: Iterable[int]) -> str:
    """Return ascending shard ids as ranges: ``0-3, 7``."""
    runs: list[list[int]] = []
    for shard in shards:
        if runs and runs[-1][1] == shard - 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
