"""Run the long-lived tasks of a publisher: log an unexpected error, and restart the task."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from discorder.clock import Clock

FIRST_PAUSE = 1.0  # seconds until a failed task is restarted; doubles with each failure in a row up to
LONGEST_PAUSE = 60.0  # this; a task that ran for as long counts as working again

logger = logging.getLogger(__name__)


async def keep_running(name: str, body: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Await ``body()`` until it returns; when it raises, log the error under ``name`` and restart after a pause."""
    pause = FIRST_PAUSE
    while True:
        began = clock.monotonic()
        try:
            await body()
        except Exception:
            if clock.monotonic() - began >= LONGEST_PAUSE:
                pause = FIRST_PAUSE
            logger.exception("The task %s failed and begins again in %g s", name, pause)
        else:
            return
        await clock.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
