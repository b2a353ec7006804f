"""How long the event loop takes to answer, and what held it up.

A thread asks the loop once a second; while the answer is overdue it looks at what the loop's thread is doing and says so in the
log, even if the loop never comes back. A loop that is well costs one wake-up a second; a stall that fits between two questions
stays unseen. It must not touch anything of the loop's
but by `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from types import FrameType

from discorder.logs import logger

ASK_SECONDS = 1.0
PATIENCE_SECONDS = 0.5  # a beat that is so late is still in time; a loop that is so late is worth a look
FRAMES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class LoopLag:
    """Seconds that the event loop took to answer: at the last question, at the worst, and 0 = none was asked yet.

    ``waiting``: since the question that is not answered yet; 0 = it is answered.
    """

    last: float = 0.0
    worst: float = 0.0
    waiting: float = 0.0

    def __repr__(self) -> str:
        return f"LoopLag(last={self.last:.3f} s, worst={self.worst:.3f} s, waiting={self.waiting:.3f} s)"

    @property
    def now(self) -> float:
        """The lag as it is: that of the last answer, or the age of the question that waits, whichever is larger."""
        return max(self.last, self.waiting)


class Watchdog:
    """Watches the running loop from `start` to `stop`, both called on it. Reading `lag` is for every thread."""

    def __init__(self, *, every: float = ASK_SECONDS, patience: float = PATIENCE_SECONDS) -> None:
        self._every = every
        self._patience = patience
        self._last = self._worst = 0.0
        self._asked_at: float | None = None
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lag(self) -> LoopLag:
        """How the loop is doing."""
        asked_at = self._asked_at
        waiting = 0.0 if asked_at is None else time.monotonic() - asked_at
        return LoopLag(self._last, max(self._worst, waiting), waiting)

    def start(self) -> None:
        """Watch the loop that runs now, in a thread of its own."""
        loop, watched = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, watched), name="discorder-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for its end. Idempotent."""
        self._stopping.set()
        self._answered.set()
        if self._thread is not None:
            self._thread.join()
        self._asked_at = None

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        while not self._stopping.wait(self._every):
            self._answered.clear()
            # once more: what a `stop` since the last look had set is cleared, and the loop waits for this thread
            if self._stopping.is_set():
                return
            asked_at = self._asked_at = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._answer, asked_at)
            except RuntimeError:  # the loop was closed under us: nothing is left to watch
                return
            if self._answered.wait(self._patience):
                continue
            held_up_by = _stack(watched)
            logger.warning("The event loop is held up", seconds=self._patience, held_up_by=held_up_by)
            self._answered.wait()

    def _answer(self, asked_at: float) -> None:
        """On the loop: it has come round."""
        self._asked_at = None
        self._last = time.monotonic() - asked_at
        self._worst = max(self._worst, self._last)
        if self._last > self._patience:
            logger.warning("The event loop was held up", seconds=round(self._last, 3))
        self._answered.set()


def _stack(thread: int) -> list[str]:
    """What ``thread`` is doing, the innermost call first; empty when it is gone."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001  # documented, and the only way to see another thread's stack
    if frame is None:
        return []
    ours = itertools.takewhile(lambda call: not _is_the_loops(call[0]), traceback.walk_stack(frame))
    summary = traceback.StackSummary.extract(ours, limit=FRAMES_SHOWN)
    return [f"{call.filename}:{call.lineno} in {call.name}: {call.line}" for call in summary]


def _is_the_loops(frame: FrameType) -> bool:
    """Whether it calls the callback; what lies further out is asyncio's machinery and the program's start."""
    return frame.f_globals.get("__name__") == "asyncio.events"
