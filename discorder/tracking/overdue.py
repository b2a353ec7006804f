"""Find states of shards that have outlived their deadline: the state machine itself is stuck, whatever Discord does."""

from __future__ import annotations

from collections.abc import Sequence

from discorder.clock import Clock
from discorder.statemachine import State
from discorder.tracking.shard_tracker import ShardTracker

GRACE_SECONDS = 30.0  # a deadline ends its state at once; what is so late does not come any more


def find_overdue(shards: Sequence[ShardTracker], clock: Clock) -> list[str]:
    """Return a sentence for each shard whose state should have ended more than `GRACE_SECONDS` ago.

    An outage, a refused token or a spent budget is not among them: such a shard passes from state to state in time.
    """
    now = clock.monotonic()
    late = [(shard, due) for shard in shards if (due := _due(shard)) is not None and now - due > GRACE_SECONDS]
    return [f"shard {shard.shard_id}: {shard.state} should have ended {now - due:.0f} s ago" for shard, due in late]


def _due(shard: ShardTracker) -> float | None:
    """Return the monotonic second at which the present state ends at the latest, None if it may last."""
    if shard.backoff is not None:
        return shard.backoff.due
    if shard.state is State.READY:
        return None if shard.pulse is None else shard.pulse.zombie_at()
    return shard.deadline_at
