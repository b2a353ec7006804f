"""Judge from ages whether a shard is healthy. Flags are not enough: on a half-open socket every flag is set."""

from __future__ import annotations

from dataclasses import dataclass, fields

from discorder.statemachine.heartbeat import PROBE_SECONDS
from discorder.statemachine.table import State

LOOP_LAG_SECONDS = 5.0  # a heartbeat this late is still in time; the answer to a probe is not


@dataclass(frozen=True, slots=True)
class Ages:
    """Hold how long ago things happened, in seconds. None = not on this connection.

    ``unanswered_beat`` is the age of the oldest heartbeat without an ACK. ``unanswered_probe`` is the age of the probe that
    was sent after a clock jump. ``loop_lag`` is the delay of the event loop. For several shards, each field is the maximum.
    """

    in_state: float
    last_frame: float | None = None
    last_ack: float | None = None
    last_dispatch: float | None = None
    unanswered_beat: float | None = None
    unanswered_probe: float | None = None
    loop_lag: float | None = None

    def __repr__(self) -> str:
        known = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]
        return f"Ages({', '.join(f'{name}={seconds:.1f} s' for name, seconds in known)})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold the result of a health check: healthy or not, the reasons if not, and the ages.

    ``notes`` are sentences about problems that do not affect a session but need the operator's attention.
    """

    healthy: bool
    reasons: tuple[str, ...]
    ages: Ages
    notes: tuple[str, ...] = ()


def judge(state: State, ages: Ages, *, zombie: bool, cause: str | None) -> Verdict:
    """Return the verdict on one shard. ``zombie``: `heartbeat.Pulse.is_zombie` now. ``cause``: the last interruption, if any."""
    reasons = []
    if state is not State.READY:
        because = f"; {cause}" if cause else ""
        reasons.append(f"{state} for {ages.in_state:.1f} s{because}")
    if zombie:
        silence = "" if ages.last_frame is None else f", last frame {ages.last_frame:.1f} s ago"
        if ages.unanswered_probe is not None and ages.unanswered_probe >= PROBE_SECONDS:
            reasons.append(f"a probe is unanswered for {ages.unanswered_probe:.1f} s, since the clocks jumped{silence}")
        else:
            reasons.append(f"a heartbeat is unanswered for {ages.unanswered_beat or 0.0:.1f} s{silence}")
    return Verdict(not reasons, tuple(reasons), ages)


def judge_loop(lag: float) -> tuple[str, ...]:
    """Return the reasons why an event loop with ``lag`` seconds of delay is unhealthy. All shards share the loop."""
    if lag < LOOP_LAG_SECONDS:
        return ()
    return (f"the event loop is held up for {lag:.1f} s: something in this process blocks it (see the log)",)
