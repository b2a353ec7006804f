"""Reach a running control plane from outside its loop, and cancel it gracefully."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from discorder.errors import NotRunning, NotStarted
from discorder.logs import logger

T = TypeVar("T")

ANSWER_SECONDS = 10.0


class RunHandle:
    """The loop and the milestones of one run: ``opened``, ``ready``, ``stopping``, ``ended``. Made on its loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.opened = asyncio.Event()
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

    def call(self, act: Callable[[], T]) -> T:
        """Call ``act`` on the loop and return its result. Another thread blocks meanwhile, for `ANSWER_SECONDS` at most.

        Raises what ``act`` raises, and `NotRunning`, without calling ``act``, when the run has ended or the loop does not answer.
        """
        if _running_loop() is self.loop and not self.ended.is_set():
            return act()
        answer: Future[T] = Future()
        self.on_loop(lambda: _answer(answer, act))
        wait([answer], ANSWER_SECONDS)
        if answer.cancel():
            msg = (
                f"the control plane did not answer within {ANSWER_SECONDS:g} s: its event loop is blocked or has ended"
            )
            raise NotRunning(msg)
        return answer.result()

    async def wait_ready(self) -> None:
        """Wait until every shard that is not paused has been Ready. Raises `NotStarted` when the run ends before."""
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
        work.cancel()  # has no effect on a task that is done
        await asyncio.gather(work, stopping, return_exceptions=True)
        if not work.cancelled():
            work.result()


async def finish_gracefully(work: asyncio.Task[None], stop: Callable[[], None], hurry: Callable[[], None]) -> None:
    """Await ``work``. On cancellation call ``stop``, on another one ``hurry``; wait for the end, then raise CancelledError."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        asked = stop
        while not work.done():
            asked()
            asked = hurry
            with contextlib.suppress(asyncio.CancelledError):  # raised again below
                await asyncio.wait([work])
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.opt(exception=error).warning("The control plane ended with an error while it was cancelled")
        raise


def _answer(answer: Future[T], act: Callable[[], T]) -> None:
    """Put the result of ``act`` into ``answer``, unless its caller has given up."""
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(act())
    except Exception as error:  # noqa: BLE001  # raised in the calling thread
        answer.set_exception(error)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
