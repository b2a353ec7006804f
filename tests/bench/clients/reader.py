"""A bot on the bus as its author would write it: `discorder.subscribe`, every event parsed.

Arguments: the endpoint, "arrivals".
"""

from __future__ import annotations

import asyncio
import sys

import discorder
from tests.bench.clients.counter import Counter


async def main(endpoint: str, mode: str = "") -> None:
    """Read until killed."""
    counter = Counter(arrivals=mode == "arrivals")
    async with discorder.subscribe(endpoint) as events:
        async for event in events:
            if isinstance(event, discorder.Gap):
                sys.stderr.write(f"{event}\n")
            elif event.seq is not None:
                event.json()
                counter.arrived(event.seq)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
