"""Counters of a control plane, and the seed's way to show a structure, line by line. Nothing here counts by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime


@dataclass(slots=True)
class GatewayStats:
    """Counts since the start, over all restarts; the first six names are the seed's.

    ``event_count``: payloads after Hello (dispatches, ACKs, op 1, 7, 9, unknown ones). ``published_event_count``: dispatches
    handed to the fan-out, once each. ``heartbeat_sent_count``: written to the socket; ``heartbeat_received_count``: ACKs.
    ``drop_count``: events that publishers dropped; ``gap_count``: lost sessions, and runs of dropped events.
    Times are aware, UTC; ``ready_time`` is that of the last READY. ``stale_count``: reports of an older generation that were
    dropped; ``unexpected_count``: triggers that the table ignores or rejects. ``command_sent_count``: the bot's commands,
    written to the socket; ``command_refused_count``: those that a shard did not take (too large, no room, not ready in time).
    """

    start_time: datetime | None = None
    ready_time: datetime | None = None
    event_count: int = 0
    published_event_count: int = 0
    heartbeat_sent_count: int = 0
    heartbeat_received_count: int = 0
    restart_count: int = 0
    resume_count: int = 0
    identify_count: int = 0
    drop_count: int = 0
    gap_count: int = 0
    stale_count: int = 0
    unexpected_count: int = 0
    command_sent_count: int = 0
    command_refused_count: int = 0
    unknown_opcodes: Counter[int] = field(default_factory=Counter)
    events_by_type: Counter[str] = field(default_factory=Counter)

    def __repr__(self) -> str:
        return listing("GatewayStats", ((f.name, getattr(self, f.name)) for f in fields(self)))

    @classmethod
    def total(cls, parts: Sequence[GatewayStats]) -> GatewayStats:
        """The sum over shards: counts added, the first start, the last READY."""
        total = cls()
        for name in (f.name for f in fields(cls)):
            values = [getattr(part, name) for part in parts]
            if name.endswith("_time"):
                present = [value for value in values if value is not None]
                chosen = (min if name == "start_time" else max)(present, default=None)
                setattr(total, name, chosen)
            else:
                setattr(total, name, sum(values, start=type(getattr(total, name))()))
        return total


def listing(title: str, listed: Iterable[tuple[str, object]]) -> str:
    """The seed's way to show a struct: one line per field, with its type."""
    lines = [title]
    for name, value in listed:
        shown = value if value is not None else "–"
        if isinstance(value, Counter):
            shown = dict(value.most_common(5))
        kind = f"{type(value).__name__} " if isinstance(value, int) else ""
        lines.append(f"  {name}: {kind}{shown}")
    return "\n".join(lines)
