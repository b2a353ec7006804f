"""What every measured client has: a count, told on request, and arrival times where latency is measured."""

from __future__ import annotations

import json
import sys
import threading
import time


class Counter:
    """Counts events; a thread answers each line on standard input with ``{"events": …, "arrivals": …}``."""

    def __init__(self, *, arrivals: bool = False) -> None:
        self.events = 0
        self._arrivals: dict[int, float] | None = {} if arrivals else None
        threading.Thread(target=self._answer, daemon=True).start()

    def arrived(self, seq: int) -> None:
        """Count an event, and note when it came if latency is measured."""
        self.events += 1
        if self._arrivals is not None:
            self._arrivals[seq] = time.monotonic()

    def _answer(self) -> None:
        for _ in sys.stdin:
            sys.stdout.write(json.dumps({"events": self.events, "arrivals": self._arrivals}) + "\n")
            sys.stdout.flush()
