"""What happened in a run, line by line: its fingerprint, and the transcript of a failure."""

from __future__ import annotations

import hashlib
from collections import deque

KEPT = 4_000  # lines of a transcript


class Trace:
    """Every line goes into the digest, the last ones are kept. It holds nothing that differs between two equal runs."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.count = 0

    def note(self, at: float, who: str, what: str) -> None:
        """``at`` in virtual seconds; ``who`` did it."""
        line = f"{at:14.4f}  {who:<12}  {what}"
        self._digest.update(line.encode())
        self.lines.append(line)
        self.count += 1

    @property
    def digest(self) -> str:
        """Return a digest that is equal for equal runs only."""
        return self._digest.hexdigest()
