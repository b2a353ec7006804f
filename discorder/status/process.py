"""Describe the process for the document: version, memory, CPU, open files, lag of the event loop."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import socket
import time
from importlib.metadata import version
from pathlib import Path

from discorder.clock import Clock
from discorder.runtime.watchdog import LoopLag
from discorder.status.document import LoopLagPart, OpenFilesPart, ProcessPart, moment

MEASURE_EVERY = 5.0  # seconds


class ProcessState:
    """Measures the process every five seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = moment(clock.now())
        self._version = version("discorder")
        self._measured_at = clock.monotonic()
        self._cpu = time.process_time()
        self._cpu_ratio: float | None = None
        self._measure()

    def sample(self) -> None:
        """Measure if the last measurement is old enough."""
        passed = self._clock.monotonic() - self._measured_at
        if passed < MEASURE_EVERY:
            return
        cpu = time.process_time()
        self._cpu_ratio = round(max(0.0, cpu - self._cpu) / passed, 4)
        self._cpu, self._measured_at = cpu, self._clock.monotonic()
        self._measure()

    def describe(self, compression: str, lag: LoopLag) -> ProcessPart:
        """Return the process as last measured."""
        return ProcessPart(
            version=self._version,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            python=platform.python_version(),
            compression=compression,
            loop_lag_s=LoopLagPart(now=round(lag.now, 4), worst=round(lag.worst, 4)),
            memory_bytes=self._memory,
            cpu_ratio=self._cpu_ratio,
            open_files=self._open_files,
            processes=[],
        )

    def _measure(self) -> None:
        self._memory = _resident_bytes()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open_files = OpenFilesPart(used=_open_files(), limit=None if limit == resource.RLIM_INFINITY else limit)


def _resident_bytes() -> int | None:
    """Return the memory of the process; None on a system without /proc, where only its maximum is known."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def _open_files() -> int | None:
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path("/dev/fd").iterdir()) - 1  # the listing has a descriptor of its own
    return None
