"""End a worker thread without blocking the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


async def finish(worker: ThreadPoolExecutor, last: Callable[[], object]) -> None:
    """Run ``last`` in ``worker`` after all queued work, and join its thread.

    A cancellation ends only the wait: the thread still does this work and ends.
    """
    joined = False
    try:
        await asyncio.get_running_loop().run_in_executor(worker, last)
        joined = True  # the thread is idle: joining takes no time
    finally:
        worker.shutdown(wait=joined)
