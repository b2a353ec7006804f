"""Merge the façades of several processes into one: each has a port of its own, and serves the bots on its shards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from discorder.status.document import BotPart, FacadePart
from discorder.status.facade import furthest_behind, listed_libraries


def merge_facades(facades: Sequence[FacadePart]) -> FacadePart | None:
    """Return the façades as one; None if there is none. ``url`` names all of them."""
    if not facades:
        return None
    by_name: dict[str, list[BotPart]] = {}
    for bot in chain.from_iterable(facade.bots for facade in facades):
        by_name.setdefault(bot.name, []).append(bot)
    return FacadePart(
        url=", ".join(facade.url for facade in facades),
        bots=[_bot(parts) for parts in by_name.values()],
        sessions=furthest_behind(chain.from_iterable(facade.sessions for facade in facades)),
    )


def _bot(parts: Sequence[BotPart]) -> BotPart:
    sessions = sum(one.sessions for one in parts)
    seen = [one.seen_at for one in parts if one.seen_at is not None]
    return BotPart(
        name=parts[0].name,
        libraries=listed_libraries(chain.from_iterable(one.libraries for one in parts)),
        sessions=sessions,
        shards=sorted(chain.from_iterable(one.shards for one in parts)),
        since=min((one.since for one in parts if one.since is not None), default=None),
        seen_at=None if sessions else max(seen, default=None),
        catch_up_s=parts[0].catch_up_s,
        lag_events=max(one.lag_events for one in parts),
        lag_s=max(one.lag_s for one in parts),
        identifies=sum(one.identifies for one in parts),
        resumes=sum(one.resumes for one in parts),
        invalid_sessions=sum(one.invalid_sessions for one in parts),
        refused=next((one.refused for one in parts if one.refused), ""),
    )
