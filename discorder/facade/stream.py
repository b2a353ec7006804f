"""Read the events of one session from its place on, filtered by intents, as the frames that its bot gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from discorder.event_intents import allows
from discorder.facade.frames import dispatch
from discorder.facade.nonces import ANSWERS, Nonces, with_nonce
from discorder.facade.session_id import FacadeSession
from discorder.guilds import folds
from discorder.guilds.feed import Entry, Feed, NotHeld
from discorder.wire import StreamPosition

BATCH_BYTES = 65_536  # of events that are read at once
INTERACTION_SECONDS = 2.5  # after which Discord refuses an answer to an interaction; it allows 3
OWN = frozenset({"READY", "RESUMED"})  # of the connection to Discord; the façade sends its own
OWN_UPDATES = "GUILD_MEMBER_UPDATE"  # every bot gets those of its own member


class _Guild(msgspec.Struct):
    guild_id: msgspec.Raw = msgspec.Raw()


class _User(msgspec.Struct):
    id: str = ""


class _Member(msgspec.Struct):
    user: _User = msgspec.field(default_factory=_User)


_guild = msgspec.json.Decoder(_Guild).decode
_member = msgspec.json.Decoder(_Member).decode


class EventFilter:
    """Filters events by the intents of a bot (docs/protocol.md#intents). ``user_id``: that of its own user."""

    def __init__(self, intents: int, user_id: int) -> None:
        self._intents = intents
        self._user_id = str(user_id)
        self._by_type: dict[str, bool | None] = {}  # None: it depends on whether the event comes from a guild

    def passes(self, kind: str, data: bytes) -> bool:
        """Return whether the bot gets an event."""
        try:
            known = self._by_type[kind]
        except KeyError:
            in_guild, in_dm = (allows(self._intents, kind, in_guild=place) for place in (True, False))
            known = self._by_type[kind] = in_guild if in_guild is in_dm else None
        if known is None:
            return allows(self._intents, kind, in_guild=_is_of_guild(data))
        return known or (kind == OWN_UPDATES and self._is_own(data))

    def _is_own(self, data: bytes) -> bool:
        try:
            return _member(data).user.id == self._user_id
        except msgspec.DecodeError:
            return False


def _is_of_guild(data: bytes) -> bool:
    try:
        return bytes(_guild(data).guild_id) not in {b"", b"null"}
    except msgspec.DecodeError:  # a lone surrogate, for example
        return b'"guild_id":"' in data


class SessionLost(Exception):
    """The events after the place of a session are not held, or some were lost: the bot has to begin a new session."""


class _LagSample(NamedTuple):
    """The lag of a stream at one moment. Times: seconds since the epoch; ``oldest_at``: when the oldest event came."""

    at: float
    seq: int
    end: int
    oldest_at: float


class SessionStream:
    """The events of ``session`` after Discord's sequence ``seq``.

    ``fresh_from``: seconds since the epoch; events that were recorded as lost before do not concern this session.
    """

    def __init__(
        self, feed: Feed, session: FacadeSession, seq: int, *, user_id: int, fresh_from: float, nonces: Nonces
    ) -> None:
        self._feed = feed
        self._session = session
        self._filter = EventFilter(session.intents, user_id)
        self._fresh_from = fresh_from
        self._nonces = nonces
        self.seq = seq  # Discord's, of the last event that was read or left out
        self._sample = _LagSample(0.0, seq, seq, 0.0)

    @property
    def position(self) -> StreamPosition:
        """The place up to which the bot has all events."""
        return StreamPosition(self._session.label, self.seq)

    def lag(self) -> int:
        """Return how many events, by their sequence numbers, are not read yet."""
        return self._end() - self.seq

    def lag_seconds(self, now: float) -> float:
        """Return the age of the oldest event that is not read yet; there must be one. Thread-safe.

        Up to one sample too much if the bot has got events since then.
        """
        sample = self._sample
        return max(0.0, now - (sample.at if self.seq >= sample.end else sample.oldest_at))

    def sample_lag(self, now: float) -> None:
        """Look up in the feed when the oldest event came that is not read yet. To be called once a second."""
        end, oldest_at = self._end(), self._sample.oldest_at
        if end == self.seq:
            oldest_at = now
        elif self.seq != self._sample.seq or self.seq >= self._sample.end:
            oldest_at = self._oldest_at(now)
        self._sample = _LagSample(now, self.seq, end, oldest_at)

    def _oldest_at(self, now: float) -> float:
        try:
            entries = self._feed.entries(self._session.shard[0], self.position, 1)
        except NotHeld:
            return self._sample.oldest_at or now
        return entries[0].received_at if entries else now

    def _end(self) -> int:
        """Return the sequence number of the newest event; that of the last one read if Discord's session has ended."""
        end = self._feed.end(self._session.shard[0])
        return self.seq if end is None or end.session != self._session.label else max(self.seq, end.seq)

    def frames(self, now: float) -> Iterator[bytes]:
        """Yield the frames of the next events; nothing if there is no further event. Raises `SessionLost`."""
        shard = self._session.shard[0]
        while True:
            try:
                entries = self._feed.entries(shard, self.position, BATCH_BYTES)
            except NotHeld as error:
                raise SessionLost(str(error) or "the events after its place are not held any more") from None
            before = self.seq
            for entry in entries:
                yield from self._frame(entry, now)
            if self.seq == before:
                return

    def _frame(self, entry: Entry, now: float) -> Iterator[bytes]:
        if entry.seq is None:
            if entry.received_at >= self._fresh_from:
                msg = "the control plane has lost events"
                raise SessionLost(msg)
            return
        if entry.seq <= self.seq:
            return
        data = self._wanted(entry, entry.seq, now)
        if data is not None:
            yield dispatch(entry.seq + self._session.shift, entry.type, data)
        self.seq = entry.seq

    def chunk_again(self, seq: int, nonce: str | None) -> bytes | None:
        """Return the frame of a chunk of members that came before, with the nonce of this session; None if it is not held."""
        try:
            (entry, *_) = self._feed.entries(self._session.shard[0], StreamPosition(self._session.label, seq - 1), 1)
        except NotHeld:
            return None
        return dispatch(self.seq + self._session.shift, entry.type, with_nonce(entry.data, nonce))

    def _wanted(self, entry: Entry, seq: int, now: float) -> bytes | None:
        kind, data = entry.type, entry.data
        if kind in OWN:
            return None
        if seq <= self._session.folded and self._is_past(entry, now):
            return None
        if not self._filter.passes(kind, data):
            return None
        return self._nonces.restore(self._session.tag, kind, data, seq) if kind in ANSWERS else data

    def _is_past(self, entry: Entry, now: float) -> bool:
        """Return whether a bot that catches up needs no such event: it is in the guilds, or nothing can be done about it."""
        if entry.type == "INTERACTION_CREATE":
            return now - entry.received_at > INTERACTION_SECONDS
        return entry.type == "TYPING_START" or folds(entry.type)
