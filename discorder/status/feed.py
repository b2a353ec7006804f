"""Send what has changed in the document to the readers of ``/events``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from discorder.clock import Clock, Timer
from discorder.escapes import escape_json
from discorder.logs.tail import LogTail
from discorder.status.describer import Describer
from discorder.status.document import DocumentPart, TransitionPart
from discorder.status.listener import Listener
from discorder.status.updates import BeatUpdate, Update
from discorder.tracking.shard_tracker import ShardTracker

FLUSH_EVERY = 0.25  # seconds between two parts with changed shards
SHARED_FOR = 0.1  # seconds that readers share one description; a burst lets all of them begin anew
REFRESHED = 32  # shards a second that are sent again because of their ages and rates

_encode = msgspec.json.Encoder().encode


def encode(part: DocumentPart) -> bytes:
    """Return a part of the document as JSON, control characters of its texts as escapes."""
    return escape_json(_encode(part))


_AT_BYTES = len(encode(BeatUpdate(at="2026-01-01T00:00:00.000Z"))) - 1  # each part begins with ``at``


class StatusFeed:
    """The readers of one plane's events. Nothing is described while there is none."""

    def __init__(self, describer: Describer, clock: Clock, log: LogTail) -> None:
        self._describer = describer
        self._clock = clock
        self._log = log
        self._listeners: tuple[Listener, ...] = ()
        self._shards: Sequence[ShardTracker] = ()
        self._sent: dict[str, bytes] = {}  # the last part of each kind, without its moment
        self._log_sent = 0
        self._changed: dict[int, ShardTracker] = {}
        self._activity: dict[int, tuple[float, ...]] = {}
        self._refreshed = 0  # the place of the shard to refresh next
        self._flush_at = 0.0  # monotonic; no earlier
        self._timer: Timer | None = None
        self._quiet = True  # nothing was sent since the last beat
        self._document = b""  # the whole, for readers that begin together; "" once something was sent
        self._described_at = 0.0

    def listen(self) -> Listener:
        """Return a new reader's events."""
        self._begins_anew()
        if not self._listeners:
            self._log_sent = self._log.newest
        listener = Listener(self._whole, self._forget)
        self._listeners = (*self._listeners, listener)
        return listener

    def close(self) -> None:
        """End the events of every reader."""
        for listener in self._listeners:
            listener.close()
        self._cancel_flush()

    # ---------------------------------------------------------------- what happened

    def transitioned(self, shard: ShardTracker, step: TransitionPart) -> None:
        """Send a transition at once, and the shard soon."""
        if not self._listeners or self._begins_anew():
            return
        self._send(self._describer.transition_update(step))
        self._changed[shard.shard_id] = shard
        if self._timer is None:
            self._timer = self._clock.call_later(max(0.0, self._flush_at - self._clock.monotonic()), self._flush)

    def sampled(self, points: int) -> None:
        """Send what has changed in the last second; ``points`` of the flows have begun."""
        if not self._listeners:
            return
        if points > 1:  # a pause of the process, or wider points: what the readers have does not fit any more
            self._restart()
        if points > 1 or self._begins_anew():
            return
        describer = self._describer
        self._note_activity(self._shards)
        self._flush()
        self._send_changed(describer.flow_update(append=points == 1), always=points == 1)
        self._send_changed(describer.publishers_update())
        self._send_changed(describer.facade_update())
        self._send_changed(describer.budget_update())
        if self._quiet:
            self._send(BeatUpdate(at=describer.at))
        self._quiet = True

    def _begins_anew(self) -> bool:
        """Return whether there are other shards than before; the readers then get the whole document."""
        shards = self._describer.tracker.shards
        if shards is self._shards:
            return False
        self._shards = shards
        for shard_id in {*self._changed, *self._activity} - {shard.shard_id for shard in shards}:
            self._changed.pop(shard_id, None)
            self._activity.pop(shard_id, None)
        self._restart()
        return True

    def _restart(self) -> None:
        self._document = b""
        for listener in self._listeners:
            listener.restart()

    def _note_activity(self, shards: Sequence[ShardTracker]) -> None:
        """Mark a few of the shards that show another rate, or have received something or sent a heartbeat, in turn."""
        count = len(shards)
        for place in range(count):
            shard = shards[(self._refreshed + place) % count]
            activity = self._describer.activity(shard)
            if self._activity.get(shard.shard_id) == activity:
                continue
            self._activity[shard.shard_id] = activity
            self._changed[shard.shard_id] = shard
            if len(self._changed) >= REFRESHED:
                self._refreshed = (self._refreshed + place + 1) % count
                return

    # ---------------------------------------------------------------- sending

    def _flush(self) -> None:
        """Send the changed shards, and verdict and log if they have changed."""
        self._cancel_flush()
        self._flush_at = self._clock.monotonic() + FLUSH_EVERY
        if self._changed:
            changed, self._changed = list(self._changed.values()), {}
            self._send(self._describer.shards_update(changed))
        self._send_changed(self._describer.verdict_update())
        self._flush_log()

    def _cancel_flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_log(self) -> None:
        lines = self._log.lines(after=self._log_sent)
        if lines:
            self._log_sent = lines[0].number
            self._send(self._describer.log_update(lines))

    def _send_changed(self, update: Update, *, always: bool = False) -> None:
        """Send ``update``, unless it says the same as the last of its kind."""
        encoded = encode(update)
        body = encoded[_AT_BYTES:]
        if always or self._sent.get(update.event) != body:
            self._sent[update.event] = body
            self._push(update.event, encoded)

    def _send(self, update: Update) -> None:
        self._push(update.event, encode(update))

    def _push(self, event: str, encoded: bytes) -> None:
        self._quiet = False
        self._document = b""
        for listener in self._listeners:
            listener.push((event, encoded))

    def _whole(self) -> bytes:
        """Return the document for one reader, after the log records in it were sent to the others: nobody gets one twice."""
        self._flush_log()
        now = self._clock.monotonic()
        if not self._document or now - self._described_at >= SHARED_FOR:
            self._document, self._described_at = encode(self._describer.status()), now
        return self._document

    def _forget(self, listener: Listener) -> None:
        self._listeners = tuple(one for one in self._listeners if one is not listener)
        if not self._listeners:
            self._sent.clear()
            self._changed.clear()
            self._cancel_flush()
