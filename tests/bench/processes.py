"""Whole processes under measurement: started, pinned, and asked for the CPU time and memory that the kernel accounts to them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self, cast

ROOT = Path(__file__).parent.parent.parent
ANSWER_SECONDS = 120.0
SETTLE_SECONDS = 0.05  # between two looks at a process that is to come to rest
AT_REST = 0.002  # CPU seconds in that time below which it has
WORK_CPU, FEED_CPU = 1, 0  # the measured processes, and what feeds or follows them


class Failed(Exception):
    """A process under measurement ended or did not answer."""


class Process:
    """One process that answers lines of JSON on its standard input with lines on its standard output."""

    def __init__(self, command: Sequence[str], *, cpu: int, name: str = "", **environment: str) -> None:
        self.name = name or command[0]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        cpus = os.sched_getaffinity(0)
        if len(cpus) > 1:
            os.sched_setaffinity(self.pid, {sorted(cpus)[cpu]})

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, order: object = None) -> dict[str, Any]:
        """Write one line and return the answer."""
        pipe = cast("IO[bytes]", self._process.stdin)
        try:
            pipe.write(json.dumps(order).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError as error:
            msg = f"{self.name} has ended (exit code {self._process.poll()})"
            raise Failed(msg) from error
        return self.answer()

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Return the next line. Raises Failed when there is none in time."""
        pipe = cast("IO[bytes]", self._process.stdout)
        ready, _, _ = select.select([pipe], [], [], seconds)
        line = pipe.readline() if ready else b""
        if not line:
            msg = f"{self.name} ended or did not answer within {seconds:g} s (exit code {self._process.poll()})"
            raise Failed(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all threads so far, from the kernel's clock of the process (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory(self, field: str = "VmHWM") -> int:
        """A field of /proc/PID/status in KiB; by default the largest resident set so far."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
        raise Failed(self.name)

    def come_to_rest(self) -> float:
        """Wait until the process does nothing more, and return its CPU seconds: what it still had to drain is in the bill."""
        before = self.cpu_seconds
        for _ in range(200):
            time.sleep(SETTLE_SECONDS)
            now = self.cpu_seconds
            if now - before < AT_REST:
                return now
            before = now
        return before

    def close(self) -> None:
        """Stop the process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def python(module: str, *arguments: str, cpu: int, **environment: str) -> Process:
    """Start a module of this package."""
    return Process([sys.executable, "-m", f"tests.bench.{module}", *arguments], cpu=cpu, name=module, **environment)
