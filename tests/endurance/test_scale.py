"""`make scale` in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endurance.scale import Scale, run


@pytest.mark.system
async def test_sockets_that_are_reset_all_the_time_lose_nothing(tmp_path: Path) -> None:
    """Eight shards start at once, since their buckets differ; then four sockets per second are reset."""
    scale = Scale(shards=8, max_concurrency=8, seconds=2.5, drops=4, rate=200)
    outcome = await run(scale, tmp_path)
    assert outcome.faults(scale.shards) == []
    assert outcome.events > 0
    assert outcome.resumed >= outcome.dropped > 0


def test_the_rules_allow_one_identify_per_bucket_and_spacing() -> None:
    assert Scale(shards=64, max_concurrency=16).earliest == 3 * 5.25
    assert Scale(shards=16, max_concurrency=16).earliest == 0
