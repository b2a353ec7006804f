"""Say how a shard looks and in which order shards stand, as the page's script does (script/looks.js)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from discorder.http.page.markup import Html, icon, small, span, strong
from discorder.http.page.words import span as span_text
from discorder.http.page.words import until

Document: TypeAlias = "dict[str, Any]"
"""The status document or a part of it, as every other reader gets it."""

NOTHING_NEXT = "Nothing by itself"


class Look(NamedTuple):
    """A word, the name of a sign, and the class of a colour."""

    word: str
    shape: str
    tone: str


_LOOKS: Mapping[str, tuple[str, str]] = {
    "Disconnected": ("ring", "wait"),
    "Connecting": ("dots", "wait"),
    "Identifying": ("dots", "wait"),
    "Resuming": ("loop", "rec"),
    "Ready": ("check", "good"),
    "Unhealthy": ("alert", "bad"),
    "Restarting": ("loop", "rec"),
    "Stopping": ("square", "wait"),
    "Exited": ("square", "bad"),
}
_BEFORE_NEXT = {"planned": "in ", "deadline": "within ", "estimate": "in about "}
_GOOD_STATES = frozenset({"healthy", "ok"})
_PASSING_STATES = frozenset({"opening", "probing", "closed", "in memory", "set aside"})


def look(shard: Document) -> Look:
    """Return the look of a shard. Paused, parked and silent shards have a word of their own."""
    if shard["paused"]:
        return Look("Paused", "pause", "park")
    if shard["parked"]:
        return Look("Parked", "pause", "park")
    if shard["state"] == "Ready" and not shard["healthy"]:
        return Look("Silent", "alert", "bad")
    return Look(shard["state"], *_LOOKS.get(shard["state"], ("ring", "wait")))


def marked(shard: Document) -> Html:
    """Return the state of a shard with its sign."""
    mark = look(shard)
    return span(f"with {mark.tone}", icon(mark.shape), strong(mark.word))


def worst_first(shards: Iterable[Document]) -> list[Document]:
    """Order shards: gone for good, parked or paused, failing again and again, away, waiting for the first turn, serving."""
    return sorted(shards, key=lambda shard: (_rank(shard), _place_in_rank(shard), shard["id"]))


_EXITED, _HELD, _FAILING, _AWAY, _WAITING, _SERVING = 0, 1, 2, 3, 4, 9


def _rank(shard: Document) -> int:
    if shard["state"] == "Exited":
        return _EXITED
    if shard["parked"] or shard["paused"]:
        return _HELD
    if shard["healthy"]:
        return _SERVING
    if shard["attempt"] >= 3:
        return _FAILING
    first = shard["generation"] <= 1 and shard["state"] in {"Disconnected", "Connecting"}
    return _WAITING if first or shard["state"] == "Identifying" else _AWAY


def _place_in_rank(shard: Document) -> str:
    if shard["healthy"]:
        return ""
    place: str = shard["next"]["at"] if _rank(shard) == _WAITING and shard["next"] else shard["since"]
    return place


def when_next(following: Document, at: str) -> Html:
    """Return the time of the next step: a plan is kept, a deadline ends the waiting, an estimate is neither."""
    late = "now" if following["kind"] == "planned" else "any moment"
    return until(following["at"], at, _BEFORE_NEXT[following["kind"]], late)


def next_detail(following: Document) -> Html:
    """Return the back-off, the attempt and the costs of the next step."""
    parts = []
    if following["backoff_s"] is not None:
        parts.append(f"back-off {span_text(following['backoff_s'])}")
    if following["attempt"]:
        parts.append(f"attempt {following['attempt']}")
    if following["identifies"]:
        parts.append(f"costs {following['identifies']} IDENTIFY")
    elif following["purpose"] == "resume":
        parts.append("costs no IDENTIFY")
    return small(" · ".join(parts))


def state_mark(state: str, *, late: bool = False) -> Html:
    """Return the state of a publisher or of the store with its sign."""
    tone, shape = "bad", "alert"
    if state in _GOOD_STATES and not late:
        tone, shape = "good", "check"
    elif state in _PASSING_STATES:
        tone, shape = "rec", "loop"
    return span(f"with {tone}", icon(shape), strong(state))


def is_good(publisher: Document) -> bool:
    """Return whether a publisher works and is in time."""
    return publisher["state"] in _GOOD_STATES and not is_late(publisher)


def is_late(publisher: Document) -> bool:
    """Return whether a publisher is more than ten seconds behind."""
    late: bool = publisher["lag_s"] > 10
    return late


def moment_of(age: float | None, at: str) -> str | None:
    """Return the moment that was ``age`` seconds before ``at``."""
    if age is None:
        return None
    return (
        (datetime.fromisoformat(at) - timedelta(seconds=age)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
