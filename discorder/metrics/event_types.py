"""Bound the number of event types that become labels: the names come from the gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_LABELS: Final = 128  # Discord has some 80 event types
OTHER: Final = "other"  # the label of all types without one of their own; no event type is in lower case
PLAIN: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class EventTypes:
    """Give a label to each of the first `MAX_LABELS` event types. A type keeps its label, so that no counter falls."""

    def __init__(self) -> None:
        self._labels: set[str] = set()
        self._others: set[str] = set()

    def labelled(self, counts: Mapping[str, int]) -> list[tuple[str, int]]:
        """Return (label, count) for ``counts`` by type, sorted, with the sum of all other types as the last one."""
        named, other = [], 0
        for kind, count in sorted(counts.items()):
            if kind in self._labels or self._admit(kind):
                named.append((kind, count))
            else:
                other += count
        return [*named, (OTHER, other)]

    def _admit(self, kind: str) -> bool:
        """Give ``kind`` a label if one is left. A type that was refused once was counted as other, and stays there."""
        if kind in self._others:
            return False
        admitted = len(self._labels) < MAX_LABELS and PLAIN.fullmatch(kind) is not None
        (self._labels if admitted else self._others).add(kind)
        return admitted
