"""Track the heartbeats of one connection and decide when it is dead. The caller passes all times, in monotonic seconds.

Source: docs/protocol.md#heartbeats. A connection becomes a zombie when a heartbeat stays unacknowledged for too long. The
limit is longer while other frames arrive. A quiet connection on which only ACKs arrive stays healthy.
"""

from __future__ import annotations

SILENT_INTERVALS = 0.5  # dead after this many intervals without an ACK and without any frame
PROBE_SECONDS = 5.0  # time limit for the ACK of a heartbeat that was sent after a clock jump
UNACKNOWLEDGED_INTERVALS = 1.5  # dead after this many intervals without an ACK, whatever else arrives


class Pulse:
    """Record when heartbeats were sent and acknowledged on one connection. Times are monotonic seconds, intervals are seconds."""

    __slots__ = (
        "_in_silence",
        "_probed_at",
        "_sent_at",
        "_unacknowledged",
        "interval",
        "last_ack_at",
        "last_frame_at",
        "round_trip",
    )

    def __init__(self, interval: float, at: float) -> None:
        if not interval > 0:
            msg = f"a heartbeat interval must be positive, not {interval}"
            raise ValueError(msg)
        self.interval = interval
        self.last_frame_at = at
        self.last_ack_at: float | None = None
        self.round_trip: float | None = None
        self._unacknowledged: float | None = None  # when the oldest unacknowledged heartbeat was sent
        self._in_silence: float | None = None  # the same, for heartbeats sent after the last frame
        self._probed_at: float | None = None
        self._sent_at: float | None = None

    def sent(self, at: float) -> None:
        """Record that a heartbeat is being written. Its age starts now, so that a hanging write counts as unacknowledged too."""
        self._sent_at = at
        if self._unacknowledged is None:
            self._unacknowledged = at
        if self._in_silence is None:
            self._in_silence = at

    def probe(self, at: float) -> None:
        """Record a probe: without an ACK within `PROBE_SECONDS` the connection counts as dead."""
        if self._probed_at is None:
            self._probed_at = at

    def acknowledged(self, at: float) -> None:
        """Record an ACK (op 11). It acknowledges every heartbeat sent so far."""
        if self._unacknowledged is not None:
            self.round_trip = at - self._unacknowledged
        self._unacknowledged = None
        self._in_silence = None
        self._probed_at = None
        self.last_ack_at = at

    def frame(self, at: float) -> None:
        """Record that a frame of any kind arrived."""
        self.last_frame_at = at
        self._in_silence = None

    def zombie_at(self) -> float | None:
        """Return when this connection counts as dead if no frame arrives. None while every heartbeat is acknowledged."""
        moments = []
        if self._probed_at is not None:
            moments.append(self._probed_at + PROBE_SECONDS)
        if self._unacknowledged is not None:
            moments.append(self._unacknowledged + self.interval * UNACKNOWLEDGED_INTERVALS)
        if self._in_silence is not None:
            moments.append(self._in_silence + self.interval * SILENT_INTERVALS)
        return min(moments, default=None)

    def check_at(self) -> float | None:
        """Return when to check this connection next: `zombie_at`, or the earliest time at which the next heartbeat can time out.

        A heartbeat on schedule therefore needs no extra check. None before the first heartbeat.
        """
        due = self.zombie_at()
        if due is None and self._sent_at is not None:
            due = self._sent_at + self.interval * (1 + SILENT_INTERVALS)
        return due

    def unanswered_for(self, now: float) -> float | None:
        """Return the age in seconds of the oldest unacknowledged heartbeat, or None."""
        return None if self._unacknowledged is None else now - self._unacknowledged

    def probed_for(self, now: float) -> float | None:
        """Return the age in seconds of an unanswered probe, or None."""
        return None if self._probed_at is None else now - self._probed_at

    def is_zombie(self, now: float) -> bool:
        """Return whether the connection is dead at ``now``."""
        due = self.zombie_at()
        return due is not None and now >= due
