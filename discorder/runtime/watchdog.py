"""Measure the delay of the event loop, and log the stack of the code that blocks it.

A thread schedules a callback on the loop once a second. If the callback is late, the thread logs the stack of the loop's thread,
even if the loop stays blocked for ever. A block between two of these probes is not noticed.
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

PROBE_EVERY = 1.0
LATE_SECONDS = 0.5  # the least delay that is logged; a heartbeat this late is still in time
FRAMES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class LoopLag:
    """Hold the delays of the event loop in seconds: the last and the longest one, 0 before the first probe.

    ``waiting``: the age of a probe that has not run yet; 0 = there is none. ``stalls``: how often the loop was held up for
    `LATE_SECONDS` or longer.
    """

    last: float = 0.0
    worst: float = 0.0
    waiting: float = 0.0
    stalls: int = 0

    def __repr__(self) -> str:
        return f"LoopLag(last={self.last:.3f} s, worst={self.worst:.3f} s, waiting={self.waiting:.3f} s)"

    @property
    def now(self) -> float:
        """Return the current delay: the last one or ``waiting``, whichever is larger."""
        return max(self.last, self.waiting)


class Watchdog:
    """Watch the running loop from `start` to `stop`, both called on it. `lag` is thread-safe."""

    def __init__(self, *, every: float = PROBE_EVERY, late_after: float = LATE_SECONDS) -> None:
        self._every = every
        self._late_after = late_after
        self._last = self._worst = 0.0
        self._stalls = 0
        self._probed_at: float | None = None
        self._ran = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lag(self) -> LoopLag:
        """Return the delays so far."""
        probed_at = self._probed_at
        waiting = 0.0 if probed_at is None else time.monotonic() - probed_at
        return LoopLag(self._last, max(self._worst, waiting), waiting, self._stalls)

    def start(self) -> None:
        """Start the thread that watches the running loop."""
        loop, watched = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(
            target=self._watch, args=(loop, watched), name="discorder-watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and join it. Idempotent."""
        self._stopping.set()
        self._ran.set()
        if self._thread is not None:
            self._thread.join()
        self._probed_at = None

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        while not self._stopping.wait(self._every):
            self._ran.clear()
            # again, because a `stop` since the last check has just been cleared, and waits for this thread
            if self._stopping.is_set():
                return
            probed_at = self._probed_at = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._run_probe, probed_at)
            except RuntimeError:  # the loop is closed
                return
            if self._ran.wait(self._late_after):
                continue
            held_up_by = _stack(watched)
            logger.warning("The event loop is held up", seconds=self._late_after, held_up_by=held_up_by)
            self._ran.wait()

    def _run_probe(self, probed_at: float) -> None:
        """Record the delay. Runs on the loop."""
        self._probed_at = None
        self._last = time.monotonic() - probed_at
        self._worst = max(self._worst, self._last)
        if self._last > self._late_after:
            self._stalls += 1
            logger.warning("The event loop was held up", seconds=round(self._last, 3))
        self._ran.set()


def _stack(thread: int) -> list[str]:
    """Return the stack of ``thread``, the innermost call first; empty if it has ended."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001  # documented, and the only way to see another thread's stack
    if frame is None:
        return []
    ours = itertools.takewhile(lambda call: not _is_the_loops(call[0]), traceback.walk_stack(frame))
    summary = traceback.StackSummary.extract(ours, limit=FRAMES_SHOWN)
    return [f"{call.filename}:{call.lineno} in {call.name}: {call.line}" for call in summary]


def _is_the_loops(frame: FrameType) -> bool:
    """Return whether ``frame`` is the function of asyncio that calls the callbacks."""
    return frame.f_globals.get("__name__") == "asyncio.events"
