"""Run blocking work in a daemon thread, so that work that hangs does not delay the end of the process.

The event loop joins its default executor at shutdown, and a call that hangs there cannot be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T], name: str) -> T:
    """Run ``work`` in a thread called ``name``; return what it returns, or raise its error.

    A cancelled caller leaves the thread behind.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: Exception | None) -> None:
        if answer.done():  # the caller was cancelled meanwhile
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # None only beside an error, or where T allows it

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  # the caller gets every error
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and no caller waits
            loop.call_soon_threadsafe(deliver, result, failure)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await answer
    finally:
        if not answer.cancelled():
            thread.join()  # it has nothing left to do
