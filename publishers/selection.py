"""Which events a publisher wants, decided once per event name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from discorder.publishers.options import EventSelection
from discorder.wire import Event

REMEMBERED_NAMES = 1_024  # Discord has about 80; the bound is for a peer that invents names


def selector(selection: EventSelection) -> Callable[[Sequence[Event]], Sequence[Event]] | None:
    """A function that leaves of a batch what ``selection`` wants; None when that is everything.

    Case does not matter: event names are in capitals.
    """
    include = [pattern.upper() for pattern in selection.include]
    exclude = [pattern.upper() for pattern in selection.exclude]
    if "*" in include and not exclude:
        return None
    known: dict[str, bool] = {}

    def wanted(name: str) -> bool:
        verdict = known.get(name)
        if verdict is None:
            verdict = _matches(name, include) and not _matches(name, exclude)
            if len(known) < REMEMBERED_NAMES:
                known[name] = verdict
        return verdict

    return lambda events: [event for event in events if wanted(event.type)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
