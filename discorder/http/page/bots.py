"""Write the bots of the façade: who is connected, how far behind each is, and who is away."""

from __future__ import annotations

from discorder.http.page.looks import Document, is_late
from discorder.http.page.markup import Child, Html, icon, small, span, strong, table
from discorder.http.page.words import DASH, count, millis, since, some
from discorder.status.shard_ranges import shard_ranges

Row = list[tuple[Child, str | None]]

_HEADS = (
    *(("Bot", None), ("State", None), ("Shards", None), ("Connected for", None), ("Behind", "num")),
    *(("Identified", "num"), ("Resumed", "num"), ("Op 9", "num")),
)


def bots_caption(facade: Document) -> str:
    """Return how many bots are connected, and where."""
    connected = sum(bot["sessions"] > 0 for bot in facade["bots"])
    return f"{count(connected)} of {count(len(facade['bots']))} connected at {facade['url'].replace('http://', '')}"


def bots_table(doc: Document) -> Html:
    """Return the table of the bots that may connect."""
    bots = doc["facade"]["bots"] if doc["facade"] else []
    return table("bot-rows", "bots-t", _HEADS, (_bot(bot, doc["at"]) for bot in bots))


def _bot(bot: Document, at: str) -> Row:
    late = is_late(bot)
    behind: Child = DASH
    if bot["sessions"]:
        behind = [millis(bot["lag_s"]), small(some(bot["lag_events"], "event"))] if bot["lag_events"] else "nothing"
    return [
        ([strong(bot["name"]), small(", ".join(bot["libraries"]))], None),
        (
            [_state(bot, late=late), small(bot["refused"]) if bot["refused"] else None],
            None if bot["refused"] else "tight",
        ),
        (_shards(bot), None),
        (_connected(bot, at), "tight"),
        (behind, "num bad" if late else "num"),
        (count(bot["identifies"]), "num"),
        (count(bot["resumes"]), "num"),
        (count(bot["invalid_sessions"]), "num"),
    ]


def _state(bot: Document, *, late: bool) -> Html:
    word, shape, tone = ("connected", "check", "good") if bot["sessions"] else ("not connected", "ring", "wait")
    if late or bot["refused"]:
        word, shape, tone = "behind" if late else "refused", "alert", "bad"
    return span(f"with {tone}", icon(shape), strong(word))


def _shards(bot: Document) -> Child:
    ranges = shard_ranges(bot["shards"]) or DASH
    return [ranges, small(some(bot["sessions"], "session"))] if bot["sessions"] > len(bot["shards"]) else ranges


def _connected(bot: Document, at: str) -> Child:
    if bot["since"] or not bot["seen_at"]:
        return since(bot["since"], at)
    return since(bot["seen_at"], at, "not for ")
