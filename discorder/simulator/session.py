"""Hold a gateway session as the server keeps it: its sequence and its newest events. It outlives its connection."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from discorder import event_intents as intent
from discorder.clock import Timer


def encode_dispatch(seq: int, event_type: str, data: bytes) -> bytes:
    """Return a dispatch frame, with its keys in the real server's order (docs/protocol.md#frames) and ``data`` unchanged."""
    return b'{"t":%b,"s":%d,"op":0,"d":%b}' % (msgspec.json.encode(event_type), seq, data)


def encode_op(op: int, data: bytes) -> bytes:
    """Return a frame that is not a dispatch: ``t`` and ``s`` are present, and null."""
    return b'{"t":null,"s":null,"op":%d,"d":%b}' % (op, data)


@dataclass(slots=True, eq=False)
class SimulatedSession:
    """``shard`` is (id, count); ``sharded`` whether the client named it. ``seq`` is the last one given out."""

    id: str
    shard: tuple[int, int]
    sharded: bool
    intents: int
    large_threshold: int
    version: int
    replay: deque[tuple[int, bytes]]
    seq: int = 0
    guilds: frozenset[int] = field(default_factory=frozenset)
    expiry: Timer | None = None

    def append(self, event_type: str, data: bytes) -> bytes:
        """Number an event, keep its frame for a replay and return it."""
        self.seq += 1
        frame = encode_dispatch(self.seq, event_type, data)
        self.replay.append((self.seq, frame))
        return frame

    def missed_since(self, seq: int) -> list[bytes] | None:
        """Return the frames after ``seq``, None if the buffer no longer has all of them."""
        missed = [frame for number, frame in self.replay if number > seq]
        return missed if len(missed) == self.seq - seq else None

    def sees(self, event_type: str, guild: int | None) -> bool:
        """Return whether this session gets an event: its guild or direct messages are on this shard, its intents allow it."""
        if guild is None:  # events without a guild go to shard 0 (docs/protocol.md#sharding)
            return self.shard[0] == 0 and intent.allows(self.intents, event_type, in_guild=False)
        return guild in self.guilds and intent.allows(self.intents, event_type)
