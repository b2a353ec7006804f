"""Every control plane of every test leaves a ring of transitions; each is checked against the table and the small world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from discorder.proofs.traces import trace_of
from discorder.proofs.validation import trace_checker
from discorder.tracking.shard_tracker import ShardTracker

MANY = (
    32  # rings that are checked of one test; a test that plays hundreds of runs has some checked from all along its way
)


@pytest.fixture(autouse=True)
def possible_rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end of a test: no shard of this process has done what the small world cannot do."""
    born: list[ShardTracker] = []
    original = ShardTracker.__init__

    def noted(self: ShardTracker, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        born.append(self)

    monkeypatch.setattr(ShardTracker, "__init__", noted)
    yield
    for shard in born[:: len(born) // MANY + 1]:
        if shard.transitions:
            broken = trace_checker().check(trace_of(f"shard {shard.shard_id}", shard.transitions))
            assert broken is None, str(broken)
