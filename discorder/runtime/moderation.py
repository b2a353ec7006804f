"""Batch the input of a busy event loop, of a control plane or a bot, as a network card moderates its interrupts.

At thousands of events per second, waking up for each one costs more than the event. While input keeps coming, the loop sleeps
for up to its pause before it polls again, and then reads all input that has arrived. An idle loop is never delayed.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
READER_PAUSE_MS = 4.0  # longer than the control plane's, which has heartbeats to send

_Ready = list[tuple[selectors.SelectorKey, int]]


class ModeratedSelector(selectors.DefaultSelector):
    """Sleep for ``pause`` seconds before each poll, as long as each poll finds input at once.

    Input that follows other input within the pause begins a busy time; the first poll after a sleep that finds no input ends it.
    A timer that is due earlier shortens the sleep, and ready callbacks prevent it. A pause of 0 switches moderation off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pause = 0.0
        self._busy = False
        self._found_at = 0.0

    def select(self, timeout: float | None = None) -> _Ready:
        """Return the ready files, as `selectors.BaseSelector.select` does."""
        if not self._busy or (timeout is not None and timeout <= 0):
            return self._note(super().select(timeout))
        rest = self.pause if timeout is None else min(self.pause, timeout)
        time.sleep(rest)
        ready = super().select(0)
        if ready:
            return ready
        self._busy = False
        return self._note(super().select(None if timeout is None else timeout - rest))

    def _note(self, ready: _Ready) -> _Ready:
        """Detect whether a busy time begins."""
        if ready and self.pause:
            now = time.monotonic()
            self._busy = self._busy or now - self._found_at < self.pause
            self._found_at = now
        return ready


class ModeratedLoop(asyncio.SelectorEventLoop):
    """Run asyncio's loop on a `ModeratedSelector`; moderation is off until `moderate` is called."""

    def __init__(self) -> None:
        self._moderated = ModeratedSelector()
        super().__init__(self._moderated)

    def moderate(self, milliseconds: float) -> None:
        """Delay input by at most ``milliseconds`` while it comes faster than that; 0 = never."""
        self._moderated.pause = milliseconds / 1000


def moderate(milliseconds: float) -> None:
    """Moderate the running loop if it is a `ModeratedLoop`; do not change the loop of an embedding program."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, ModeratedLoop):
        loop.moderate(milliseconds)


def run_moderated(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in a `ModeratedLoop`, as `asyncio.run` does in its loop."""
    with asyncio.Runner(loop_factory=ModeratedLoop) as runner:
        return runner.run(main)


def run_bot(main: Coroutine[Any, Any, T], *, moderation_ms: float = READER_PAUSE_MS) -> T:
    """Run ``main`` to its end and return what it returns, as `asyncio.run` does, at less CPU per event.

    While events come faster than one in ``moderation_ms`` milliseconds, the loop waits that long before it reads again, and then
    reads all that has arrived. A quiet bot is never delayed; 0 switches it off. Raises what ``main`` raises, and RuntimeError
    inside a running loop.
    """

    async def moderated() -> T:
        moderate(moderation_ms)
        return await main

    return run_moderated(moderated())
