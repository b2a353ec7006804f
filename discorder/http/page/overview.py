"""Write the verdict, the notes, the vital signs and the table of the shards that do not serve."""

from __future__ import annotations

from discorder.http.page.looks import (
    NOTHING_NEXT,
    Document,
    is_good,
    is_late,
    look,
    marked,
    moment_of,
    next_detail,
    when_next,
    worst_first,
)
from discorder.http.page.markup import Child, Html, bar, element, icon, markup, pair, span, strong, table, unit
from discorder.http.page.words import DASH, NO_SHARD, count, millis, no_latency, rate, since, some, time_of_day, until
from discorder.http.page.words import span as span_text

VERDICT_ICONS = {"well": "check", "impaired": "alert", "down": "alert", "starting": "dots", "stopping": "square"}
MOST_PROBLEMS = 24  # the tiles show the others


def title(doc: Document) -> str:
    """Return the title of the browser's tab."""
    ready, total, level = doc["verdict"]["shards"]["ready"], doc["verdict"]["shards"]["total"], doc["verdict"]["level"]
    words = {"well": "Well", "starting": f"Starting {ready}/{total}", "stopping": "Stopping"}
    return f"{words.get(level, f'Not well {ready}/{total}')} · Discorder"


def lead(doc: Document) -> Html:
    """Return the sentence below the headline."""
    given = doc["verdict"]
    age = since(given["since"], doc["at"], "For ", " now.") if given["level"] == "well" else None
    return markup(given["detail"], " " if age else None, age)


def is_starting(doc: Document) -> bool:
    """Return whether several shards are on their way to their first Ready."""
    total: int = doc["progress"]["total"]
    return doc["verdict"]["level"] == "starting" and total > 1


def progress(doc: Document) -> Html | None:
    """Return the bar of the start."""
    ready, total = doc["progress"]["ready"], doc["progress"]["total"]
    return bar(ready / total, "bar", f"{ready} of {total} shards ready") if is_starting(doc) else None


def answers(doc: Document) -> list[Html]:
    """Return why, since when, and what happens next: for a single shard, or for the start."""
    if len(doc["shards"]) == 1 and not doc["shards"][0]["healthy"]:
        return _answers_of_one(doc, doc["shards"][0])
    return _answers_of_start(doc) if is_starting(doc) else []


def _answers_of_one(doc: Document, shard: Document) -> list[Html]:
    at, cause, following = doc["at"], shard["cause"], shard["next"]
    began = next((step["cause"] for step in doc["transitions"] if step["source"] == "Ready"), None)
    began = f"It began with: {began}" if began and cause and began != cause else None
    plan: Child = NOTHING_NEXT
    if following:
        plan = [following["text"], " ", when_next(following, at), next_detail(following)]
    began_at = doc["verdict"]["since"]
    why = [pair("Why", cause, began)] if cause else []
    return [
        *why,
        pair("Since", since(began_at, at), f"{time_of_day(began_at)} UTC, {look(shard).word} for now"),
        pair("What happens next", plan),
    ]


def _answers_of_start(doc: Document) -> list[Html]:
    at, waiting, eta = doc["at"], doc["budget"]["waiting"], doc["progress"]["eta_s"]
    began = doc["verdict"]["since"]
    due = None if eta is None else moment_of(-eta, at)
    return [
        pair(
            "Still to identify", count(waiting), "shards wait for their turn" if waiting else "all IDENTIFYs are sent"
        ),
        pair("Since", since(began, at), f"{time_of_day(began)} UTC"),
        pair(
            "All ready",
            until(due, at, "in about ", "any moment") if due else "not known yet",
            "by the identify buckets",
        ),
    ]


def notes(doc: Document) -> list[Html]:
    """Return what is worth a look but hurts no session now."""
    return [
        element(
            "li",
            None,
            icon("note"),
            element("p", None, strong(f"{note['title']}. "), note["text"]),
            since(note["since"], doc["at"], "for "),
        )
        for note in doc["notes"]
    ]


# -------------------------------------------------------------------------------------------------- vital signs


def vitals(doc: Document) -> list[Html]:
    """Return the six vital signs."""
    budget, lag, per_s = doc["budget"], doc["process"]["loop_lag_s"], doc["flows"]["events_per_s"][-1]
    spendable = "none may be spent" if budget["spendable"] == 0 else f"{count(budget['spendable'])} may be spent"
    return [
        _serving(doc),
        pair("Events", [rate(per_s), unit(" per s")], f"{count(doc['totals']['events'])} since start"),
        _heartbeat(doc),
        _publishers(doc),
        pair("IDENTIFYs left", [count(budget["remaining"]), unit(f" of {count(budget['total'])}")], spendable),
        pair("Event loop", millis(lag["now"]), f"lag; worst {millis(lag['worst'])}"),
    ]


def _serving(doc: Document) -> Html:
    ready, total = doc["verdict"]["shards"]["ready"], doc["verdict"]["shards"]["total"]
    missing = total - ready
    bad = "bad" if missing > 0 and doc["verdict"]["level"] != "starting" else None
    who = f"{count(missing)} {'is' if missing == 1 else 'are'} not" if missing else "all of them"
    if total == 1 and doc["shards"]:
        who = look(doc["shards"][0]).word
    value = [element("span", {"class": bad}, count(ready)), unit(f" of {count(total)}")]
    return pair("Shards serving", value if total else DASH, who if total else NO_SHARD)


def _heartbeat(doc: Document) -> Html:
    shards = doc["shards"]
    latencies = sorted(one["heartbeat"]["latency_s"] for one in shards if one["heartbeat"]["latency_s"] is not None)
    if not latencies:
        return pair("Heartbeat", DASH, no_latency(doc))
    answered = moment_of(shards[0]["ages_s"]["ack"], doc["at"]) if len(shards) == 1 else None
    note = since(answered, doc["at"], "answered ", " ago") if answered else f"slowest {millis(latencies[-1])}"
    return pair("Heartbeat", millis(latencies[len(latencies) // 2]), note)


def _publishers(doc: Document) -> Html:
    publishers = doc["publishers"]
    troubled = [one for one in publishers if not is_good(one)]
    if not troubled:
        dropped = f"{some(doc['totals']['dropped'], 'event')} dropped"
        return pair("Publishers", [count(len(publishers)), unit(" in time")], dropped)
    first = troubled[0]
    how = f"{span_text(first['lag_s'])} behind" if is_late(first) else first["state"]
    number = [span("bad", count(len(troubled))), unit(f" of {len(publishers)} in trouble")]
    return pair("Publishers", number, f"{first['name']}: {how}")


# -------------------------------------------------------------------------------------------------- which shards

_HEADS = (
    ("Shard", None),
    ("State", None),
    ("Since", None),
    ("Why", None),
    ("What happens next", None),
    ("When", "num"),
)


def troubled_shards(doc: Document) -> list[Document]:
    """Return the shards that the table names, worst first; none for a single shard or during a start."""
    if len(doc["shards"]) == 1 or doc["verdict"]["level"] == "starting":
        return []
    return worst_first(shard for shard in doc["shards"] if not shard["healthy"])


def problems(doc: Document) -> Html:
    """Return the table of the shards that do not serve: why, and what happens next."""
    at, shards = doc["at"], troubled_shards(doc)[:MOST_PROBLEMS]
    return table("problem-rows", "problems-t", _HEADS, (_problem(shard, at) for shard in shards))


def _problem(shard: Document, at: str) -> list[tuple[Child, str | None]]:
    following = shard["next"]
    silent = moment_of(shard["ages_s"]["unanswered_beat"], at) if shard["state"] == "Ready" else None
    return [
        (strong(str(shard["id"])), "tight"),
        (marked(shard), "tight"),
        (since(silent or shard["since"], at), "tight"),
        (shard["cause"] or DASH, None),
        ([following["text"], next_detail(following)] if following else NOTHING_NEXT, None),
        (when_next(following, at) if following else DASH, "num"),
    ]
