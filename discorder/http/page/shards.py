"""Write the facts of a single shard, or a tile for each of many. Without JavaScript a tile is no button."""

from __future__ import annotations

from discorder.http.page.looks import Document, look, moment_of, when_next, worst_first
from discorder.http.page.markup import Child, Html, element, icon, pair, span
from discorder.http.page.words import DASH, NO_SHARD, count, millis, rate, since, some

_SHORT_NEXT = {
    "hello": "Hello",
    "resumed": "RESUMED",
    "ready": "READY",
    "identify": "IDENTIFY",
    "beat": "ACK",
    "verdict": "verdict",
    "look_up": "look-up",
    "stop": "close",
    "process": "start",
}


def shards_caption(doc: Document) -> str:
    """Return how many shards serve, or which one is shown."""
    shards = doc["shards"]
    if not shards:
        return NO_SHARD
    if len(shards) == 1:
        return f"shard {shards[0]['id']}"
    return f"{count(doc['verdict']['shards']['ready'])} of {count(len(shards))} serve, worst first"


def one_shard(doc: Document) -> Html | None:
    """Return the facts of the only shard; None if there are several."""
    return element("dl", {"class": "one"}, *_facts(doc["shards"][0], doc["at"])) if len(doc["shards"]) == 1 else None


def _facts(shard: Document, at: str) -> list[Html | None]:
    mark, counts, heartbeat = look(shard), shard["counts"], shard["heartbeat"]

    def ago(key: str, none: str) -> Child:
        then = moment_of(shard["ages_s"][key], at)
        return since(then, at, "", " ago") if then else none

    interval = heartbeat["interval_s"]
    return [
        pair("State", span(f"with {mark.tone}", icon(mark.shape), mark.word), since(shard["since"], at, "for ")),
        pair("Last frame", ago("frame", "no socket")),
        pair(
            "Last ACK",
            ago("ack", DASH),
            f"due every {interval:.17g} s" if interval and shard["ages_s"]["frame"] is not None else None,
        ),
        pair("Last event", ago("dispatch", DASH)),
        pair("Latency", millis(heartbeat["latency_s"])),
        pair("Events", f"{rate(shard['events_per_s'])} per s" if shard["state"] == "Ready" else "none"),
        pair(
            "Session", shard["session"] or "none", None if shard["seq"] is None else f"sequence {count(shard['seq'])}"
        ),
        pair(
            "Connection",
            f"no. {count(shard['generation'])}",
            ", ".join(
                some(counts[key], noun)
                for key, noun in (("restarts", "restart"), ("resumes", "resume"), ("identifies", "IDENTIFY"))
            ),
        ),
        pair("Guilds", count(shard["guilds"])),
        _why(shard),
    ]


def _why(shard: Document) -> Html | None:
    if not shard["cause"] or shard["healthy"]:
        return None
    return element("div", {"class": "wide"}, element("dt", None, "Why"), element("dd", None, shard["cause"]))


def tiles(doc: Document) -> tuple[list[Html], list[Html]]:
    """Return the tiles of the shards that do not serve, worst first, and of those that do."""
    if len(doc["shards"]) == 1:
        return [], []
    shards = worst_first(doc["shards"])
    ill = [_large_tile(shard, doc["at"]) for shard in shards if not shard["healthy"]]
    fine = [
        element("li", None, span("tile t-good", element("b", None, str(shard["id"]))))
        for shard in shards
        if shard["healthy"]
    ]
    return ill, fine


def _large_tile(shard: Document, at: str) -> Html:
    mark, following = look(shard), shard["next"]
    plan: Child = "by an operator" if shard["paused"] else shard["cause"] or " "
    if following:
        action, purpose = following["action"], following["purpose"]
        name = (purpose or "dial").upper() if action == "dial" else _SHORT_NEXT.get(action, action)
        plan = [name, " ", when_next(following, at)]
    number = element("b", None, span("vh", "Shard "), str(shard["id"]))
    content = (icon(mark.shape), number, " ", span("st", mark.word), " ", span("nx", plan))
    return element("li", None, span(f"tile t-{mark.tone}", *content))
