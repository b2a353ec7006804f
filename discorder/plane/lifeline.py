"""How a running control plane is reached from outside its loop, and how whoever awaits it may be cancelled.

Must not: know shards, sessions or publishers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from discorder.errors import NotRunning, NotStarted
from discorder.logs import logger


class Lifeline:
    """The loop and the milestones of one run: ``ready``, ``stopping``, ``ended``. Made on the loop that it belongs to."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self.ended = asyncio.Event()

    def on_loop(self, act: Callable[[], None]) -> None:
        """Call ``act`` on the loop: now when this is that loop, else soon. Raises `NotRunning` when the run has ended."""
        if self.loop.is_closed() or self.ended.is_set():
            msg = "the control plane has ended"
            raise NotRunning(msg)
        if _running_loop() is self.loop:
            act()
        else:
            self.loop.call_soon_threadsafe(act)

    async def wait_ready(self) -> None:
        """Wait until every shard has been Ready. Raises `NotStarted` when the run ends before."""
        waits = [asyncio.create_task(self.ready.wait()), asyncio.create_task(self.ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self.ready.is_set():
            msg = "the control plane ended before it was ready"
            raise NotStarted(msg)

    async def unless_stopped(self, work: asyncio.Task[None]) -> None:
        """Await ``work``; a stop cancels it. Raises what ``work`` raised, nothing when it was cancelled by the stop."""
        stopping = asyncio.create_task(self.stopping.wait(), name="stopping")
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        work.cancel()  # without effect on what is done
        await asyncio.gather(work, stopping, return_exceptions=True)
        if not work.cancelled():
            work.result()


async def finish_gracefully(work: asyncio.Task[None], stop: Callable[[], None], hurry: Callable[[], None]) -> None:
    """Await ``work``. Being cancelled asks it to ``stop``, waits for its end, and is passed on then; once more: ``hurry``."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        asked = stop
        while not work.done():
            asked()
            asked = hurry
            with contextlib.suppress(asyncio.CancelledError):  # passed on below
                await asyncio.wait([work])
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.opt(exception=error).warning("The control plane ended with an error while it was cancelled")
        raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
