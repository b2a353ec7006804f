"""Measure seconds without those in which a process waited for a CPU: a bound in seconds holds on a busy machine, too."""

from __future__ import annotations

import time
from pathlib import Path


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
