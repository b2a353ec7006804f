"""Write numbers, ages and times as the page's script does (script/words.js)."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from discorder.http.page.markup import Html, element

DASH = "–"  # not known
NO_SHARD = "no shard is here"
_RECENT_SECONDS = 20 * 3600  # an older time is ambiguous without its day
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def fixed(number: float, digits: int) -> str:
    """Write a number with ``digits`` decimals, a half rounded up as in JavaScript."""
    return str(Decimal(number).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def count(number: float | None) -> str:
    """Write a whole number with commas."""
    return DASH if number is None else f"{math.floor(number + 0.5):,}"


def some(number: int | None, noun: str) -> str:
    """Write a number of things."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def rate(per_s: float | None) -> str:
    """Write a rate per second."""
    return fixed(per_s, 1) if per_s is not None and per_s < 100 else count(per_s)


def span(seconds: float | None) -> str:
    """Write a length of time, the coarser the longer it is."""
    if seconds is None:
        return DASH
    s = max(0.0, seconds)
    if s < 10:
        return f"{fixed(s, 1)} s"
    if s < 120:
        return f"{math.floor(s)} s"
    if s < 7200:
        return f"{math.floor(s / 60)} min"
    if s < 172800:
        return f"{math.floor(s / 3600)} h {math.floor(s % 3600 / 60)} min"
    return f"{math.floor(s / 86400)} d {math.floor(s % 86400 / 3600)} h"


def millis(seconds: float | None) -> str:
    """Write a length of time below a second in milliseconds."""
    return f"{math.floor(seconds * 1000 + 0.5)} ms" if seconds is not None and seconds < 1 else span(seconds)


def bytes_text(number: int | None) -> str:
    """Write a size."""
    if number is None:
        return DASH
    if number < 1024:
        return f"{number} B"
    for limit, name, digits in ((1 << 20, "KiB", 0), (1 << 30, "MiB", 0)):
        if number < limit:
            return f"{fixed(number / (limit >> 10), digits)} {name}"
    return f"{fixed(number / (1 << 30), 2)} GiB"


def no_latency(doc: dict[str, Any]) -> str:
    """Say why there is no latency of a heartbeat: no shard serves, or none has had an answer yet."""
    return "none answered yet" if any(shard["healthy"] for shard in doc["shards"]) else "no connection"


def percent(ratio: float | None) -> str:
    """Write a share of 1."""
    return DASH if ratio is None else f"{fixed(ratio * 100, 0)} %"


def time_of_day(iso: str) -> str:
    """Cut the time of day out of a moment."""
    return iso[11:19]


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds between two moments."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def stamp(iso: str, at: str, until: int = 19) -> str:
    """Write a time of day, with the day if it is not recent at ``at``."""
    if seconds_between(iso, at) < _RECENT_SECONDS:
        return iso[11:until]
    return f"{int(iso[8:10])} {_MONTHS[int(iso[5:7]) - 1]} {iso[11:16]}"


def moment(iso: str, at: str) -> Html:
    """Return a time of day as an element."""
    return _time(iso, stamp(iso, at))


def since(iso: str | None, at: str, before: str = "", after: str = "") -> Html | str:
    """Return the age of a moment as an element."""
    return DASH if iso is None else _time(iso, f"{before}{span(seconds_between(iso, at))}{after}")


def until(iso: str, at: str, before: str, late: str) -> Html:
    """Return a countdown as an element; ``late``: its text when the time has come."""
    left = seconds_between(at, iso)
    return _time(iso, late if left <= 0.05 else f"{before}{span(left)}")


def _time(iso: str, text: str) -> Html:
    return element("time", {"datetime": iso, "title": f"{iso[:10]} {time_of_day(iso)} UTC"}, text)
