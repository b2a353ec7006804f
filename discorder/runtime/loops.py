"""Await a coroutine on another event loop, since a control plane may run in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from discorder.errors import NotRunning

T = TypeVar("T")


async def on_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await ``coroutine`` on ``loop``, from any event loop. Cancelling cancels ``coroutine``.

    Raises `NotRunning` if ``loop`` is closed.
    """
    if loop is asyncio.get_running_loop():
        return await coroutine
    if loop.is_closed():
        coroutine.close()
        msg = "the control plane has ended"
        raise NotRunning(msg)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
