"""Judge the shards together, in sentences: well, starting, impaired, down or stopping, why, and since when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from discorder.sessions import SPACING
from discorder.statemachine import State
from discorder.statemachine.health import judge_loop
from discorder.status.document import Level, ShardCountsPart, VerdictPart
from discorder.status.times import WallTimes
from discorder.tracking.shard_tracker import ShardTracker
from discorder.tracking.tracker import GatewayTracker

MOST_REASONS = 24  # in the document; a headline counts all of them
KEPT = "Discord keeps the missed events for some minutes and sends them after RESUME"
LOST = "events that come before READY are lost"

_DOES = {
    State.DISCONNECTED: "looks up the gateway",
    State.CONNECTING: "connects",
    State.IDENTIFYING: "identifies",
    State.RESUMING: "resumes",
    State.READY: "gets no answer to its heartbeats",
    State.UNHEALTHY: "has lost its connection",
    State.RESTARTING: "waits to connect again",
    State.STOPPING: "stops",
    State.EXITED: "has ended",
}
_TROUBLE = frozenset({Level.IMPAIRED, Level.DOWN})


def cause_of(shard: ShardTracker) -> str | None:
    """Return why a shard does not serve; None before its first failure and while it is Ready."""
    return shard.pause_reason or shard.cause


class Judge:
    """Gives the verdict on the shards of one plane, and remembers since when it holds."""

    def __init__(self, tracker: GatewayTracker, times: WallTimes, now: float) -> None:
        self._tracker = tracker
        self._times = times
        self._level = Level.STARTING
        self._since = now  # monotonic
        self._left_ready_at: float | None = None  # the first time since the last look

    def left_ready(self, now: float) -> None:
        """Note that a shard has left Ready."""
        if self._left_ready_at is None:
            self._left_ready_at = now

    def judge(self, now: float) -> tuple[Level, list[ShardTracker]]:
        """Judge, and note since when. Return the level and the shards that do not serve."""
        shards = self._tracker.shards
        ill = [shard for shard in shards if not shard.serves]
        level = _level(self._tracker, ill)
        if level is not self._level and not (level in _TROUBLE and self._level in _TROUBLE):
            self._since = self._began(level, now)
        self._level, self._left_ready_at = level, None
        return level, ill

    def verdict(self, now: float) -> VerdictPart:
        """Return the verdict for the document."""
        level, ill = self.judge(now)
        tracker, shards = self._tracker, self._tracker.shards
        headline, detail = _sentences(tracker, level, ill)
        by_state = Counter(shard.state for shard in shards)
        return VerdictPart(
            level=level,
            healthy=level is Level.WELL,
            headline=headline,
            detail=detail,
            since=self._times.at(self._since),
            reasons=_reasons(tracker, ill),
            shards=ShardCountsPart(
                total=len(shards), ready=len(shards) - len(ill), by_state={state: by_state[state] for state in State}
            ),
        )

    def _began(self, level: Level, now: float) -> float:
        """Return when the new level began: at the change of a shard's state, if that was the reason."""
        if level in _TROUBLE:
            return now if self._left_ready_at is None else self._left_ready_at
        if level is Level.WELL:
            entered = max((shard.entered_at for shard in self._tracker.shards), default=now)
            return entered if entered >= self._since else now  # else the event loop was the trouble
        return now


def _level(tracker: GatewayTracker, ill: Sequence[ShardTracker]) -> Level:
    if tracker.terminate_flag:
        return Level.STOPPING
    if not ill:
        return Level.IMPAIRED if judge_loop(tracker.loop_lag.now) else Level.WELL
    awaited = [shard for shard in ill if shard.paused_since is None]
    if tracker.look_up_trouble is None and awaited and all(_starts(shard) for shard in awaited):
        return Level.STARTING
    return Level.DOWN if len(ill) == len(tracker.shards) else Level.IMPAIRED


def _starts(shard: ShardTracker) -> bool:
    """Return whether a shard is on its way to its first session, and nothing has failed."""
    return not shard.was_ready and not shard.attempts and not shard.parked and shard.state is not State.EXITED


def _reasons(tracker: GatewayTracker, ill: Sequence[ShardTracker]) -> list[str]:
    several = len(tracker.shards) > 1
    reasons = []
    for shard in ill[:MOST_REASONS]:
        reason = cause_of(shard) or f"the shard {_DOES[shard.state]}"
        reasons.append(f"shard {shard.shard_id}: {reason}" if several else reason)
    if ill and tracker.look_up_trouble is not None:
        reasons.append(tracker.plane.redact(tracker.look_up_trouble))
    return [*reasons, *judge_loop(tracker.loop_lag.now)]


# ---------------------------------------------------------------- headline and detail


def _sentences(tracker: GatewayTracker, level: Level, ill: Sequence[ShardTracker]) -> tuple[str, str]:
    count = len(tracker.shards)
    match level:
        case Level.STOPPING:
            seconds = tracker.config.session.drain_timeout
            return "Stopping", f"The shards close their sockets; publishers then get {seconds:g} s for what is queued."
        case Level.WELL:
            return _well(count)
        case Level.STARTING:
            return _starting(tracker, ill)
        case _ if not ill:
            return (
                "Not well: the event loop is held up",
                "All shards are Ready, but something in this process blocks the loop; the log names it.",
            )
        case _ if count == 1:
            return f"Not well: {_one(ill[0])}", _loss(ill)
        case _ if level is Level.DOWN:
            return f"Not well: none of the {count} shards serves", _loss(ill)
    do, rest = ("does" if len(ill) == 1 else "do"), count - len(ill)
    others = "The other one serves." if rest == 1 else f"The other {rest} serve."
    return f"Not well: {len(ill)} of {count} shards {do} not serve", f"{_loss(ill)} {others}"


def _well(count: int) -> tuple[str, str]:
    if not count:
        return "Well: no shard is here", "This process runs a shard once one is started: `discorder shards start ID`."
    if count == 1:
        return "Well: the shard serves", "It is Ready, and its heartbeats are answered."
    return f"Well: all {count} shards serve", "Each is Ready, and its heartbeats are answered."


def _starting(tracker: GatewayTracker, ill: Sequence[ShardTracker]) -> tuple[str, str]:
    count = len(tracker.shards)
    resuming = sum(shard.session is not None for shard in ill)
    if count == 1:
        how = "It resumes a stored session." if resuming else "It opens a new session."
        return f"Starting: the shard {_DOES[ill[0].state]}", how
    headline = f"Starting: {count - len(ill)} of {count} shards serve"
    concurrency = tracker.identify_queue.concurrency
    if concurrency is None:
        return headline, "The look-up of the gateway has not answered yet."
    identifying = len(ill) - resuming
    parts = [f"{resuming} resume a stored session"] if resuming else []
    if identifying:
        parts.append(f"{identifying} identify, at most {concurrency} at a time, {SPACING:g} s apart")
    return headline, f"{'; '.join(parts)}."


def _one(shard: ShardTracker) -> str:
    if shard.paused_since is not None:
        return "the shard is paused"
    return "the shard is parked" if shard.parked else f"the shard {_DOES[shard.state]}"


def _loss(ill: Sequence[ShardTracker]) -> str:
    """Say what happens to the events that shards miss. "It" and "they" are the shards that the headline counts."""
    paused = [shard for shard in ill if shard.paused_since is not None]
    away = [shard for shard in ill if shard.paused_since is None]
    parked = sum(shard.parked for shard in away)
    ended = sum(shard.state is State.EXITED for shard in away)
    it = len(ill) == 1
    sentences = []
    if away:
        sentences.append(_kept(away, among="Of those that are not paused, " if paused else ""))
    if paused:
        sentences.append(_paused(paused, everyone=not away))
    if parked:
        sentences.append(f"{_are(parked, it=it)} parked: the identify gate grants no IDENTIFY for now.")
    if ended:
        sentences.append(f"{_have(ended, it=it)} ended and will not come back without a restart.")
    return " ".join(sentences)


def _kept(away: Sequence[ShardTracker], among: str) -> str:
    kept = sum(shard.session is not None for shard in away)
    if 0 < kept < len(away):
        start = among or "Of them, "
        return f"{start}{kept} keep{'s' if kept == 1 else ''} the session: {KEPT}. The others need an IDENTIFY."
    if among:
        return f"{among}each keeps its session: {KEPT}." if kept else f"{among}none has a session: {LOST}."
    if len(away) == 1:
        return f"Its session is kept: {KEPT}." if kept else f"It has no session: {LOST}."
    return f"Their sessions are kept: {KEPT}." if kept else f"They have no sessions: {LOST}."


def _paused(paused: Sequence[ShardTracker], *, everyone: bool) -> str:
    """Say who paused them and that a session ends in a long pause."""
    whom = ("it" if len(paused) == 1 else "them") if everyone else f"{len(paused)} of them"
    if all(shard.session is None for shard in paused):
        return f"An operator has paused {whom}: {LOST}."
    return (
        f"An operator has paused {whom}. Discord keeps a session for some minutes only: "
        "after a longer pause, events are lost and an IDENTIFY is needed."
    )


def _are(count: int, *, it: bool) -> str:
    return "It is" if it else "One is" if count == 1 else f"{count} are"


def _have(count: int, *, it: bool) -> str:
    return "It has" if it else "One has" if count == 1 else f"{count} have"
