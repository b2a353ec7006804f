"""Answer the request `follow`: the events of the journal after a place, for a reader that keeps a copy of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from discorder.clock import Clock, Timer
from discorder.guilds.feed import Entry, Feed, NotHeld
from discorder.publishers.zeromq.protocol import FollowRequest, Frames, answer
from discorder.wire import StreamPosition

MOST_FOLLOWERS = 64
BYTES_PER_PART = 262_144  # of events, or one larger event
EVENTS = b"events"  # the topic of the parts before the last

Send = Callable[[bytes, Frames], bool]
Followed = tuple[int, str, int | None, str, float, msgspec.Raw]  # shard, session, then as in `Entry`


class FollowServer:
    """Keep one open request of each reader, and send the events as they come. Call all methods on the loop.

    ``send`` sends the frames to a client, and returns whether there was room; ``wake`` causes a call of `pump` soon.
    ``instance`` is another text in each process.
    """

    def __init__(self, send: Send, clock: Clock, wake: Callable[[], None], instance: str) -> None:
        self._send = send
        self._clock = clock
        self._wake = wake
        self._instance = instance
        self._open: dict[bytes, _Open] = {}
        self._news = False

    def begin(self, client: bytes, request: FollowRequest) -> bool:
        """Begin an answer; it replaces an open one of the client. Return False if there are too many."""
        if client not in self._open and len(self._open) >= MOST_FOLLOWERS:
            return False
        self._forget(client)
        one = self._open[client] = _Open(request)
        one.timer = self._clock.call_later(request.wait_s, lambda: self._end(one))
        self.note()
        return True

    def note(self, _shard: int = 0) -> None:
        """Note that there may be something new."""
        if self._open:
            self._news = True
            self._wake()

    def pump(self, feed: Feed) -> None:
        """Send what is new, and end the answers that have lasted long enough."""
        news, self._news = self._news, False
        for client, one in list(self._open.items()):
            if news or one.is_due:
                self._advance(feed, client, one)

    def clear(self) -> None:
        """Forget all requests."""
        for client in list(self._open):
            self._forget(client)

    def _end(self, one: _Open) -> None:
        one.is_due = True
        self._wake()

    def _advance(self, feed: Feed, client: bytes, one: _Open) -> None:
        found = one.look(feed)
        if not (found.ends or found.events or one.is_due):
            return
        id_frame = one.request.id_frame
        one.parts_left -= 1
        if found.ends or one.is_due or not one.parts_left:
            self._forget(client)
            self._send(client, answer(id_frame, {**self._about(feed), "events": found.events, "lost": found.lost}))
        elif self._send(client, (id_frame, EVENTS, msgspec.json.encode(found.events))):
            self.note()  # there may be more than one part takes
        else:
            self._forget(client)  # it does not read: the part is lost, so it must ask again for what it lacks

    def _about(self, feed: Feed) -> Mapping[str, object]:
        ids, count = feed.layout or ((), 0)
        return {"ids": list(ids), "count": count, "intents": feed.intents, "instance": self._instance}

    def _forget(self, client: bytes) -> None:
        found = self._open.pop(client, None)
        if found is not None and found.timer is not None:
            found.timer.cancel()


@dataclass(slots=True)
class _Found:
    """What there is after the places of a reader. ``ends``: the reader has to ask again, with other places."""

    events: list[Followed] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    ends: bool = False


class _Open:
    """A request whose answer has not ended. ``is_due``: it has lasted as long as it should, which ``timer`` notes."""

    def __init__(self, request: FollowRequest) -> None:
        self.request = request
        self.is_due = False
        self.timer: Timer | None = None
        self.parts_left = request.parts
        self._places = {place.shard: StreamPosition(place.session, place.after) for place in request.places}

    def look(self, feed: Feed) -> _Found:
        """Return the next events, and move the places past them."""
        ids, count = feed.layout or ((), 0)
        found = _Found()
        if count != self.request.count or self._places.keys() != set(ids):
            found.ends = True
            return found
        left = BYTES_PER_PART
        for shard, place in self._places.items():
            end = feed.end(shard)
            # the shard has had no READY, or the next part continues with it
            if end is None or end == place or left <= 0:
                continue
            try:
                entries = _entries(feed, shard, place, end.session, left)
            except NotHeld:
                found.lost.append(shard)
                found.ends = True
                continue
            left -= sum([len(entry.data) for entry in entries])
            found.events += [(shard, end.session, *entry[:-1], msgspec.Raw(entry.data)) for entry in entries]
            if entries:
                self._places[shard] = StreamPosition(end.session, entries[-1].seq or 0)
        return found


def _entries(feed: Feed, shard: int, place: StreamPosition, session: str, most_bytes: int) -> Sequence[Entry]:
    """Return what follows on ``place``: in a later session its beginning. Raises `NotHeld`."""
    if not place.session:
        msg = "the reader has no guilds"
        raise NotHeld(msg)
    if place.session == session:
        return feed.entries(shard, place, most_bytes)
    with contextlib.suppress(NotHeld):  # a session numbers from 1, those of some servers from 0
        return feed.entries(shard, StreamPosition(session, -1), most_bytes)
    return feed.entries(shard, StreamPosition(session, 0), most_bytes)
