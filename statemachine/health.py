"""Whether a shard is healthy, judged from ages. Never from a flag: a half-open socket has every flag set."""

from __future__ import annotations

from dataclasses import dataclass, fields

from discorder.statemachine.states import MEANINGS, State


@dataclass(frozen=True, slots=True)
class Ages:
    """How long ago things happened, in seconds; None = not on this connection.

    ``unanswered_beat`` is the age of the oldest heartbeat without an ACK. Of several shards, the oldest of each.
    """

    in_state: float
    last_frame: float | None = None
    last_ack: float | None = None
    last_dispatch: float | None = None
    unanswered_beat: float | None = None

    def __repr__(self) -> str:
        known = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) is not None]
        return f"Ages({', '.join(f'{name}={seconds:.1f} s' for name, seconds in known)})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Healthy or not, the reasons if not, and the ages that were judged.

    ``notes`` are sentences about what does not touch a session and deserves a look all the same.
    """

    healthy: bool
    reasons: tuple[str, ...]
    ages: Ages
    notes: tuple[str, ...] = ()


def judge(state: State, ages: Ages, *, zombie: bool, cause: str | None) -> Verdict:
    """The verdict on one shard. ``zombie`` is `heartbeat.Pulse.is_zombie` now; ``cause`` of the last interruption, if any."""
    reasons = []
    if state is not State.READY:
        because = f"; {cause}" if cause else ""
        reasons.append(f"{state} for {ages.in_state:.1f} s ({MEANINGS[state]}){because}")
    if zombie:
        silence = "" if ages.last_frame is None else f", last frame {ages.last_frame:.1f} s ago"
        reasons.append(f"a heartbeat is unanswered for {ages.unanswered_beat or 0.0:.1f} s{silence}")
    return Verdict(not reasons, tuple(reasons), ages)
