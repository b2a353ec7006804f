"""Answer the request `follow`: the events of the journal after a place, for a reader that keeps a copy of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from discorder.clock import Clock, Timer
from discorder.guilds.feed import Entry, Feed, NotHeld
from discorder.publishers.zeromq.protocol import FollowedPlace, FollowRequest, Frames, answer
from discorder.wire import StreamPosition

MOST_FOLLOWERS = 64
BYTES_PER_ANSWER = 262_144  # of events, or one larger event

Send = Callable[[bytes, Frames], None]
FollowedEvent = tuple[int, str, int | None, str, float, msgspec.Raw]  # shard, session, then as in `Entry`


class _Open(NamedTuple):
    """A request that is not answered yet. ``until``: monotonic seconds, when it is at the latest."""

    request: FollowRequest
    until: float
    timer: Timer


class FollowServer:
    """Keep one open request of each reader, and answer it when there is something new. Call all methods on the loop.

    ``send`` sends the frames to a client; ``wake`` causes a call of `pump` soon. ``instance`` is another text in each process.
    """

    def __init__(self, send: Send, clock: Clock, wake: Callable[[], None], instance: str) -> None:
        self._send = send
        self._clock = clock
        self._wake = wake
        self._instance = instance
        self._open: dict[bytes, _Open] = {}
        self._news = False

    def begin(self, client: bytes, request: FollowRequest) -> bool:
        """Answer a request as soon as there is something; it replaces an open one of the client. Return False for too many."""
        if client not in self._open and len(self._open) >= MOST_FOLLOWERS:
            return False
        self._forget(client)
        timer = self._clock.call_later(request.wait_s, self._wake)
        self._open[client] = _Open(request, self._clock.monotonic() + request.wait_s, timer)
        self.note()
        return True

    def note(self, _shard: int = 0) -> None:
        """Note that there may be something new."""
        if self._open:
            self._news = True
            self._wake()

    def pump(self, feed: Feed) -> None:
        """Answer the requests for which there is something, and those that have waited long enough."""
        news, self._news, now = self._news, False, self._clock.monotonic()
        for client, (request, until, _) in list(self._open.items()):
            is_due = now >= until
            if not (news or is_due):
                continue
            found = _look(feed, request)
            if found or is_due:
                self._forget(client)
                ids, count = feed.layout or ((), 0)
                about = {"ids": list(ids), "count": count, "intents": feed.intents, "instance": self._instance}
                self._send(client, answer(request.id_frame, {**about, "events": [], "lost": [], **found}))

    def clear(self) -> None:
        """Forget all requests."""
        for client in list(self._open):
            self._forget(client)

    def _forget(self, client: bytes) -> None:
        if (found := self._open.pop(client, None)) is not None:
            found.timer.cancel()


def _look(feed: Feed, request: FollowRequest) -> Mapping[str, object]:
    """Return the events that are new, and the shards whose place is not held; empty if there is nothing to say."""
    ids, count = feed.layout or ((), 0)
    if count != request.count or {place.shard for place in request.places} != set(ids):
        return {"events": []}
    events: list[FollowedEvent] = []
    lost: list[int] = []
    left = BYTES_PER_ANSWER
    for place in request.places:
        end = feed.end(place.shard)
        if end is None or left <= 0:  # the shard has had no READY, or the next request continues with it
            continue
        try:
            found = _entries(feed, place, end.session, left)
        except NotHeld:
            lost.append(place.shard)
            continue
        left -= sum([len(entry.data) for entry in found])
        events += [(place.shard, end.session, *entry[:-1], msgspec.Raw(entry.data)) for entry in found]
    return {"events": events, "lost": lost} if events or lost else {}


def _entries(feed: Feed, place: FollowedPlace, session: str, most_bytes: int) -> Sequence[Entry]:
    """Return what follows on ``place``: in a later session its beginning. Raises `NotHeld`."""
    if not place.session:
        msg = "the reader has no guilds"
        raise NotHeld(msg)
    if place.session == session:
        return feed.entries(place.shard, StreamPosition(session, place.after), most_bytes)
    with contextlib.suppress(NotHeld):  # a session numbers from 1, those of some servers from 0
        return feed.entries(place.shard, StreamPosition(session, -1), most_bytes)
    return feed.entries(place.shard, StreamPosition(session, 0), most_bytes)
