"""Collect the notes for the document, each with the time at which it was first seen."""

from __future__ import annotations

from discorder.sessions import Budget
from discorder.status.document import NotePart
from discorder.status.times import WallTimes
from discorder.tracking.notes import Note, few_identifies, slow_loop
from discorder.tracking.tracker import GatewayTracker

SLOW_LOOP = 0.5  # seconds of lag that are noted, long before they hurt a session


class NoteTimes:
    """The notes of one plane, and since when each is there."""

    def __init__(self, tracker: GatewayTracker, times: WallTimes) -> None:
        self._tracker = tracker
        self._times = times
        self._since: dict[str, float] = {}  # title to monotonic second

    def look(self, now: float, budget: Budget | None) -> list[NotePart]:
        """Return the present notes. ``budget``: that of the tracker, now."""
        found = self._find(budget)
        self._since = {note.title: self._since.get(note.title, now) for note in found}
        redact = self._tracker.plane.redact
        return [
            NotePart(
                kind=note.kind,
                title=note.title,
                text=redact(note.text),
                since=self._times.at(self._since[note.title]),
            )
            for note in found
        ]

    def _find(self, budget: Budget | None) -> list[Note]:
        tracker = self._tracker
        found = list(tracker.noted)
        if budget is not None and budget.spendable < max(1, len(tracker.shards)):
            found.append(few_identifies(budget, len(tracker.shards)))
        if tracker.loop_lag.now >= SLOW_LOOP:
            found.append(slow_loop(tracker.loop_lag))
        return found
