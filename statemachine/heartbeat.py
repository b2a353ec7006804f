"""Heartbeat bookkeeping of one connection, as arithmetic over monotonic seconds that others hand in.

Source: gateway-protocol.md §5. Health comes from ages: a beat that stays unacknowledged makes a zombie, but while other
frames arrive the connection is given longer, and a quiet guild, which sends nothing but ACKs, never looks dead.
"""

from __future__ import annotations

SILENT_INTERVALS = 0.5  # unacknowledged for so long, and no frame of any kind since the beat: dead
PROBE_SECONDS = 5.0  # for the answer to a beat that was sent because the clocks jumped
UNACKNOWLEDGED_INTERVALS = 1.5  # unacknowledged for so long, whatever else arrives: dead


class Pulse:
    """When beats were sent and answered on one connection. All times are monotonic seconds, intervals are seconds."""

    __slots__ = (
        "_in_silence",
        "_probed_at",
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
        self._unacknowledged: float | None = None  # the oldest beat that is not answered
        self._in_silence: float | None = None  # the oldest such beat after the last frame
        self._probed_at: float | None = None

    def sent(self, at: float) -> None:
        """A beat is being written. Ages count from here, so that a write that hangs counts as unanswered too."""
        if self._unacknowledged is None:
            self._unacknowledged = at
        if self._in_silence is None:
            self._in_silence = at

    def probe(self, at: float) -> None:
        """A sign of life is asked for out of turn: some ACK must come soon, or the socket did not survive."""
        if self._probed_at is None:
            self._probed_at = at

    def acknowledged(self, at: float) -> None:
        """Op 11 came; it answers every beat that is under way."""
        if self._unacknowledged is not None:
            self.round_trip = at - self._unacknowledged
        self._unacknowledged = None
        self._in_silence = None
        self._probed_at = None
        self.last_ack_at = at

    def frame(self, at: float) -> None:
        """A frame of any kind came."""
        self.last_frame_at = at
        self._in_silence = None

    def zombie_at(self) -> float | None:
        """When this connection counts as dead if nothing arrives any more; None while every beat is answered."""
        moments = []
        if self._probed_at is not None:
            moments.append(self._probed_at + PROBE_SECONDS)
        if self._unacknowledged is not None:
            moments.append(self._unacknowledged + self.interval * UNACKNOWLEDGED_INTERVALS)
        if self._in_silence is not None:
            moments.append(self._in_silence + self.interval * SILENT_INTERVALS)
        return min(moments, default=None)

    def unanswered_for(self, now: float) -> float | None:
        """Age in seconds of the oldest beat that was not acknowledged."""
        return None if self._unacknowledged is None else now - self._unacknowledged

    def probed_for(self, now: float) -> float | None:
        """Age in seconds of a probe that was not answered."""
        return None if self._probed_at is None else now - self._probed_at

    def is_zombie(self, now: float) -> bool:
        """The rule at ``now``."""
        due = self.zombie_at()
        return due is not None and now >= due
