"""Define the updates of the document that ``/events`` sends."""

from __future__ import annotations

from typing import ClassVar

from discorder.status.document import (
    BudgetPart,
    BusPart,
    Count,
    DocumentPart,
    EventTypePart,
    FacadePart,
    LogRecordPart,
    Moment,
    NotePart,
    OutagePart,
    ProcessPart,
    ProgressPart,
    PublisherPart,
    Rate,
    Seconds,
    SessionsPart,
    ShardPart,
    StorePart,
    TotalsPart,
    TransitionPart,
    VerdictPart,
)


class Update(DocumentPart):
    """The base of all updates: the keys of the document that have changed, and when."""

    event: ClassVar[str]
    at: Moment


class VerdictUpdate(Update):
    """Sent as ``verdict`` when it has changed."""

    event: ClassVar[str] = "verdict"
    verdict: VerdictPart
    progress: ProgressPart
    notes: list[NotePart]


class ShardsUpdate(Update):
    """Sent as ``shards`` with those that have changed, at most four times a second."""

    event: ClassVar[str] = "shards"
    shards: list[ShardPart]


class TransitionUpdate(Update):
    """Sent as ``transition`` for each one."""

    event: ClassVar[str] = "transition"
    transition: TransitionPart


class FlowUpdate(Update, rename={"from_": "from"}):
    """Sent as ``flow`` once a second. ``append``: a new point follows the last one; else it replaces the last one.

    ``from`` is the begin of the first point, as in the document, and ``total`` the events since the start.
    """

    event: ClassVar[str] = "flow"
    append: bool
    step_s: Count
    from_: Moment
    events_per_s: Rate | None
    median: Seconds | None
    worst: Seconds | None
    not_serving: list[OutagePart]
    total: Count
    event_types: list[EventTypePart]
    process: ProcessPart


class PublishersUpdate(Update):
    """Sent as ``publishers`` when something has changed, at most once a second."""

    event: ClassVar[str] = "publishers"
    publishers: list[PublisherPart]
    bus: BusPart | None


class FacadeUpdate(Update):
    """Sent as ``facade`` when something has changed, at most once a second."""

    event: ClassVar[str] = "facade"
    facade: FacadePart | None


class BudgetUpdate(Update):
    """Sent as ``budget`` when something has changed, at most once a second."""

    event: ClassVar[str] = "budget"
    budget: BudgetPart
    store: StorePart
    sessions: SessionsPart
    totals: TotalsPart


class LogUpdate(Update):
    """Sent as ``log`` with the new records, the newest first."""

    event: ClassVar[str] = "log"
    log: list[LogRecordPart]


class BeatUpdate(Update):
    """Sent as ``beat`` when nothing else was sent for a second."""

    event: ClassVar[str] = "beat"
