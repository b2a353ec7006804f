"""The state of one shard in a worker of a group: its consumer, the pin, and what came and was not acknowledged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from nats.aio.msg import Msg

from discorder.bot.nats.link import Link
from discorder.bot.nats.source import Pull
from discorder.bot.positions import SavedPosition, Shard
from discorder.bot.stream_subscription import Entry, Lane

PRIORITY_GROUP = "workers"  # the only one of each consumer
ACK_WAIT = 6.0  # seconds after which the server sends again what was not acknowledged
PIN = 10.0  # seconds without a pull request after which the server pins another worker: longer than ACK_WAIT, see worker.py
SURE = PIN - 1.0  # seconds after a pull request, which the server took, in which the pin is certainly ours
PULL_PINNED = 4.0  # seconds of a pull request; the next one renews the pin
PULL_WAITING = 5.0  # of one to a consumer that another worker may have; shorter than PIN, which may begin at its start
EXTEND = ACK_WAIT / 3  # seconds after which the server is told that an event is still in work
WINDOW = 128  # events of a shard that one worker has at most and has not acknowledged
REMEMBERED = 2 * WINDOW  # sequences of acknowledged events, which come again if an acknowledgement was late
REFUSED_REST = 1.0  # seconds after a pull request that was refused


@dataclass(slots=True)
class _Open:
    """A message that is not acknowledged. ``at``: when the server last knew that it is in work."""

    reply: str
    at: float


class PinnedShard:
    """One shard. ``pin`` "": another worker has it, or none. ``lane``: of the present pin.

    While it is settling, messages are held: older ones, which the worker before had not acknowledged, may still come.
    """

    def __init__(self, shard: Shard, consumer: str) -> None:
        self.shard = shard
        self.consumer = consumer
        self.pin = ""
        self.lane: Lane | None = None
        self.pull: Pull
        self.is_settling = False
        self.settling_since = 0.0
        self.releasing_since: float | None = None
        self.sure_until = 0.0  # the pin is certainly ours
        self.reached: SavedPosition | None = (
            None  # by earlier lanes; the acknowledgements of the last events may be lost
        )
        self.taken = 0  # the last sequence in the stream that the bot was given
        self._requested_at = 0.0
        self._rests_until = 0.0
        self._open: dict[int, _Open] = {}  # by sequence in the stream
        self._in_work: int | None = None
        self._held: list[Entry] = []
        self._done: dict[int, None] = {}  # in the order in which they were processed

    @property
    def open_count(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._open)

    # ---------------------------------------------------------------- connection and pin

    def connect(self, link: Link, stream: str, inbox: str) -> None:
        """Use another connection: what was under way on the last one comes again, perhaps behind later messages."""
        self.pull = Pull(link, stream, self.consumer, f"{inbox}.{self.consumer}")
        if self.pin:
            self.settle()

    def begin(self, pin: str, lane: Lane) -> None:
        """Begin with a new pin: another worker may have had the shard."""
        self.end()
        self.pin, self.lane, self.taken = pin, lane, 0
        self.settle()

    def end(self, rest: float = 0.0) -> None:
        """End the pin, and request none for ``rest`` seconds. What the bot has in work stays open."""
        if self.lane is not None:
            self.reached = self.lane.detector.position(self.shard) or self.reached
        self._open = {seq: one for seq, one in self._open.items() if seq == self._in_work}
        self.pin, self.lane = "", None
        self._held.clear()
        self.is_settling, self.releasing_since = False, None
        self._rests_until = time.monotonic() + rest

    def settle(self) -> None:
        """Hold what comes until the order is certain."""
        if not self.is_settling:
            self.is_settling, self.settling_since = True, time.monotonic()

    def hold(self, entries: Iterable[Entry]) -> deque[Entry]:
        """Hold those of ``entries`` that are of this shard; return the others."""
        others = deque[Entry]()
        for entry in entries:
            if entry.place[0] is not self:
                others.append(entry)
            elif entry.lane is self.lane:
                self._held.append(entry)
        return others

    def first_held(self) -> Entry | None:
        """Return the oldest message that is held."""
        return min(self._held, key=_seq, default=None)

    def settled(self) -> list[Entry]:
        """Return what was held, in order."""
        held, self._held = sorted(self._held, key=_seq), []
        self.is_settling = False
        return held

    # ---------------------------------------------------------------- pull requests

    @property
    def wants_more(self) -> bool:
        """Whether to send a pull request now. One to a pinned consumer renews the pin, even if there is no room."""
        return self.pull.left <= 0 and self.releasing_since is None and time.monotonic() >= self._rests_until

    async def request(self) -> None:
        """Send a pull request."""
        self._requested_at = time.monotonic()
        pin = {"id": self.pin} if self.pin else {}
        await self.pull.request(WINDOW, PULL_PINNED if self.pin else PULL_WAITING, group=PRIORITY_GROUP, **pin)

    def end_pull(self, status: Msg) -> None:
        """Process the end of a pull request. Raises `Broken` if the consumer is gone."""
        code = self.pull.end(status)
        if self.pull.left > 0:
            return  # of an earlier request
        if code == "408":
            self.sure_until = self._requested_at + SURE
        elif code == "423":
            if self.pin:
                self.end()
        else:
            self._rests_until = time.monotonic() + REFUSED_REST

    # ---------------------------------------------------------------- messages

    def came(self) -> None:
        """Note that a message came: the request and the pin are good."""
        self.pull.left -= 1
        self.sure_until = self._requested_at + SURE

    def is_open(self, seq: int) -> bool:
        """Return whether a message came before and is not processed."""
        return seq in self._open

    def was_done(self, seq: int) -> bool:
        """Return whether a message was processed here."""
        return seq in self._done

    def add(self, seq: int, entry: Entry) -> bool:
        """Note a message; return whether to deliver it now."""
        self._open[seq] = _Open(entry.reply, time.monotonic())
        if self.is_settling:
            self._held.append(entry)
        return not self.is_settling

    def begin_work(self, seq: int) -> bool:
        """Note that the bot gets a message; return whether it got a later one before."""
        self._in_work = seq
        is_late, self.taken = seq < self.taken, max(seq, self.taken)
        return is_late

    def done(self, seq: int) -> None:
        """Note that a message was processed."""
        self._in_work = None
        self._open.pop(seq, None)
        self._done[seq] = None
        if len(self._done) > REMEMBERED:
            del self._done[next(iter(self._done))]

    def replies_to_extend(self) -> list[str]:
        """Return what to tell the server that it is in work, so that it does not send it again."""
        now = time.monotonic()
        due = [one for one in self._open.values() if now - one.at >= EXTEND]
        for one in due:
            one.at = now
        return [one.reply for one in due]

    def replies_to_return(self) -> list[str]:
        """Return what to give back, in order."""
        return [self._open[seq].reply for seq in sorted(self._open)]


def _seq(entry: Entry) -> int:
    seq: int = entry.place[1]
    return seq
