"""Measure what a process does, not what its machine does beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.stopwatch import Stopwatch

pytestmark = pytest.mark.system


def test_a_wait_for_a_timer_counts_and_a_wait_for_a_cpu_does_not() -> None:
    """Two busy children on the CPU of this thread keep it waiting for two thirds of the time."""
    usual = os.sched_getaffinity(0)
    busy: list[subprocess.Popen[bytes]] = []
    os.sched_setaffinity(0, {min(usual)})
    try:
        busy += [subprocess.Popen((sys.executable, "-c", "while True: pass")) for _ in range(2)]
        watch, real, used = Stopwatch(), time.monotonic(), time.process_time()
        while time.process_time() - used < 0.1:
            pass
        kept_waiting, real = watch.seconds, time.monotonic() - real
    finally:
        for child in busy:
            child.kill()
            child.wait()
        os.sched_setaffinity(0, usual)
    assert kept_waiting < 0.2
    assert real > 0.2
    watch = Stopwatch()
    time.sleep(0.05)
    assert watch.seconds > 0.02
