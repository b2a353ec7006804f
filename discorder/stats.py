"""Count the events of a control plane; format objects with one line per field, as in Discorder.jl."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from typing import Final

LATENCY_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


@dataclass(slots=True)
class Latencies:
    """Count durations by size. ``counts[i]``: those up to ``LATENCY_BOUNDS[i]``, the last one: all longer ones."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    seconds: float = 0.0  # the sum

    def __repr__(self) -> str:
        count = sum(self.counts)
        mean = f", mean={self.seconds / count:.3f} s" if count else ""
        return f"Latencies(count={count}{mean})"

    @classmethod
    def total(cls, parts: Sequence[Latencies]) -> Latencies:
        """Return the sum of several."""
        if not parts:
            return cls()
        return cls(
            [sum(column) for column in zip(*(one.counts for one in parts), strict=True)],
            sum(one.seconds for one in parts),
        )

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class GatewayStats:
    """Counts since the start, over all restarts; the first six names are Discorder.jl's.

    ``event_count``: payloads after Hello (dispatches, ACKs, op 1, 7, 9, unknown ones). ``published_event_count``: dispatches
    passed to the fan-out, each once. ``heartbeat_sent_count``: written to the socket; ``heartbeat_received_count``: ACKs.
    ``drop_count``: events that publishers dropped; ``gap_count``: lost sessions, and runs of dropped events.
    Times are aware, UTC; ``ready_time`` is that of the last READY. ``stale_count``: dropped reports of an older
    generation; ``unexpected_count``: triggers that the table ignores or rejects, ``rejected_count``: those that it rejects.
    ``states_entered``: transitions by their target state. ``heartbeat_latency``: from a heartbeat to its ACK.
    ``command_sent_count``: the bot's commands, written to the socket; ``command_refused_count``: those that a shard
    refused (too large, no room, not ready in time).
    ``odd_frames``: frames that broke the protocol and were tolerated or dropped, by kind (discorder/shard/oddities.py).
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
    rejected_count: int = 0
    command_sent_count: int = 0
    command_refused_count: int = 0
    heartbeat_latency: Latencies = field(default_factory=Latencies)
    states_entered: Counter[str] = field(default_factory=Counter)
    unknown_opcodes: Counter[int] = field(default_factory=Counter)
    odd_frames: Counter[str] = field(default_factory=Counter)
    events_by_type: Counter[str] = field(default_factory=Counter)

    def __repr__(self) -> str:
        return listing("GatewayStats", ((f.name, getattr(self, f.name)) for f in fields(self)))

    @classmethod
    def total(cls, parts: Sequence[GatewayStats]) -> GatewayStats:
        """Return the sum over shards: counts added, the first start, the last READY."""
        total = cls()
        if not parts:
            return total
        for name, column in zip(_COUNTS, zip(*map(attrgetter(*_COUNTS), parts), strict=True), strict=True):
            setattr(total, name, sum(column))
        for name in _COUNTERS:
            counter = getattr(total, name)
            for part in filter(None, map(attrgetter(name), parts)):  # most are empty
                counter.update(part)
        total.heartbeat_latency = Latencies.total([part.heartbeat_latency for part in parts])
        total.start_time = min((part.start_time for part in parts if part.start_time is not None), default=None)
        total.ready_time = max((part.ready_time for part in parts if part.ready_time is not None), default=None)
        return total


_COUNTS: Final = tuple(one.name for one in fields(GatewayStats) if one.type == "int")
_COUNTERS: Final = tuple(one.name for one in fields(GatewayStats) if one.default_factory is Counter)


def listing(title: str, listed: Iterable[tuple[str, object]]) -> str:
    """Format a structure as Discorder.jl does: one line per field, with the types of numbers."""
    lines = [title]
    for name, value in listed:
        shown = value if value is not None else "–"
        if isinstance(value, Counter):
            shown = dict(value.most_common(5))
        kind = f"{type(value).__name__} " if isinstance(value, int) else ""
        lines.append(f"  {name}: {kind}{shown}")
    return "\n".join(lines)
