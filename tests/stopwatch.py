"""Measure so that a bound holds on a busy machine, too: time without waiting for a CPU, and CPU time as a multiple."""

from __future__ import annotations

import json
import time
from pathlib import Path

DOCUMENT = [{"id": str(number), "name": f"shard {number}", "rates": [number / 7] * 5} for number in range(1_000)]


def reference_ms() -> float:
    """Return the CPU time, in milliseconds, of work that is always the same: what a bound on CPU time is a multiple of.

    A CPU that shares its caches and its core with other work needs longer for it, as for what is measured.
    """
    durations = []
    for _ in range(9):
        began = time.thread_time()
        json.loads(json.dumps(DOCUMENT))
        durations.append(time.thread_time() - began)
    return min(durations) * 1000


class Stopwatch:
    """Real time since now, less what the threads of a process were kept waiting while they could run (Linux's schedstat).

    A timer that is too long shows; other programs on the machine do not. ``pid``: of another process than this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._threads = Path(f"/proc/{pid or 'self'}/task")
        self._began = time.monotonic()
        self._waited_before = self._waited()

    @property
    def seconds(self) -> float:
        """Return the seconds so far, at least 0."""
        waited = max(0.0, self._waited() - self._waited_before)
        return max(0.0, time.monotonic() - self._began - waited)

    def _waited(self) -> float:
        nanoseconds = 0
        for thread in self._threads.glob("*/schedstat"):
            try:
                nanoseconds += int(thread.read_text().split()[1])
            except OSError:  # the thread ended meanwhile
                continue
        return nanoseconds / 1e9
