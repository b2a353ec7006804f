"""Awaiting what belongs to another event loop: a control plane may run in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from discorder.errors import NotRunning

T = TypeVar("T")


async def on_loop(loop: asyncio.AbstractEventLoop, wanted: Coroutine[Any, Any, T]) -> T:
    """Await ``wanted`` on the loop it belongs to, from whichever loop this one is; being cancelled cancels it there.

    Raises `NotRunning` when that loop is closed.
    """
    if loop is asyncio.get_running_loop():
        return await wanted
    if loop.is_closed():
        wanted.close()
        msg = "the control plane has ended"
        raise NotRunning(msg)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wanted, loop))
