"""Keep what façades in processes of their own report of their bots, beside the bots of the control plane's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, datetime
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from discorder.clock import Clock
from discorder.config.facade import is_client_name
from discorder.facade.clients import REAL
from discorder.tracking.facade_status import FacadeClientStatus, FacadeSessionStatus, FacadeStatus

SILENT_SECONDS = 15.0  # after which a report is dropped; one comes every 5 s at least
MOST_FACADES = 16
MOST_ROWS = 4_096  # sessions, and clients, of one façade
LONGEST_TEXT = 200  # characters

_JOINED: Mapping[str, Callable[[Iterable[Any]], Any]] = (
    MappingProxyType(  # of a client's fields; of the others the maximum
        {"sessions": sum, "identifies": sum, "resumes": sum, "invalid_sessions": sum, "away_s": min}
    )
)
_decode = msgspec.json.Decoder(FacadeStatus).decode


class _Report(NamedTuple):
    status: FacadeStatus
    at: float  # monotonic seconds


class FacadeReports:
    """The newest report of each façade, by the text that names its process. `take` is called on the loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pieces: dict[str, list[FacadeStatus]] = {}  # of the reports that are not complete
        self._reports: dict[str, _Report] = {}  # replaced as a whole, so that threads may read it
        self._seen_at = clock.monotonic()  # the last report; until there is one, the start

    def take(self, door: str, part: int, parts: int, status: bytes) -> None:
        """Take one piece of a report. Raises ValueError for a wrong one; its report then has to begin again."""
        pieces = self._pieces.pop(door, []) if part else []
        if len(pieces) != part or part >= parts:
            msg = f"part {part} of {parts} does not follow on the one before it; begin again with part 0"
            raise ValueError(msg)
        pieces = [*pieces, _checked(status)]
        if max(sum(len(one.sessions) for one in pieces), sum(len(one.clients) for one in pieces)) > MOST_ROWS:
            msg = f"more than {MOST_ROWS:,} sessions or clients"
            raise ValueError(msg)
        known = self._present()
        if door not in known and len(known) >= MOST_FACADES:
            msg = f"more than {MOST_FACADES} façades report"
            raise ValueError(msg)
        if len(pieces) < parts:
            self._pieces[door] = pieces
            if len(self._pieces) > MOST_FACADES:
                del self._pieces[next(iter(self._pieces))]  # the oldest
            return
        whole = FacadeStatus(
            pieces[0].url,
            tuple(chain.from_iterable(one.sessions for one in pieces)),
            tuple(chain.from_iterable(one.clients for one in pieces)),
        )
        self._seen_at = self._clock.monotonic()
        self._reports = {**known, door: _Report(whole, self._seen_at)}

    def joined_to(self, own: FacadeStatus) -> FacadeStatus:
        """Return ``own``, of the façade in this process, with what the others report. Thread-safe."""
        present = self._present()
        if not present:
            return own if own.url is not None else FacadeStatus(None, absent_s=self._clock.monotonic() - self._seen_at)
        facades = [one for one in (own, *(one.status for one in present.values())) if one.url is not None]
        sessions = (
            dataclasses.replace(session, url=facade.url or "") for facade in facades for session in facade.sessions
        )
        return FacadeStatus(
            next((one.url for one in facades), None),
            tuple(sorted(sessions, key=lambda one: (one.client, one.shard))),
            _join_clients([one.clients for one in facades]),
        )

    def _present(self) -> Mapping[str, _Report]:
        oldest = self._clock.monotonic() - SILENT_SECONDS
        return {door: report for door, report in self._reports.items() if report.at >= oldest}


def _join_clients(facades: Sequence[Iterable[FacadeClientStatus]]) -> tuple[FacadeClientStatus, ...]:
    """Return one row for each bot: façades with one configuration know the same bots."""
    rows: dict[str, list[FacadeClientStatus]] = {}
    for client in chain.from_iterable(facades):
        rows.setdefault(client.name, []).append(client)
    return tuple(FacadeClientStatus(**dict(_joined(of_one))) for of_one in rows.values())


def _joined(rows: Sequence[FacadeClientStatus]) -> Iterable[tuple[str, Any]]:
    for field in dataclasses.fields(FacadeClientStatus):
        values = [value for row in rows if (value := getattr(row, field.name)) is not None]
        yield field.name, _JOINED.get(field.name, max)(values) if values else None


def _checked(status: bytes) -> FacadeStatus:
    """Decode one piece. Raises ValueError."""
    found = _decode(status)
    for name in (*(one.client for one in found.sessions), *(one.name for one in found.clients)):
        if name != REAL and not is_client_name(name):
            msg = f"{name[:LONGEST_TEXT]!r} is not the name of a client"
            raise ValueError(msg)
    rows: tuple[FacadeSessionStatus | FacadeClientStatus, ...] = (*found.sessions, *found.clients)
    for row in rows:
        for field in dataclasses.fields(row):
            _check_value(field.name, getattr(row, field.name))
    if found.url is None or not found.url.startswith("http://"):
        msg = "url must be that of a façade that listens, such as http://127.0.0.1:7000"
        raise ValueError(msg)
    _check_value("url", found.url)
    return found


def _check_value(name: str, value: object) -> None:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        msg = f"{name} has more than {LONGEST_TEXT} characters"
    elif isinstance(value, datetime) and not MINYEAR < value.year < MAXYEAR:
        msg = f"{name} is {value}, which is out of range"
    elif isinstance(value, datetime) and value.tzinfo is None:
        msg = f"{name} has no time zone"
    elif isinstance(value, int | float) and not 0 <= value < 2**63:
        msg = f"{name} is {value}, which is out of range"
    elif isinstance(value, tuple):
        for part in value:
            _check_value(name, part)
        return
    else:
        return
    raise ValueError(msg)
