"""Order the replay after one RESUME: drop events that came before, hold events that overtake it until they are next."""

from __future__ import annotations

from discorder.shard.event_stream import EventStream
from discorder.shard.oddities import Odd, Oddities
from discorder.shard.replay_hold import Dispatch, ReplayHold


class Replay:
    """Put the events of a replay into the order of their sequences, and remember the gaps."""

    def __init__(self, stream: EventStream, oddities: Oddities) -> None:
        self._stream = stream
        self._oddities = oddities
        self._began_at = stream.seq
        self._hold: ReplayHold | None = ReplayHold()  # None after it was full, and after the end
        self._gaps: list[tuple[int, int]] = []  # first and last missing sequence

    def take(self, dispatch: Dispatch) -> None:
        """Publish ``dispatch`` if it is next, hold it if it is early, drop it if it came before."""
        if self._stream.is_seen(dispatch.seq):
            self._drop(dispatch)
        elif self._hold is None:
            self._publish(dispatch)
        elif self._stream.is_next(dispatch.seq):
            self._stream.publish(dispatch)
            self._publish_what_follows()
        else:
            self._keep(dispatch, self._hold)

    def skip(self, seq: int) -> None:
        """Count ``seq`` as seen: the event itself cannot be published."""
        self._stream.skip(seq)
        self._publish_what_follows()

    def end(self, resumed: Dispatch | None) -> None:
        """Publish all held events, and ``resumed`` in its order. None: RESUMED without a sequence."""
        waiting = [] if self._hold is None else self._hold.pop_all()
        self._hold = None
        if resumed is not None and not self._stream.is_seen(resumed.seq):
            waiting = sorted([*waiting, resumed], key=lambda dispatch: dispatch.seq)
        elif resumed is not None:
            self._oddities.note(Odd.SEEN, f"RESUMED {resumed.seq}")
        for dispatch in waiting:
            self._publish(dispatch)

    def is_late(self, seq: int) -> bool:
        """Return whether ``seq`` lies before this replay or in a gap of it; announce such a gap."""
        for gap in self._gaps:
            if gap[0] <= seq <= gap[1]:
                self._gaps.remove(gap)
                self._stream.lose(*gap, "they came after events that had overtaken them in a replay")
                return True
        return self._began_at is not None and seq <= self._began_at

    def _drop(self, dispatch: Dispatch) -> None:
        self.is_late(dispatch.seq)
        self._oddities.note(Odd.SEEN, f"{dispatch.kind} {dispatch.seq}")

    def _keep(self, dispatch: Dispatch, hold: ReplayHold) -> None:
        kept = hold.put(dispatch)
        self._oddities.note(Odd.HELD if kept else Odd.SEEN, f"{dispatch.kind} {dispatch.seq}")
        if hold.is_full:
            self._oddities.note(Odd.HOLD_FULL)
            self._hold = None
            for waiting in hold.pop_all():
                self._publish(waiting)

    def _publish(self, dispatch: Dispatch) -> None:
        before = self._stream.seq
        if before is not None and dispatch.seq > before + 1:
            self._gaps.append((before + 1, dispatch.seq - 1))
        self._stream.publish(dispatch)

    def _publish_what_follows(self) -> None:
        while self._hold is not None and self._stream.seq is not None:
            dispatch = self._hold.pop(self._stream.seq + 1)
            if dispatch is None:
                return
            self._stream.publish(dispatch)
