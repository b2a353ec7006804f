"""Ending a worker thread without ever blocking the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


async def finish(worker: ThreadPoolExecutor, last: Callable[[], object]) -> None:
    """Run ``last`` in ``worker`` after all that is queued there, and join its thread.

    Cancelled, this returns at once, and the thread does the same work by itself and ends.
    """
    joined = False
    try:
        await asyncio.get_running_loop().run_in_executor(worker, last)
        joined = True  # it is idle: joining takes no time
    finally:
        worker.shutdown(wait=joined)
