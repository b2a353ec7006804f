"""Judge the shards of all processes together, in the sentences of their own verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from discorder.statemachine import State
from discorder.status.document import Level, Moment, ShardCountsPart, ShardPart, VerdictPart
from discorder.status.verdict import MOST_REASONS


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one process."""

    number: int
    level: Level
    detail: str
    reasons: Sequence[str]
    since: Moment


def merge_verdicts(judged: Sequence[Judged], shards: Sequence[ShardPart]) -> VerdictPart:
    """Return the verdict on all ``shards``. ``judged``: the verdict on each process."""
    bad = [one for one in judged if one.level is not Level.WELL]
    ready = sum(shard.healthy for shard in shards)
    level = _level(bad, ready, len(shards))
    by_state = Counter(shard.state for shard in shards)
    return VerdictPart(
        level=level,
        healthy=level is Level.WELL,
        headline=_headline(level, ready, len(shards), bad),
        detail=" ".join(f"Process {one.number}: {one.detail}" for one in bad) or _well(len(judged)),
        since=max(one.since for one in judged) if level is Level.WELL else min(one.since for one in bad),
        reasons=[f"process {one.number}: {reason}" for one in bad for reason in one.reasons][:MOST_REASONS],
        shards=ShardCountsPart(total=len(shards), ready=ready, by_state={state: by_state[state] for state in State}),
    )


def _level(bad: Sequence[Judged], ready: int, total: int) -> Level:
    levels = {one.level for one in bad}
    if not bad:
        return Level.WELL
    if Level.STOPPING in levels:
        return Level.STOPPING
    if levels == {Level.STARTING}:
        return Level.STARTING
    return Level.IMPAIRED if ready or total == 0 else Level.DOWN


def _headline(level: Level, ready: int, total: int, bad: Sequence[Judged]) -> str:
    match level:
        case Level.WELL:
            return f"Well: all {total} shards serve"
        case Level.STOPPING:
            return "Stopping"
        case Level.STARTING:
            return f"Starting: {ready} of {total} shards serve"
        case Level.DOWN:
            return f"Not well: none of the {total} shards serves"
    if ready == total:
        return f"Not well: the event loop of process {bad[0].number} is held up"
    ill = total - ready
    return f"Not well: {ill} of {total} shards {'does' if ill == 1 else 'do'} not serve"


def _well(processes: int) -> str:
    return f"Each is Ready, and its heartbeats are answered. They run in {processes} processes."
