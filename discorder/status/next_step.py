"""Say what a shard does next by itself: what it waits for, until when, on which host and at what cost."""

from __future__ import annotations

from collections.abc import Mapping

from discorder.statemachine import State
from discorder.statemachine.table import READY_DEADLINE
from discorder.status.document import NextAction, NextKind, NextPart, Purpose
from discorder.status.times import WallTimes
from discorder.tracking.shard_tracker import Host, ShardTracker

BEAT_SHOWN = 5.0  # seconds after which an unanswered heartbeat is shown as what is waited for

_HOSTS = {Host.MAIN: "the main host", Host.RESUME: "the resume host"}


class NextSteps:
    """Finds the next step of a shard.

    ``now`` is monotonic, like all times; ``turns``: the seconds until each waiting shard may identify.
    """

    def __init__(self, times: WallTimes, now: float, turns: Mapping[int, float]) -> None:
        self._times = times
        self.now = now
        self._turns = turns

    def of(self, shard: ShardTracker) -> NextPart | None:
        """Return the next step of ``shard``; None if nothing happens by itself."""
        match shard.state:
            case State.READY:
                return self._beat(shard)
            case State.RESTARTING:
                return self._dial(shard)
            case State.IDENTIFYING:
                return self._identify(shard)
            case State.CONNECTING:
                return self._deadline(shard, NextAction.HELLO, f"Hello, then {_session(shard)}")
            case State.RESUMING:
                return self._deadline(shard, NextAction.RESUMED, f"RESUMED from {_HOSTS[shard.host]}")
            case State.UNHEALTHY:
                then = _session(shard) if shard.paused_since is None else "nothing until the shard is unpaused"
                return self._deadline(shard, NextAction.VERDICT, f"The socket is closed, then {then}")
            case State.STOPPING:
                return self._deadline(shard, NextAction.STOP, "The socket is closed, then the shard ends")
            case State.DISCONNECTED:
                return self._look_up(shard)
            case _:
                return None

    def _beat(self, shard: ShardTracker) -> NextPart | None:
        pulse = shard.pulse
        if pulse is None or (pulse.unanswered_for(self.now) or 0.0) < BEAT_SHOWN:
            return None
        due = pulse.zombie_at()
        if due is None:
            return None
        text = "An ACK for the heartbeat; without one the connection is given up, then RESUME"
        return self._next(shard, NextKind.DEADLINE, NextAction.BEAT, due, text, identifies=0)

    def _dial(self, shard: ShardTracker) -> NextPart | None:
        backoff = shard.backoff
        if backoff is None:
            return None
        holding = shard.read_holding()
        text = f"{_session(shard)} on {_HOSTS[shard.host]}"
        if holding:
            text = f"{text}, once publisher {', '.join(holding)} has room again"
            return self._next(shard, NextKind.ESTIMATE, NextAction.DIAL, backoff.due, text)
        if shard.parked:
            text = f"{text}, if the identify gate grants one then"
        return self._next(
            shard, NextKind.PLANNED, NextAction.DIAL, backoff.due, text, backoff_s=round(backoff.seconds, 2)
        )

    def _identify(self, shard: ShardTracker) -> NextPart | None:
        armed = shard.armed
        if armed is not None and armed.deadline is READY_DEADLINE:
            return self._deadline(shard, NextAction.READY, "READY, the answer to IDENTIFY", identifies=0)
        turn = self._turns.get(shard.shard_id)
        if turn is None:
            return self._deadline(shard, NextAction.IDENTIFY, "IDENTIFY, when the identify gate grants it")
        return self._next(
            shard, NextKind.ESTIMATE, NextAction.IDENTIFY, self.now + turn, "IDENTIFY, when it is its turn"
        )

    def _look_up(self, shard: ShardTracker) -> NextPart | None:
        if shard.paused_since is not None:
            return None
        text = f"The look-up of the gateway, then {_session(shard)}"
        return self._next(shard, NextKind.ESTIMATE, NextAction.LOOK_UP, shard.entered_at, text)

    def _deadline(
        self, shard: ShardTracker, action: NextAction, text: str, *, identifies: int | None = None
    ) -> NextPart | None:
        due = shard.deadline_at
        if due is None:
            return None
        return self._next(shard, NextKind.DEADLINE, action, due, text, identifies=identifies)

    def _next(
        self,
        shard: ShardTracker,
        kind: NextKind,
        action: NextAction,
        due: float,
        text: str,
        *,
        identifies: int | None = None,
        backoff_s: float | None = None,
    ) -> NextPart:
        purpose = None
        if action is not NextAction.STOP:
            purpose = Purpose.IDENTIFY if shard.session is None else Purpose.RESUME
        cost = int(purpose is Purpose.IDENTIFY) if identifies is None else identifies
        return NextPart(
            kind=kind,
            action=action,
            purpose=purpose,
            at=self._times.at(due),
            host=shard.host,
            attempt=shard.attempts or None,
            backoff_s=backoff_s,
            identifies=cost,
            text=text,
        )


def _session(shard: ShardTracker) -> str:
    return "IDENTIFY" if shard.session is None else "RESUME"
