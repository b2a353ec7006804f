"""Wait for other processes, by their files and the simulator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from discorder.simulator import Simulator
from tests.endurance.evidence import Account, compare, read_rows, size_of, split
from tests.endurance.process import PlaneProcess

LOOK_EVERY = 0.02  # seconds
SETTLED_AFTER = 0.3  # seconds without a byte


async def until(predicate: Callable[[], object], within: float, *, look_every: float = LOOK_EVERY) -> None:
    """Return once ``predicate()``. Raises TimeoutError after ``within`` seconds."""
    async with asyncio.timeout(within):
        while not predicate():  # noqa: ASYNC110  # it is about another process
            await asyncio.sleep(look_every)


async def settled(plane: PlaneProcess) -> None:
    """Return once nothing was written for some time: files cannot be read while they are rotated."""
    size = -1
    while size != (size := size_of(plane.audit)):  # noqa: ASYNC110  # it is about another process
        await asyncio.sleep(SETTLED_AFTER)


def readies(audit: Path) -> int:
    """Count the READYs that have arrived. A session whose socket is reset before READY is lost, and no fault."""
    return (b"\n" + audit.read_bytes()).count(b"\nREADY\t") if audit.exists() else 0


async def caught_up(
    plane: PlaneProcess, sim: Simulator, within: float, *, ends: Sequence[int] = (), disowned: Collection[str] = ()
) -> Account:
    """Wait until everything that was sent is in the file, or time is up; nothing new may happen meanwhile.

    ``ends``: lines at the end of each life but the present one; ``disowned`` as for `compare`.
    """
    give_up_at = time.monotonic() + within
    while True:
        await settled(plane)
        try:
            rows = read_rows(plane.audit)
        except FileNotFoundError:  # a rotation began meanwhile: not settled after all
            if time.monotonic() > give_up_at:
                raise
            continue
        account = compare(sim.sent_documents, split(rows, ends), disowned=disowned)
        if account.sound or time.monotonic() > give_up_at:
            return account
