"""Hold dispatches that overtook a replay until they are next."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

MAX_EVENTS = 2_000  # if more events overtake a replay, its sequences have gaps
MAX_BYTES = 16 * 1024 * 1024  # of their data


class Dispatch(NamedTuple):
    """Hold one op 0: type, sequence, ``d``, and the time of receipt (aware)."""

    kind: str
    seq: int
    data: bytes
    received_at: datetime


class ReplayHold:
    """Keep dispatches by sequence, each once."""

    def __init__(self) -> None:
        self._kept: dict[int, Dispatch] = {}
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Return whether a limit is exceeded."""
        return len(self._kept) > MAX_EVENTS or self._bytes > MAX_BYTES

    def put(self, dispatch: Dispatch) -> bool:
        """Keep ``dispatch``. Return False if one with its sequence is kept already."""
        if dispatch.seq in self._kept:
            return False
        self._kept[dispatch.seq] = dispatch
        self._bytes += len(dispatch.data)
        return True

    def pop(self, seq: int) -> Dispatch | None:
        """Remove and return the dispatch with the sequence ``seq``; None if it is not kept."""
        dispatch = self._kept.pop(seq, None)
        if dispatch is not None:
            self._bytes -= len(dispatch.data)
        return dispatch

    def pop_all(self) -> list[Dispatch]:
        """Remove and return all dispatches, in the order of the sequences."""
        kept = sorted(self._kept.values(), key=lambda dispatch: dispatch.seq)
        self.clear()
        return kept

    def clear(self) -> None:
        """Remove all dispatches."""
        self._kept.clear()
        self._bytes = 0
