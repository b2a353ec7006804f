"""What the commands are run against."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from discorder.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """A simulator whose one guild lives."""
    async with Simulator(guilds=1, rate=20) as simulator:
        yield simulator
