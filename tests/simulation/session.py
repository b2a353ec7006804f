"""A session as the simulated gateway keeps it: all its events, and which of them can still be replayed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from discorder.clock import Timer
from discorder.wire import session_label
from tests.simulation.network import Link

TYPES = ("MESSAGE_CREATE", "MESSAGE_CREATE", "MESSAGE_CREATE", "TYPING_START", "GUILD_CREATE", "PRESENCE_UPDATE")
RESUME_URL = "wss://resume.sim/"
AFTER_READY = 2  # the seq


@dataclass(frozen=True, slots=True)
class Given:
    """One event. ``prev``: the seq of the one before it of its type, 0 for the first; ``at``: when it was given out; ``padding``:
    bytes by which its data is larger than others.
    """

    kind: str
    prev: int
    at: float
    padding: int = 0


@dataclass(eq=False)
class Session:
    """``owner``: the host that identified. ``kept_from``: the first seq that can still be replayed."""

    id: str
    owner: str
    shard: tuple[int, int]
    opened_at: float
    given: list[Given] = field(default_factory=list)
    kept_from: int = 1
    alive: bool = True
    ended_at: float = 0.0
    ended_by: str = ""
    link: Link | None = None
    expiry: Timer | None = None
    _last: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = session_label(self.id)

    @property
    def seq(self) -> int:
        """The newest sequence."""
        return len(self.given)

    def give(self, kind: str, at: float, buffer: int, padding: int = 0) -> bytes:
        """Record the next event and return its frame."""
        self.given.append(Given(kind, self._last.get(kind, 0), at, padding))
        self._last[kind] = self.seq
        self.kept_from = max(self.kept_from, self.seq - buffer + 1)
        return self.frame(self.seq)

    def frame(self, seq: int) -> bytes:
        """Return the frame of the event ``seq``."""
        return b'{"op":0,"t":"%b","s":%d,"d":%b}' % (self.given[seq - 1].kind.encode(), seq, self.data(seq))

    def data(self, seq: int) -> bytes:
        """Return the bytes of its ``d``."""
        if self.given[seq - 1].kind == "READY":
            return b'{"session_id":"%b","resume_gateway_url":"%b","n":%d}' % (
                self.id.encode(),
                RESUME_URL.encode(),
                seq,
            )
        return b'{"of":"%b","n":%d,"pad":"%b"}' % (self.label.encode(), seq, b"x" * self.given[seq - 1].padding)

    def missed_since(self, seq: int) -> Iterator[bytes] | None:
        """Return the frames after ``seq``, None where some are gone. READY is none of them (docs/protocol.md#resume)."""
        if not 0 <= seq <= self.seq or seq + 1 < self.kept_from:
            return None
        return (self.frame(number) for number in range(max(seq + 1, AFTER_READY), self.seq + 1))

    def end(self, at: float, why: str) -> None:
        """End it: it can no longer be resumed."""
        self.alive, self.ended_at, self.ended_by = False, at, why
        if self.expiry is not None:
            self.expiry.cancel()


def new_session(rng: random.Random, owner: str, shard: tuple[int, int], at: float) -> Session:
    """Return a session with a random id."""
    return Session(f"{rng.getrandbits(96):024x}", owner, shard, at)
