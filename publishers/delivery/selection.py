"""Select the events and records that a publisher wants, once per name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from discorder.publishers.options import EventSelection
from discorder.records import PREFIX, RecordType
from discorder.wire import Event

REMEMBERED_NAMES = 1_024  # Discord has about 80; the bound is for a peer that invents names


def selector(selection: EventSelection) -> Callable[[Sequence[Event]], Sequence[Event]] | None:
    """Return a function that filters a batch by ``selection``; None if ``selection`` includes all events.

    Case does not matter: event names are in capitals.
    """
    include = [pattern.upper() for pattern in selection.include]
    exclude = [pattern.upper() for pattern in selection.exclude]
    if "*" in include and not exclude:
        return None

    @lru_cache(REMEMBERED_NAMES)
    def wanted(name: str) -> bool:
        return _matches(name, include) and not _matches(name, exclude)

    return lambda events: [event for event in events if wanted(event.type)]


def wants_record(selection: EventSelection, name: str, *, all_records: bool) -> bool:
    """Return whether a publisher with ``selection`` gets the control plane's records of this ``name``.

    It always gets a gap: no selection may hide a loss. With ``all_records``, other records are selected like events; without it,
    only by an included pattern that begins with DISCORDER_, because readers of events rely on their sequence.
    """
    if name == RecordType.GAP:
        return True
    include = [pattern.upper() for pattern in selection.include]
    if not all_records:
        include = [pattern for pattern in include if pattern.startswith(PREFIX)]
    return _matches(name, include) and not _matches(name, [pattern.upper() for pattern in selection.exclude])


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
