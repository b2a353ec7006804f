"""Write numbers and times as the commands show them."""

from __future__ import annotations

from datetime import datetime

DAY = 24  # hours


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1,000 shards``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """Return a time of ``seconds`` in its two largest units; a negative one is 0 s."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 2 * DAY:
        return f"{hours // DAY} d {hours % DAY} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short_span(seconds: float) -> str:
    """Return `span`, with a tenth of a second below ten."""
    return f"{max(0.0, seconds):.1f} s" if seconds < 9.95 else span(seconds)


def size(number: int) -> str:
    """Return a number of bytes in the unit that keeps it short."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def moment(at: datetime, now: datetime) -> str:
    """Return ``2026-11-26 06:12 UTC (in 3 h 5 min)``."""
    return f"{at:%Y-%m-%d %H:%M} UTC (in {span((at - now).total_seconds())})"
