"""Decide whether a control plane is healthy, from the ages of all shards and the lag of the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from discorder.statemachine.health import Ages, Verdict, judge_loop
from discorder.tracking.tracker import GatewayTracker


def is_operational(tracker: GatewayTracker) -> bool:
    """Return True if every shard is Ready and gets ACKs for its heartbeats, and the event loop is not blocked."""
    return diagnose(tracker).healthy


def diagnose(tracker: GatewayTracker) -> Verdict:
    """Return the verdict on all shards together. With several shards, each reason names its shard, and each age is the oldest.

    Its ``notes`` are `GatewayTracker.notes`. Thread-safe: only a call from another thread can see that the event loop is blocked.
    """
    verdicts = [(shard.shard_id, shard.diagnose()) for shard in tracker.shards]
    several = len(verdicts) > 1
    reasons = [
        f"shard {shard}: {reason}" if several else reason for shard, verdict in verdicts for reason in verdict.reasons
    ]
    if reasons and tracker.look_up_trouble is not None:
        reasons.append(tracker.look_up_trouble)
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
