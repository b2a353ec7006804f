"""Describe the identify budget, the store, the sessions and the sums over all shards for the document."""

from __future__ import annotations

from datetime import timedelta

from discorder.clock import Clock
from discorder.sessions import SPACING, Budget
from discorder.status.document import BudgetPart, ColdStartPart, SessionsPart, StorePart, TotalsPart, moment
from discorder.tracking.tracker import GatewayTracker


def describe_budget(tracker: GatewayTracker, budget: Budget | None, clock: Clock) -> BudgetPart:
    """Return ``budget``, which is the tracker's, and which shards wait for it."""
    other, queue = tracker.other_use, tracker.identify_queue
    last_turn = max(queue.turns.values(), default=None)
    ids = [shard.shard_id for shard in tracker.shards]
    return BudgetPart(
        total=None if budget is None else budget.total,
        remaining=None if budget is None else budget.remaining,
        reserve=None if budget is None else budget.reserve,
        spendable=None if budget is None else budget.spendable,
        spent_here=None if budget is None else budget.spent_here,
        foreign=0 if other is None else other.identifies,
        reset_at=None if budget is None else moment(budget.reset_at),
        looked_up_at=None if budget is None else moment(budget.looked_up_at),
        max_concurrency=queue.concurrency,
        waiting=len(queue.turns),
        last_turn_at=None if last_turn is None else moment(clock.now() + timedelta(seconds=last_turn)),
        cold_start=ColdStartPart(
            identifies=len(ids),
            seconds=None if queue.concurrency is None else max(0, queue.rounds(ids) - 1) * SPACING,
        ),
    )


def describe_store(tracker: GatewayTracker) -> StorePart:
    """Return the state of the session store."""
    path = tracker.saved_sessions.path
    return StorePart(state=tracker.store.state, reason=tracker.store.reason, path=None if path is None else str(path))


def describe_sessions(tracker: GatewayTracker) -> SessionsPart:
    """Return how many sessions are held and stored."""
    saved = tracker.saved_sessions
    return SessionsPart(
        held=sum(shard.session is not None for shard in tracker.shards),
        stored=saved.stored,
        last_saved_at=None if saved.last_saved_at is None else moment(saved.last_saved_at),
    )


def describe_totals(tracker: GatewayTracker) -> TotalsPart:
    """Return the sums over all shards since the start."""
    stats = tracker.counts
    dropped, gaps = tracker.lost
    return TotalsPart(
        events=sum(one.published_event_count for one in stats),
        restarts=sum(one.restart_count for one in stats),
        resumes=sum(one.resume_count for one in stats),
        identifies=sum(one.identify_count for one in stats),
        gaps=gaps,
        dropped=dropped,
        stale=sum(one.stale_count for one in stats),
        unexpected=sum(one.unexpected_count for one in stats),
        commands_sent=sum(one.command_sent_count for one in stats),
        commands_refused=sum(one.command_refused_count for one in stats),
    )
