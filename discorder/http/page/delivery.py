"""Write publishers, the bus, the identify budget, sessions, the history, the log and the foot of the page."""

from __future__ import annotations

import json
import re
from typing import Any

from discorder.http.page.looks import Document, is_late, state_mark
from discorder.http.page.markup import (
    ARROW,
    Attributes,
    Child,
    Html,
    element,
    icon,
    markup,
    pair,
    path_text,
    small,
    span,
    strong,
    table,
)
from discorder.http.page.words import (
    DASH,
    bytes_text,
    count,
    fixed,
    millis,
    moment,
    percent,
    rate,
    since,
    some,
    stamp,
    time_of_day,
    until,
)
from discorder.http.page.words import span as span_text

HISTORY_ROWS = 40

Row = list[tuple[Child, str | None]]

_PUBLISHER_HEADS = (
    *(("Publisher", None), ("State", None), ("Promise", None), ("Behind", "num"), ("Queue", "num")),
    *(("Per s", "num"), ("Accepted", "num"), ("Dropped", "num"), ("Last error", None)),
)


def publishers(doc: Document) -> Html:
    """Return the table of publishers."""
    return table("pub-rows", "pub-t", _PUBLISHER_HEADS, map(_publisher, doc["publishers"]))


def _publisher(one: Document) -> Row:
    queued: Child = count(one["queued_events"])
    if one["queued_events"]:
        queued = [queued, small(bytes_text(one["queued_bytes"]))]
    dropped: Child = count(one["dropped"])
    if one["dropped"]:
        dropped = [span("bad", dropped), small(f"in {some(one['gaps'], 'gap')}")]
    error = [one["last_error"], small(some(one["failures"], "failure"))] if one["last_error"] else None
    late = is_late(one)
    kind = one["kind"] if one["process"] is None else f"{one['kind']}, process {one['process']}"
    return [
        ([strong(one["name"]), small(kind)], None),
        (state_mark(one["state"], late=late), "tight"),
        ("required" if one["required"] else "best effort", "tight"),
        (millis(one["lag_s"]), "num bad" if late else "num"),
        (queued, "num"),
        (rate(one["per_s"]), "num"),
        (count(one["accepted"]), "num"),
        (dropped, "num"),
        (error, None if error else "none"),
    ]


# -------------------------------------------------------------------------------------------------- the bus


def bus_caption(bus: Document) -> str:
    """Return how many clients are connected, and where."""
    return f"{count(len(bus['connections']))} connected at {bus['bind'].replace('tcp://', '')}"


def bus_table(doc: Document) -> Html:
    """Return the table of the bus's clients."""
    connections = doc["bus"]["connections"] if doc["bus"] else []
    heads = (("Subscriber", None), ("Connected for", "num"))
    rows: list[Row] = [[(one["peer"], None), (since(one["since"], doc["at"]), "num")] for one in connections]
    return table("bus-rows", "bus-t", heads, rows, "")


def topics(bus: Document) -> list[Html]:
    """Return the topics that are subscribed to."""
    return [
        element("li", None, _topic(one["topic"]), f" × {one['count']}" if one["count"] > 1 else None)
        for one in bus["subscriptions"]
    ]


def topics_caption(bus: Document) -> str:
    """Return what the list of topics is."""
    return "Subscribed to, by all of them together" if bus["subscriptions"] else "Nobody has subscribed to anything"


def bus_pairs(bus: Document) -> list[Html]:
    """Return the figures of the bus."""
    ring = bus["ring"]
    kept = f"{bytes_text(ring['bytes'])} of {bytes_text(ring['bytes_limit'])}"
    return [
        pair("Replay reaches back", span_text(ring["span_s"]), kept),
        pair("Replays", count(bus["replays_total"]), f"{count(bus['replays_running'])} running"),
        pair("Commands", count(bus["commands_total"]), some(bus["refused_keys_total"], "refused key")),
    ]


def _topic(topic: str) -> str:
    if topic == "":
        return "everything"
    return f"{topic}*" if topic.endswith("_") else topic


# -------------------------------------------------------------------------------------------------- budget and sessions


def meter(doc: Document) -> Html:
    """Return the budget as a bar: what may be spent, what is held in reserve, what is used."""
    budget = doc["budget"]
    total, remaining = budget["total"], budget["remaining"] or 0
    if not total:
        return element("p", {"class": "muted"}, "Not looked up yet.")
    reserved = min(budget["reserve"] or 0, remaining)

    def share(number: int) -> str:
        return f"{fixed(number / total * 100, 1)}%"

    free = share(remaining - reserved)
    label = f"{remaining} of {total} IDENTIFYs are left, {budget['reserve']} of them in reserve"
    bars = [
        element("rect", {"class": "left", "width": free, "height": 22}),
        element("rect", {"class": "reserve", "x": free, "width": share(reserved), "height": 22}),
    ]
    keys = [
        _key("left", f"{count(budget['spendable'])} may be spent"),
        _key("reserve", f"{count(reserved)} in reserve"),
        span("key", f"{count(total - remaining)} of {count(total)} used"),
    ]
    attributes: Attributes = {"class": "meter", "width": "100%", "height": 22, "role": "img", "aria-label": label}
    return markup(element("svg", attributes, *bars), element("p", {"class": "keys meter-key"}, *keys))


def _key(kind: str, words: str) -> Html:
    sample = element("rect", {"class": kind, "width": 22, "height": 8})
    return span("key", element("svg", {"viewBox": "0 0 22 8", "aria-hidden": "true"}, sample), words)


def budget_pairs(doc: Document) -> list[Html]:
    """Return the figures of the budget."""
    budget, at = doc["budget"], doc["at"]
    reset, last, cold = budget["reset_at"], budget["last_turn_at"], budget["cold_start"]
    foreign: Child = "none by others"
    if budget["foreign"]:
        foreign = span("bad", f"{count(budget['foreign'])} by another process")
    turn: Child = until(last, at, "the last in ", "the last now") if last else "no shard"
    return [
        pair(
            "Renewed",
            until(reset, at, "in ", "due now") if reset else DASH,
            f"{time_of_day(reset)} UTC" if reset else None,
        ),
        pair("Spent here", count(budget["spent_here"]), foreign),
        pair("Waiting", count(budget["waiting"]), turn),
        pair("A cold start costs", count(cold["identifies"]), f"and takes {span_text(cold['seconds'])}"),
    ]


def session_pairs(doc: Document) -> list[Html]:
    """Return the figures of the sessions and of their store."""
    sessions, store, totals = doc["sessions"], doc["store"], doc["totals"]
    saved = sessions["last_saved_at"]
    lost = "no gap"
    if totals["gaps"]:
        lost = f"{'gap' if totals['gaps'] == 1 else 'gaps'}, announced to readers"
    return [
        pair("Held", count(sessions["held"]), f"of {count(len(doc['shards']))}"),
        pair(
            "Stored", count(sessions["stored"]), since(saved, doc["at"], "saved ", " ago") if saved else "not saved yet"
        ),
        pair("Store", state_mark(store["state"]), store["reason"] or path_text(store["path"] or "in memory")),
        pair("Resumed", count(totals["resumes"]), "since start"),
        pair("Restarted", count(totals["restarts"]), "since start"),
        pair("Lost", count(totals["gaps"]), lost),
    ]


# -------------------------------------------------------------------------------------------------- history, log, foot

_HISTORY_HEADS = (
    *(("At", None), ("Shard", "num"), ("Transition", None), ("Trigger", None)),
    *(("Cause", None), ("Was there for", "num")),
)


def history(doc: Document) -> Html:
    """Return the table of the last transitions."""
    rows = (_step(step, doc["at"]) for step in doc["transitions"][:HISTORY_ROWS])
    return table("history-rows", "history-t", _HISTORY_HEADS, rows)


def _step(step: Document, at: str) -> Row:
    return [
        (moment(step["at"], at), "tight"),
        (str(step["shard"]), "num"),
        ([step["source"], ARROW, strong(step["target"])], "tight"),
        (step["trigger"], "tight"),
        (step["cause"], None if step["cause"] else "none"),
        (millis(step["spent_s"]), "num"),
    ]


_LOG_LOOKS = {"DEBUG": ("stop", None), "INFO": ("stop", None), "WARNING": ("park", "note")}


def log(doc: Document) -> list[Html]:
    """Return the lines of the log."""
    return [_line(line, doc["at"]) for line in doc["log"]]


def _line(line: Document, at: str) -> Html:
    tone, shape = _LOG_LOOKS.get(line["level"], ("bad", "alert"))
    fields = "".join(f" {key}={_value(value)}" for key, value in line["fields"].items())
    return element(
        "li",
        None,
        element("time", {"datetime": line["at"]}, stamp(line["at"], at, 23)),
        span(f"with {tone}", icon(shape) if shape else None, line["level"]),
        span("m", line["message"], span("f", fields)),
    )


def _value(value: Any) -> str:
    if isinstance(value, str) and not re.search(r"\s", value):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def where(doc: Document) -> Html:
    """Return the host, the version and the age of the process, and how many it supervises."""
    process = doc["process"]
    several = f" · {len(process['processes'])} processes" if process["processes"] else ""
    return markup(f"{process['host']} · {process['version']}{several} · up ", since(process["started_at"], doc["at"]))


def _member(one: Document) -> str:
    use = f", {bytes_text(one['memory_bytes'])}, {percent(one['cpu_ratio'])} of a CPU" if one["memory_bytes"] else ""
    return f"process {one['number']}: {one['headline']}{use}"


def foot(doc: Document) -> list[Html]:
    """Return the facts of the process."""
    process = doc["process"]
    files = process["open_files"]
    parts = (
        f"Discorder {process['version']}",
        f"Python {process['python']}",
        f"process {process['pid']} on {process['host']}",
        f"{bytes_text(process['memory_bytes'])} memory",
        f"{percent(process['cpu_ratio'])} of a CPU",
        f"{count(files['used'])} of {count(files['limit'])} files",
        process["compression"],
        "all times UTC",
        *map(_member, process["processes"]),
    )
    return [element("span", None, part) for part in parts]
