"""The verdict on a control plane: every shard's, and what they share. Reasons come from ages, never from a flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from discorder.statemachine.health import Ages, Verdict, judge_loop
from discorder.tracking.tracker import GatewayTracker


def is_operational(tracker: GatewayTracker) -> bool:
    """True when every shard is Ready and answers its heartbeats, on a loop that is not held up."""
    return diagnose(tracker).healthy


def diagnose(tracker: GatewayTracker) -> Verdict:
    """The verdict on all shards together; with several, each reason names its shard and the ages are the oldest ones.

    Its ``notes`` are `GatewayTracker.notes`. May be asked from any thread: only another one sees a loop that does not come round.
    """
    verdicts = [(shard.shard_id, shard.diagnose()) for shard in tracker.shards]
    several = len(verdicts) > 1
    reasons = [
        f"shard {shard}: {reason}" if several else reason for shard, verdict in verdicts for reason in verdict.reasons
    ]
    lag = tracker.loop_lag.now
    reasons += judge_loop(lag)
    ages = replace(_oldest([verdict.ages for _, verdict in verdicts]), loop_lag=lag)
    return Verdict(not reasons, tuple(reasons), ages, tracker.notes)


def _oldest(ages: Sequence[Ages]) -> Ages:
    oldest: dict[str, float | None] = {}
    for name in (f.name for f in fields(Ages)):
        present = [value for value in (getattr(age, name) for age in ages) if value is not None]
        oldest[name] = max(present, default=None)
    return Ages(oldest.pop("in_state") or 0.0, **oldest)
